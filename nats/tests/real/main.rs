//! The crate against a real nats-server: one module per part.

mod fanin;
mod harness;
mod kv;
mod lease;
mod provisioning;
mod publishing;
mod reading;
mod serving;
mod tailing;
