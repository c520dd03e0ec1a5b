//! The role `presence`: who is here. Several instances share the shards of `sessions`; the one that holds a shard's
//! lease watches it, sweeps the sessions of edges that are gone, and tells the edges what has changed.
//!
//! `role` starts a loop for each shard (`shard`), whose outside is `nats_world`. `table` and `edges` decide (pure),
//! `moment` is their clock.

mod edges;
mod metrics;
mod moment;
mod nats_world;
mod role;
mod shard;
mod table;

pub use role::{Config, Error, run};
