//! The smallest role that reads the log: it notes the ids of each thread. And faults, for the tests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use natterjack_nats::{LogBatch, Record};
use natterjack_protocol::{MsgId, Thread};
use natterjack_role::{LogRole, Partition, PartitionError, RoleLease};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    Pause,
    Error,
    Panic,
}

/// What a store would be: with the id, what comes again after a restart is told from what is new.
pub type Counts = Arc<Mutex<BTreeMap<Thread, Vec<MsgId>>>>;

pub struct Counter {
    pub counts: Counts,
    pub fault: watch::Receiver<Fault>,
}

impl LogRole for Counter {
    const NAME: &'static str = "counter";

    async fn run(&self, partition: Partition, lease: RoleLease) -> Result<(), PartitionError> {
        let read = async {
            let mut log = partition.log().await?;
            while let Some(batch) = partition.next(&mut log, 1_000).await? {
                self.count(&batch).await?;
                partition.done(&batch).await;
            }
            Ok(())
        };
        partition.while_held(lease, read).await
    }
}

impl Counter {
    async fn count(&self, batch: &LogBatch) -> Result<(), PartitionError> {
        match *self.fault.clone().wait_for(|f| *f != Fault::Pause).await.unwrap() {
            Fault::Error => return Err(PartitionError::Failed("on purpose".into())),
            Fault::Panic => panic!("on purpose"),
            Fault::None | Fault::Pause => {}
        }
        let mut counts = self.counts.lock().unwrap();
        for entry in batch.records.iter().filter_map(|r| if let Record::Entry(e) = r { Some(e) } else { None }) {
            let ids = counts.entry(entry.thread.clone()).or_default();
            ids.extend((ids.last() < Some(&entry.id)).then_some(entry.id));
        }
        Ok(())
    }
}
