//! P4, P5, P6 and P9 over real processes and sockets: no silent hole, any edge, edges are cattle, one phone.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests: a panic with its place is the report, and measured times are printed"
)]

mod common;
mod devices;
mod p4_channel;
mod p4_no_silent_hole;
mod p5_any_edge;
mod p6_edges_are_cattle;
mod p9_faults;
mod p9_one_phone;
mod p9_polls;
mod sizes;
mod sizes_asked;
mod waking;
