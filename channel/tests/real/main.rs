//! The channel service against a real nats-server: one module per promise.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[allow(dead_code, reason = "each crate's tests use a part of it")]
#[path = "../../../nats/tests/real/harness.rs"]
mod harness;

mod control;
mod heads;
mod kit;
mod order;
mod outage;
mod quiet;
