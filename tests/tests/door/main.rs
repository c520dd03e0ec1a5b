//! Clients at the door: those that get no WebSocket through, those that are too many, those whose login is over or
//! comes from elsewhere; and the door itself over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests: a panic with its place is the report, and measured times are printed"
)]

mod common;
mod connections;
mod external;
mod guesses;
mod leaving;
mod limits;
mod log_lines;
mod long_poll;
mod memory;
mod open_files;
mod proxies;
mod revocation;
mod shares;
mod tls;
