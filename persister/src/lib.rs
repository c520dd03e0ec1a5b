//! natterjack-persister: step 7 of a message's life. Reads the log in batches, writes the store, and answers `history`
//! and `directory`. The only crate that opens the archive.

pub mod archive;
pub mod backup;
mod batch;
mod cursors;
pub mod directory;
pub mod external;
pub mod fold;
pub mod history;
mod losses;
mod metrics;
pub mod password;
mod run;
mod space;
pub mod store;
pub mod tokens;
pub mod work_queue;
mod write;

pub use run::{Config, Error, StoreConfig, run, run_with};
