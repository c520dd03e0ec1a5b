//! The channel service against a real nats-server: one module per promise.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod control;
mod heads;
mod idle_heads;
mod kit;
mod order;
mod outage;
