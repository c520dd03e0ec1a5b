//! What integration tests of every crate share: a real nats-server at an address of its own, processes that can be
//! killed and frozen, proxies that break connections, HTTP by hand, certificates, and waiting for a condition under a
//! deadline.
//!
//! Only tests depend on it, and it depends on no role: those that start a whole installation build on
//! `tests/src/kit.rs`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code: a panic with its place is the report")]

pub mod certificates;
pub mod document;
pub mod ids;
pub mod nats_login;
pub mod nats_proxy;
pub mod nats_server;
pub mod net;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod raw_http;
pub mod raw_nats;
pub mod stopwatch;
pub mod wait;

pub use certificates::Certificates;
pub use ids::{cid, cid_at, edge_info, group, now_ms, thread, user};
pub use nats_proxy::NatsProxy;
pub use nats_server::{NatsServer, thread_in};
pub use process::Process;
pub use proxy::{Flow, Proxy, Side};
pub use raw_http::RawHttp;
pub use raw_nats::{raw_client, raw_jetstream};
pub use stopwatch::Stopwatch;
pub use wait::{eventually, eventually_within, patience, within};
