//! What the log holds, and the rules that every reader of it applies alike: entries, membership, the chain of a thread.

mod body;
pub mod chain;
mod departure;
mod entry;
pub mod fold;
mod kind;
mod membership;
mod view;

pub use body::{Body, Media};
pub use departure::departure;
pub use entry::Entry;
pub use kind::Kind;
pub use membership::{HistoryFor, Interval, Intervals, Role};
pub use view::{BadEntry, EntryView};

/// Version of entries and KV values that this build writes; it reads the next one too.
pub const VERSION: u8 = 1;
