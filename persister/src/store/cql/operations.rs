//! What edits and recalls do in `messages`. They never read a message in order to change it: each leaves its mark
//! beside it.
//!
//! - `edits[author]` is the newest edit by that author, written with its id as the timestamp, so the newest stays in
//!   any order;
//! - `recalls[author]` is the first recall by that author, `recalls['*']` the first by an admin or owner, written with
//!   a timestamp that falls with the id, so the first stays.
//!
//! Which of the marks count is decided on reading, by the rules of `overlay`: only there author and kind of the message
//! are known for sure, whatever came first.
//!
//! A recall also takes away what is stored. The text of an edit goes whoever comes first, edit or recall: both write
//! first and look for the other afterwards, so at least one of them finds the other. `edited` is the list by which a
//! recall finds the edits.

use std::collections::HashMap;

use natterjack_protocol::{Body, Kind, MsgId, UserId};
use scylla::statement::prepared::PreparedStatement;

use super::{corrupt, int, messages::encode, session::Requests, uint};
use crate::store::{ArchiveError, Row, overlay};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS edited (
    thread text, target bigint, id bigint, sender text, PRIMARY KEY ((thread, target), id))";

/// Users' ids have no such character.
const POWER: &str = "*";
/// Above every id: what is taken away stays away, also from a replay of who wrote it. Ids stay below.
const FOR_GOOD: i64 = 1 << 53;
/// Edits of one message that a recall looks at in one go.
const CHUNK: i32 = 500;

type Recalls = HashMap<String, i64>;

pub(super) struct Operations {
    mark_edit: PreparedStatement,
    mark_recall: PreparedStatement,
    list: PreparedStatement,
    edits: PreparedStatement,
    target: PreparedStatement,
    body: PreparedStatement,
    clear: PreparedStatement,
    replace_body: PreparedStatement,
}

/// Where a row is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    pub thread: &'a str,
    pub bucket: u64,
    pub id: MsgId,
}

/// As much of the message an operation is about as is there.
struct Target {
    sender: Option<String>,
    kind: Option<Kind>,
    recalls: Recalls,
}

