//! natterjack-persister: step 7 of a message's life. Reads the log in batches, writes the store, and answers `history` and `directory`.
//! The only crate that opens the archive.

pub mod overlay;
pub mod store;
mod tokens;
