//! People, groups, blocks, lost answers, bad input and faults: end to end over real processes and sockets.
#![allow(clippy::unwrap_used, reason = "tests: a panic with its place is the report")]

mod accounts;
mod admins_at_once;
mod archive_away;
mod away;
mod bad_input;
mod blocks;
mod common;
mod deletion;
mod faults;
mod floods;
mod full_log;
mod groups;
mod joining;
mod list_live;
mod lost_answers;
mod lost_changes;
mod lost_keys;
mod people;
mod reading;
mod reading_goes_on;
mod receipts;
mod refresh;
mod sessions;
mod texts;
mod thread_list;
