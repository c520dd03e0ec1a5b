//! The runners against a real nats-server: a role of one file reads the log beside channel and persister, and work is
//! done by shard.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod counter;
mod shards;
mod third_reader;
