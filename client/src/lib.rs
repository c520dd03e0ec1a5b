//! The Rust SDK (step 1, and the far end of step 6): a client that keeps what it was given until the log has it, and
//! shows every thread in the log's order.
//!
//! [`Client::builder`] logs in and starts one task (`driver`) that stays connected to one of the edges. Messages go
//! through the outbox, what was missed comes by resume, and the app reads one bounded stream of [`Events`]. Pure
//! decisions: `outbox`, `resume`, `chain`, `read_state`, `known_threads`, `backoff`, `edges`, `waking`, joined in
//! `core`; I/O: `connection`, `http`, `store`, `driver`.

mod account;
mod auth;
mod backoff;
mod builder;
mod chain;
mod client;
mod clock;
mod connection;
mod core;
mod driver;
mod edges;
mod error;
mod events;
mod http;
mod known_threads;
mod outbox;
mod people;
mod read_state;
mod resume;
mod store;
mod tls;
mod told;
mod waking;
mod watch_wish;

pub use natterjack_protocol as protocol;
pub use natterjack_protocol::client::http::{GroupInfo, GroupMember, UserSession};

pub use crate::core::ThreadList;
pub use builder::Builder;
pub use client::{At, Client};
pub use error::{BadEdge, BadRoots, ConnectError, RequestError, SendError, StoreError};
pub use events::{ClientEvent, Events};
pub use outbox::{Local, Unsent};
pub use store::OutboxStore;
