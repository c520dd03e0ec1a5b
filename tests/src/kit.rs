//! What an end-to-end test needs.
//!
//! ```ignore
//! let cluster = Cluster::start(ClusterSpec::default()).await;
//! let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
//! let (client, mut events) = cluster.client(&alice, 0).await;
//! cluster.edge(0).kill9().await;
//! ```

pub mod api;
pub mod cassandra;
pub mod cluster;
pub mod counters;
pub mod events;
pub mod issuer;
pub mod lossy;
pub mod mint;
pub mod paging;
pub mod panics;
pub mod poller;
pub mod raw_ws;
pub mod secured_nats;
pub mod terminal;
pub mod truth;
pub mod user;
pub mod witness;
pub mod writer;

pub use api::Api;
pub use cassandra::Cassandra;
pub use cluster::{Cluster, ClusterSpec};
pub use events::{next_event, next_message, next_messages};
pub use issuer::Issuer;
pub use lossy::LossyEdge;
pub use poller::Poller;
pub use raw_ws::{RawWs, Received};
pub use secured_nats::{LetsIn, SecuredNats};
pub use terminal::Terminal;
pub use user::User;
