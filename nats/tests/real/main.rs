//! The crate against a real nats-server: one module per part.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod batches;
mod cluster;
mod fanin;
mod generation;
mod harness;
mod kv;
mod lease;
mod provisioning;
mod publishing;
mod reading;
mod renewal;
mod serving;
mod speed;
mod tailing;
