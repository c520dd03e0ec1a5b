//! The crate against a real nats-server: one module per part.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod batches;
mod cluster;
mod fanin;
mod generation;
mod kv;
mod kv_tree;
mod lease;
mod permissions;
mod provisioning;
mod publishing;
mod reading;
mod renewal;
mod secured;
mod serving;
mod speed;
mod tailing;

use natterjack_protocol::MsgId;

fn ids(records: &[natterjack_nats::LogRecord]) -> Vec<MsgId> {
    records.iter().map(|r| r.id).collect()
}

/// Of a batch of the log.
fn ids_of(batch: &natterjack_nats::LogBatch) -> Vec<MsgId> {
    batch.records.iter().map(natterjack_nats::Record::id).collect()
}
