//! The role `presence`: who is online. Users are spread over shards (the buckets `sessions-<shard>`). The instance that
//! holds a shard's lease watches its bucket, removes the sessions of edges that are gone, and tells the edges what has
//! changed.
//!
//! `role` runs a loop for each shard (`shard`), whose I/O is `nats_world`. `table` and `edges` decide (pure), `moment`
//! is their clock.

mod edges;
mod metrics;
mod moment;
mod nats_world;
mod role;
mod shard;
mod table;

pub use role::run;
