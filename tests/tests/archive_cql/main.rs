//! P7 on a real CQL server: stopped under load, slow, one of three killed, the persister killed at any moment. Chat
//! goes on, and all that was acknowledged is in the archive afterwards, once and in order. And away for so long that
//! sends have to be refused. Lost answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;
mod lost_answers;
mod p7_storage_behind;
mod p7_the_archive_may_be_away;

#[allow(dead_code, reason = "shared with other binaries")]
#[path = "../people"]
mod people {
    pub mod common;
    pub mod lost_changes;
}
#[allow(dead_code, reason = "shared with other binaries")]
#[path = "../promises_edge/common.rs"]
mod watching;
