//! P4, P5 and P6 over real processes and sockets: no silent hole, any edge, edges are cattle.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests: a panic with its place is the report, and measured times are printed")]

#[path = "promises_edge/common.rs"]
mod common;
#[path = "promises_edge/p4_channel.rs"]
mod p4_channel;
#[path = "promises_edge/p4_no_silent_hole.rs"]
mod p4_no_silent_hole;
#[path = "promises_edge/p5_any_edge.rs"]
mod p5_any_edge;
#[path = "promises_edge/p6_edges_are_cattle.rs"]
mod p6_edges_are_cattle;
#[path = "promises_edge/sizes.rs"]
mod sizes;
#[path = "promises_edge/sizes_asked.rs"]
mod sizes_asked;
