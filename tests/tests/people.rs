//! People, groups, blocks, lost answers, bad input and faults: end to end over real processes and sockets.
#![allow(clippy::unwrap_used, reason = "tests: a panic with its place is the report")]

#[path = "people/away.rs"]
mod away;
#[path = "people/bad_input.rs"]
mod bad_input;
#[path = "people/blocks.rs"]
mod blocks;
#[path = "people/common.rs"]
mod common;
#[path = "people/faults.rs"]
mod faults;
#[path = "people/groups.rs"]
mod groups;
#[path = "people/lost_answers.rs"]
mod lost_answers;
#[path = "people/lost_changes.rs"]
mod lost_changes;
#[path = "people/people.rs"]
mod people;
#[path = "people/refresh.rs"]
mod refresh;
#[path = "people/texts.rs"]
mod texts;
