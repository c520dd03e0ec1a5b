//! Clients at the door: those that get no WebSocket through, those that are too many, those whose login is over or comes from
//! elsewhere; and the door itself over TLS.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests: a panic with its place is the report, and measured times are printed")]

#[path = "door/common.rs"]
mod common;
#[path = "door/connections.rs"]
mod connections;
#[path = "door/external.rs"]
mod external;
#[path = "door/guesses.rs"]
mod guesses;
#[path = "door/leaving.rs"]
mod leaving;
#[path = "door/limits.rs"]
mod limits;
#[path = "door/long_poll.rs"]
mod long_poll;
#[path = "door/memory.rs"]
mod memory;
#[path = "door/open_files.rs"]
mod open_files;
#[path = "door/proxies.rs"]
mod proxies;
#[path = "door/revocation.rs"]
mod revocation;
#[path = "door/shares.rs"]
mod shares;
#[path = "door/tls.rs"]
mod tls;
