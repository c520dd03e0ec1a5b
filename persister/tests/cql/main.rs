//! The CQL store on a real server: the one conformance suite, its schema made by several at once, and the server away.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

// The suite is compiled into this test as well, and names things as the crate does.
use natterjack_persister::tokens;

mod away;
mod kit;
mod speed;
mod store;
mod suite;
#[allow(dead_code, reason = "shared with another binary")]
#[path = "../path/kit.rs"]
mod world;
