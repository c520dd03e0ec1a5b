//! The promises that hang on the log: acked means kept, once, one order. One module per promise.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "promises_log/backup.rs"]
mod backup;
#[path = "promises_log/clocks.rs"]
mod clocks;
#[path = "promises_log/generations.rs"]
mod generations;
#[path = "promises_log/later.rs"]
mod later;
#[path = "promises_log/lost_end.rs"]
mod lost_end;
#[path = "promises_log/p1_acked_means_kept.rs"]
mod p1_acked_means_kept;
#[path = "promises_log/p2_once.rs"]
mod p2_once;
#[path = "promises_log/p3_one_order.rs"]
mod p3_one_order;
#[path = "promises_log/p3_refusals.rs"]
mod p3_refusals;
