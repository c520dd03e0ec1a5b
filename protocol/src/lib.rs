//! What every part of Natterjack agrees on: ids, frames, log entries, codes, limits and the pure rules.
//!
//! Nothing in this crate does I/O. A rule that two roles need (chain, fold, late) lives here once, so that a test can
//! hold it in its hand and every role decides alike.
//!
//! Three rooms over a floor of leaf modules; each imports only what stands left of it, which a test holds
//! (`tests/contract/rooms.rs`):
//!
//! leaves (this folder) ← [`log`] (what the log holds) ← [`client`] (what an SDK sees) ← [`internal`] (what roles say
//! to each other)

pub mod cid;
pub mod client;
pub mod codec;
pub mod ids;
pub mod internal;
pub mod limits;
pub mod log;
pub mod merge;
pub mod parts;
mod refusal;
pub mod schema;
pub mod size;
pub mod text;
pub mod thread;
pub mod times;

pub use cid::Cid;
pub use client::event::Event;
pub use ids::{DeviceId, GroupId, MsgId, Token, UserId};
pub use log::{Body, Entry, Kind};
pub use refusal::{Code, Refusal, Retry};
pub use size::Most;
pub use thread::Thread;
pub use times::Times;
