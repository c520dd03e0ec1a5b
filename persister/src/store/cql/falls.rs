//! The table `thread_falls`: the ids at which the times of a thread fall, because the log's clock was set back, or got
//! a leader whose clock is behind. Between two of them times rise with ids, so whoever looks for a time looks in each
//! such stretch. There is hardly ever one.

use natterjack_protocol::MsgId;
use scylla::statement::prepared::PreparedStatement;

use super::{int, session::Requests, uint};
use crate::store::{ArchiveError, FALLS};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS thread_falls (
    thread text, id bigint, PRIMARY KEY (thread, id)) WITH CLUSTERING ORDER BY (id DESC)";

pub(super) struct Falls {
    put: PreparedStatement,
    below: PreparedStatement,
}

impl Falls {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            put: r.prepare("INSERT INTO thread_falls (thread, id) VALUES (?, ?) USING TIMESTAMP ?").await?,
            below: r
                .prepare("SELECT id FROM thread_falls WHERE thread = ? AND id < ? ORDER BY id DESC LIMIT ?")
                .await?,
        })
    }

    pub(super) async fn put(&self, r: &Requests, thread: &str, id: MsgId) -> Result<(), ArchiveError> {
        r.write(&self.put, (thread, int(id.0), int(id.0))).await
    }

    /// The newest ones below an id, newest first.
    pub(super) async fn below(&self, r: &Requests, thread: &str, id: MsgId) -> Result<Vec<MsgId>, ArchiveError> {
        let rows: Vec<(i64,)> = r.read(&self.below, (thread, int(id.0), FALLS as i32)).await?;
        Ok(rows.into_iter().map(|(id,)| MsgId(uint(id))).collect())
    }
}
