//! What every part of Natterjack agrees on: ids, frames, log entries, codes, limits and the pure rules.
//!
//! Nothing in this crate does I/O. A rule that two roles need (chain, fold, late, cursors) lives here once,
//! so that a test can hold it in its hand and every role decides alike.

pub mod address;
pub mod chain;
pub mod cid;
pub mod close;
pub mod codec;
pub mod entry;
pub mod error;
pub mod event;
pub mod fold;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod live;
pub mod rpc;
pub mod send_queue;
pub mod size;
pub mod text;
pub mod thread;
pub mod times;

pub use cid::Cid;
pub use entry::{Body, Entry, Kind};
pub use error::{Code, Refusal};
pub use event::Event;
pub use ids::{DeviceId, GroupId, MsgId, Token, UserId};
pub use size::Most;
pub use thread::Thread;
pub use times::Times;
