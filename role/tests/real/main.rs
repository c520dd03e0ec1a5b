//! The runner against a real nats-server: a role of one file reads the log beside channel and persister.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod counter;
mod third_reader;
