//! Step 7, its second half: a sorted batch into the store, thread by thread, a few at once, and only then the watermark
//! over it.
//!
//! For whoever reads the log (`archive`), and whoever has a part of it in a file (`restore`).

use std::{collections::HashSet, fmt::Display, ops::RangeInclusive, time::Duration};

use futures_util::{StreamExt, stream};
use natterjack_nats::{LogRecord, Record};
use natterjack_protocol::{MsgId, Thread};
use natterjack_runtime::health::Reader;
use tokio::time::sleep;

use crate::{
    batch::SortedBatch,
    fold::fold_thread,
    store::{ArchiveStore, PartitionKey, Row},
};

/// Threads of a batch that are written at the same time.
const WRITES: usize = 64;
/// Pauses between attempts at a store that does not answer.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(2);

/// Who can tell whether an entry is a copy of an earlier one (the late rule, P2).
pub(crate) trait Copies {
    type Error: Display;

    /// An error: it cannot be told now.
    fn is_copy(&self, record: &LogRecord) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// Whatever the store answers, nothing is skipped: it is tried again, with the very same rows, until it is written.
/// `reader` says so.
pub(crate) struct Writer<'a, S> {
    pub store: &'a S,
    pub reader: &'a Reader,
}

impl<S: ArchiveStore> Writer<'_, S> {
    /// All of it, then the watermark over it.
    pub async fn write(&self, key: PartitionKey, sorted: SortedBatch) {
        let SortedBatch { threads, unknown_subjects, end, .. } = sorted;
        let writes = threads.into_iter().map(|(thread, rows)| self.write_thread(thread, rows));
        stream::iter(writes).buffer_unordered(WRITES).collect::<()>().await;
        let store = self.store;
        for entry in &unknown_subjects {
            self.until_it_works("keep an entry with an unknown subject", || store.keep_unknown_subject(entry.clone()))
                .await;
        }
        self.until_it_works("move the watermark", || store.advance(key, end)).await;
    }

    pub async fn write_thread(&self, thread: Thread, rows: Vec<Row>) {
        let (store, thread, rows) = (self.store, &thread, &rows);
        // Folded anew at each attempt: the state may be what could not be read.
        let write = || async move { store.append(fold_thread(store, thread.clone(), rows.clone()).await?).await };
        self.until_it_works("write messages", write).await;
    }

    /// What the late rule hides. While that cannot be told, the watermark waits.
    pub async fn copies(&self, records: &[Record], judge: &impl Copies) -> HashSet<MsgId> {
        let mut hidden = HashSet::new();
        for record in records {
            let Record::Entry(entry) = record else { continue };
            if self.until_it_works("judge a late entry", || judge.is_copy(entry)).await {
                tracing::info!(id = %entry.id, "a copy of an earlier entry, stored late; shown to nobody");
                hidden.insert(entry.id);
            }
        }
        hidden
    }

    /// Never gives up: to skip is to lose what was acknowledged.
    pub async fn until_it_works<T, E: Display, F: Future<Output = Result<T, E>>>(
        &self,
        what: &'static str,
        mut f: impl FnMut() -> F,
    ) -> T {
        let mut pause = *PAUSE.start();
        let mut trouble = None;
        loop {
            match f().await {
                Ok(t) => return t,
                Err(e) => {
                    metrics::counter!(crate::metrics::STORE_ERRORS).increment(1);
                    tracing::warn!(
                        what, error = %e,
                        "the store failed; trying again, the log keeps what is not archived"
                    );
                    // Others of this partition may go well meanwhile; it stays said until this one does.
                    trouble.get_or_insert_with(|| self.reader.trouble()).is(Some(format!("{what}: {e}")));
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
            pause = (pause * 2).min(*PAUSE.end());
        }
    }
}
