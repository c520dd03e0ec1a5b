//! The crate against a real nats-server: one module per part.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod batches;
#[path = "../../../tests/src/kit/certificates.rs"]
#[allow(dead_code, reason = "the kit's; not all of it is needed here")]
mod certificates;
mod cluster;
mod fanin;
mod generation;
mod harness;
mod kv;
mod lease;
#[path = "../../../tests/src/kit/nats_login.rs"]
mod nats_login;
mod permissions;
mod provisioning;
mod publishing;
mod reading;
mod renewal;
mod secured;
mod serving;
mod speed;
mod tailing;
