//! The role on a real nats-server. Edges are keys that the tests write, and a service that answers pings.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests: a panic with its place is the report, and measured times are printed"
)]

mod kit;
mod sessions;
mod sweeps;
