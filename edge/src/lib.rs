//! The edge: WebSocket and HTTP front of Natterjack. Steps 2, 5, 6 and 9 of a message's life (DESIGN §3).
//!
//! A connection goes through `accept` → `connection` → `upgrade` → `session`; a send through `session/commands` → `send` → the log;
//! an event comes back through `live` (fan-in, chain, repair) into each session's `outbox` and out by its own task.
//! Nothing here survives the process, and nothing here has to.

pub mod accept;
pub mod address;
pub mod answer;
pub mod attach;
pub mod auth;
pub mod batch;
pub mod body;
pub mod capacity;
pub mod clock;
pub mod config;
pub mod connection;
pub mod control;
mod describe;
pub mod directory;
pub mod door;
pub mod drain;
pub mod gate;
pub mod head;
pub mod history;
pub mod http;
pub mod lease;
pub mod leaving;
pub mod live;
pub mod members;
mod moving;
pub mod pages;
pub mod people;
pub mod poll;
pub mod posts;
pub mod rate;
mod references;
pub mod repair;
mod run;
pub mod send;
pub mod session;
pub mod sessions;
pub mod threads;
pub mod tls;
pub mod upgrade;
pub mod wire;

pub use config::Config;
pub use door::Limits;
pub use run::{Error, run};
