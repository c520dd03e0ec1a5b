//! The promises that hang on the log: acked means kept, once, one order. One module per promise.
#![allow(clippy::unwrap_used, reason = "test code")]

mod backup;
mod clocks;
mod generations;
mod later;
mod lost_end;
mod p1_acked_means_kept;
mod p2_kills;
mod p2_late_copy;
mod p2_once;
mod p3_one_order;
mod p3_refusals;
