//! Who is here, over real processes and sockets: P6, and what privacy and blocks hide.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests: a panic with its place is the report, and measured times are printed"
)]

mod common;
mod edges;
mod friends;
mod lies;
mod privacy;
mod role;
mod storm;