impl Operations {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        const ROW: &str = "WHERE thread = ? AND bucket = ? AND id = ?";
        Ok(Self {
            mark_edit: r.prepare(&format!("UPDATE messages USING TIMESTAMP ? SET edits[?] = ? {ROW}")).await?,
            mark_recall: r.prepare(&format!("UPDATE messages USING TIMESTAMP ? SET recalls[?] = ? {ROW}")).await?,
            list: r
                .prepare("INSERT INTO edited (thread, target, id, sender) VALUES (?, ?, ?, ?) USING TIMESTAMP ?")
                .await?,
            edits: r
                .prepare("SELECT id, sender FROM edited WHERE thread = ? AND target = ? AND id > ? LIMIT ?")
                .await?,
            target: r.prepare(&format!("SELECT sender, kind, recalls FROM messages {ROW}")).await?,
            body: r.prepare(&format!("SELECT body FROM messages {ROW}")).await?,
            clear: r.prepare(&format!("DELETE body, edits FROM messages USING TIMESTAMP ? {ROW}")).await?,
            replace_body: r.prepare(&format!("UPDATE messages USING TIMESTAMP ? SET body = ? {ROW}")).await?,
        })
    }

    /// After the rows of the batch are written. `own`: where the edit itself is.
    pub(super) async fn edit(
        &self,
        r: &Requests,
        op: &Row,
        own: Spot<'_>,
        target: Spot<'_>,
    ) -> Result<(), ArchiveError> {
        let Some(text) = &op.body.text else { return Ok(()) };
        let (me, id) = (op.from.as_str(), int(op.id.0));
        r.write(&self.list, (own.thread, int(target.id.0), id, me, id)).await?;
        let about = self.look(r, target).await?;
        // What is known to count for nothing is not kept beside a message of somebody else.
        if about.sender.as_deref().is_none_or(|s| s == me) && about.kind.is_none_or(Kind::is_message) {
            let (thread, bucket, of) = spelled(target);
            r.write(&self.mark_edit, (id, me, (id, text), thread, bucket, of)).await?;
        }
        let gone = [me, POWER].iter().any(|who| about.recalls.contains_key(*who));
        if gone { self.take_text(r, own).await } else { Ok(()) }
    }

    /// After the rows of the batch are written. `spot` tells where an edit of the message is.
    pub(super) async fn recall<'a, F>(
        &self,
        r: &Requests,
        op: &Row,
        target: Spot<'a>,
        spot: impl Fn(MsgId) -> F,
    ) -> Result<(), ArchiveError>
    where
        F: Future<Output = Result<Spot<'a>, ArchiveError>>,
    {
        let (me, id) = (op.from.as_str(), int(op.id.0));
        let (thread, bucket, of) = spelled(target);
        for who in [me].into_iter().chain(op.power.then_some(POWER)) {
            r.write(&self.mark_recall, (FOR_GOOD - id, who, id, thread, bucket, of)).await?;
        }
        let about = self.look(r, target).await?;
        // In the order of the log it is there; if it comes later, reading hides it.
        if about.kind.is_some_and(Kind::is_message) && (op.power || about.sender.as_deref() == Some(me)) {
            r.write(&self.clear, (FOR_GOOD, thread, bucket, of)).await?;
        }
        let mut after = 0;
        loop {
            let edits: Vec<(i64, String)> = r.read(&self.edits, (thread, of, after, CHUNK)).await?;
            for (edit, sender) in &edits {
                if op.power || sender == me {
                    self.take_text(r, spot(MsgId(uint(*edit))).await?).await?;
                }
            }
            match edits.last() {
                Some((last, _)) if edits.len() == CHUNK as usize => after = *last,
                _ => return Ok(()),
            }
        }
    }

    async fn look(&self, r: &Requests, at: Spot<'_>) -> Result<Target, ArchiveError> {
        let row: Option<(Option<String>, Option<String>, Option<Recalls>)> =
            r.read_one(&self.target, spelled(at)).await?;
        let (sender, kind, recalls) = row.unwrap_or_default();
        Ok(Target { sender, kind: kind.as_deref().map(Kind::parse), recalls: recalls.unwrap_or_default() })
    }

    async fn take_text(&self, r: &Requests, edit: Spot<'_>) -> Result<(), ArchiveError> {
        let row: Option<(Option<Vec<u8>>,)> = r.read_one(&self.body, spelled(edit)).await?;
        let Some((Some(body),)) = row else { return Ok(()) };
        let body: Body = rmp_serde::from_slice(&body).map_err(|e| corrupt("messages.body", e))?;
        let (thread, bucket, id) = spelled(edit);
        r.write(&self.replace_body, (FOR_GOOD, encode(&Body { text: None, ..body }), thread, bucket, id)).await
    }
}

fn spelled(at: Spot<'_>) -> (&str, i64, i64) {
    (at.thread, int(at.bucket), int(at.id.0))
}

/// Lays the marks over the message they stand beside.
pub(super) fn lay_over(row: &mut Row, mut edits: HashMap<String, (i64, String)>, recalls: Recalls) {
    let author = row.from.clone();
    let op = |kind, id: i64, from: &UserId, text| Row {
        id: MsgId(uint(id)),
        from: from.clone(),
        kind,
        body: Body { target: Some(row.id), text, ..Body::default() },
        raw: None,
        ..row.clone()
    };
    let mut ops = Vec::new();
    if let Some((id, text)) = edits.remove(author.as_str()) {
        ops.push(op(Kind::Edit, id, &author, Some(text)));
    }
    for (who, power) in [(author.as_str(), false), (POWER, true)] {
        if let Some(id) = recalls.get(who) {
            ops.push(Row { power, ..op(Kind::Recall, *id, &author, None) });
        }
    }
    for op in &ops {
        overlay::apply(row, op);
    }
}
