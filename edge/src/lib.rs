//! The edge: WebSocket and HTTP front of Natterjack. Steps 2, 5 and 6 of a message's life (ARCHITECTURE.md).
//!
//! A connection goes through `server` (accept, TLS, HTTP/1.1) and, once upgraded, through `session`; a message goes
//! through `session/commands` and `sends` into the log; an event comes back through `live` (fan-in, chain, repair) into
//! each session's `sessions/outbox`, and from there into its socket. Nothing here survives the process, and nothing
//! here has to.

pub mod acks;
pub mod address;
pub mod admission;
pub mod attach;
pub mod auth;
pub mod clock;
pub mod config;
pub mod control;
pub mod cursors;
mod delivery;
pub mod devices;
pub mod directory;
pub mod drain;
pub mod edges;
pub mod history;
pub mod http;
pub mod lease;
pub mod live;
pub mod long_poll;
pub mod members;
mod metrics;
pub mod pages;
pub mod people;
pub mod presence;
mod readiness;
pub mod receipt_push;
pub mod receipts;
pub mod refusals;
mod run;
pub mod sends;
pub mod server;
pub mod session;
pub mod sessions;
pub mod status;
pub mod thread_settings;
mod threads;
mod wire;

pub use admission::limits::Limits;
pub use config::Config;
pub use run::{Error, run};
pub use server::{capacity, tls};
