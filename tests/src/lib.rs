//! The kit for tests over real processes: a real nats-server, real roles, real sockets, and faults made on purpose.
//!
//! The tests themselves are in `tests/`: `invariants` looks at the tree, `e2e` holds one module per promise.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code: a panic with its place is the report")]

pub mod kit;
