//! What an end-to-end test needs.
//!
//! ```ignore
//! let cluster = Cluster::start(ClusterSpec::default()).await;
//! let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
//! let (client, mut events) = cluster.client(&alice, 0).await;
//! cluster.edge(0).kill9().await;
//! ```

pub mod api;
pub mod binary;
pub mod cassandra;
pub mod certificates;
pub mod cluster;
pub mod document;
pub mod issuer;
pub mod lossy;
pub mod mint;
pub mod nats_login;
pub mod nats_proxy;
pub mod net;
pub mod panics;
pub mod poller;
pub mod process;
pub mod proxy;
pub mod raw_http;
pub mod raw_ws;
pub mod secured_nats;
pub mod terminal;
pub mod user;
pub mod wait;
pub mod witness;

pub use api::Api;
pub use cassandra::Cassandra;
pub use certificates::Certificates;
pub use cluster::{Cluster, ClusterSpec};
pub use issuer::Issuer;
pub use lossy::LossyEdge;
pub use nats_proxy::NatsProxy;
pub use poller::Poller;
pub use process::Process;
pub use proxy::{Flow, Proxy, Side};
pub use raw_http::RawHttp;
pub use raw_ws::{RawWs, Received};
pub use secured_nats::{LetsIn, SecuredNats};
pub use terminal::Terminal;
pub use user::User;
pub use wait::{eventually, next_event, next_message, next_messages, patience, within};
