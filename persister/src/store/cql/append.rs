//! Writing entries of a thread: in which bucket each of them is, and what edits and recalls do to earlier ones.

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_protocol::{Kind, MsgId, internal::rpc::LastEntry};

use super::{
    Db,
    buckets::{Filling, Place},
    operations::Spot,
};
use crate::store::{ArchiveError, Row, falls};

/// Writes of one thread's batch at once; many threads are written beside each other.
const AT_ONCE: usize = 8;

impl Db {
    /// Falls and cuts first, then the rows, then what they do to earlier ones. The thread's last id may be written
    /// beside the rows: a replay below it finds its bucket by the cuts.
    pub(super) async fn append_rows(&self, thread: &str, rows: &[Row]) -> Result<(), ArchiveError> {
        let Some(newest) = rows.iter().max_by_key(|r| r.id) else { return Ok(()) };
        let r = &self.requests;
        let before = self.threads.filling(r, thread).await?;
        for id in falls(LastEntry { id: before.last, ts: before.at }, rows) {
            self.falls.put(r, thread, id).await?;
        }
        let (mut filling, mut parts): (Filling, Vec<(u64, Vec<&Row>)>) = (before, Vec::new());
        for row in rows {
            let bucket = match filling.place(self.limits, row) {
                Place::In(bucket) => bucket,
                Place::Opens(bucket) => {
                    self.buckets.cut(r, thread, bucket, row.ts).await?;
                    bucket
                }
                Place::Earlier => self.buckets.of(r, thread, row.id).await?,
            };
            match parts.last_mut() {
                Some((same, rows)) if *same == bucket => rows.push(row),
                _ => parts.push((bucket, vec![row])),
            }
        }
        let inserts = parts.iter().map(|(bucket, rows)| self.messages.insert(r, thread, *bucket, rows)).collect();
        let controls = rows
            .iter()
            .filter(|row| row.kind.is_control())
            .map(|row| self.messages.insert_control(r, thread, row))
            .collect();
        let touch = async {
            if filling.last > before.last { self.threads.touch(r, thread, &filling, newest.ts).await } else { Ok(()) }
        };
        tokio::try_join!(all(inserts), all(controls), touch)?;
        let rows = parts.iter().flat_map(|(bucket, rows)| rows.iter().map(|row| (*bucket, *row)));
        let operations = rows.filter(|(_, row)| matches!(row.kind, Kind::Edit | Kind::Recall));
        all(operations.map(|(bucket, op)| self.operate(thread, bucket, op, &filling)).collect()).await
    }

    async fn operate(&self, thread: &str, bucket: u64, op: &Row, filling: &Filling) -> Result<(), ArchiveError> {
        let r = &self.requests;
        // An operation cannot be about the future.
        let Some(target) = op.body.target.filter(|t| *t < op.id) else { return Ok(()) };
        let spot = async |id: MsgId| {
            let bucket = if id.0 >= filling.bucket { filling.bucket } else { self.buckets.of(r, thread, id).await? };
            Ok::<_, ArchiveError>(Spot { thread, bucket, id })
        };
        match op.kind {
            Kind::Edit => self.operations.edit(r, op, Spot { thread, bucket, id: op.id }, spot(target).await?).await,
            Kind::Recall => self.operations.recall(r, op, spot(target).await?, spot).await,
            _ => Ok(()),
        }
    }
}

/// A few at a time.
pub(super) async fn all(writes: Vec<impl Future<Output = Result<(), ArchiveError>>>) -> Result<(), ArchiveError> {
    stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await
}
