//! The table `lost`: parts of the log that nobody can read any more, for ever. There are a handful, so they stand in
//! one place, to be read at once. Every write has the last id as its timestamp: of two with the same beginning the
//! longer one stays.

use natterjack_protocol::MsgId;
use scylla::statement::prepared::PreparedStatement;

use super::{int, session::Requests, uint};
use crate::store::{ArchiveError, LostRange, PartitionKey};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS lost (
    everything int, generation bigint, partition bigint, first bigint, last bigint, partitions bigint, since bigint, \
    until bigint,
    PRIMARY KEY (everything, generation, partition, first))";

/// The one value of the column `everything`.
const EVERYTHING: i32 = 0;

pub(super) struct Lost {
    insert: PreparedStatement,
    read: PreparedStatement,
}

impl Lost {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            insert: r
                .prepare(
                    "INSERT INTO lost (everything, generation, partition, first, last, partitions, since, until)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
                )
                .await?,
            read: r
                .prepare(
                    "SELECT generation, partition, first, last, partitions, since, until FROM lost WHERE everything = \
                     ?",
                )
                .await?,
        })
    }

    pub(super) async fn lose(&self, r: &Requests, l: &LostRange) -> Result<(), ArchiveError> {
        let (generation, partition): (i64, i64) = (l.key.generation.into(), l.key.partition.into());
        let (first, last) = (int(l.first.0), int(l.last.0));
        let values =
            (EVERYTHING, generation, partition, first, last, i64::from(l.partitions), int(l.since), int(l.until), last);
        r.write(&self.insert, values).await
    }

    pub(super) async fn lost(&self, r: &Requests) -> Result<Vec<LostRange>, ArchiveError> {
        let rows: Vec<(i64, i64, i64, i64, i64, i64, i64)> = r.read(&self.read, (EVERYTHING,)).await?;
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        let range = |(generation, partition, first, last, partitions, since, until)| LostRange {
            key: PartitionKey { generation: small(generation), partition: small(partition) },
            partitions: small(partitions),
            first: MsgId(uint(first)),
            last: MsgId(uint(last)),
            since: uint(since),
            until: uint(until),
        };
        let mut lost: Vec<LostRange> = rows.into_iter().map(range).collect();
        lost.sort_by_key(|l| l.last);
        Ok(lost)
    }
}
