//! The table `lost`: parts of the log that nobody can read any more, for ever.

use natterjack_protocol::MsgId;
use rusqlite::{Connection, Transaction, params};

use super::{int, uint};
use crate::store::{LostRange, PartitionKey};

pub(super) const SCHEMA: &str = "
CREATE TABLE lost (
    generation INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    partitions INTEGER NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (generation, partition, first)
) WITHOUT ROWID;
";

pub(super) fn lose(tx: &Transaction<'_>, l: &LostRange) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO lost (generation, partition, first, last, partitions, since, until) VALUES (?1, ?2, ?3, ?4, ?5, \
         ?6, ?7)
         ON CONFLICT (generation, partition, first) DO UPDATE SET last = excluded.last, since = excluded.since, until \
         = excluded.until
         WHERE excluded.last > last",
    )?
    .execute(params![
        l.key.generation,
        l.key.partition,
        int(l.first.0),
        int(l.last.0),
        l.partitions,
        int(l.since),
        int(l.until)
    ])?;
    Ok(())
}

pub(super) fn lost(c: &Connection) -> rusqlite::Result<Vec<LostRange>> {
    c.prepare_cached("SELECT generation, partition, first, last, partitions, since, until FROM lost ORDER BY last")?
        .query_map([], |r| {
            Ok(LostRange {
                key: PartitionKey { generation: r.get(0)?, partition: r.get(1)? },
                first: MsgId(uint(r.get(2)?)),
                last: MsgId(uint(r.get(3)?)),
                partitions: r.get(4)?,
                since: uint(r.get(5)?),
                until: uint(r.get(6)?),
            })
        })?
        .collect()
}
