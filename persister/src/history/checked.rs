//! What came later, laid over the rows of a page: every edit and recall up to the head of the log. A row of which that cannot be told is
//! marked, and shown to nobody.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_protocol::{
    Body, Kind, Most, MsgId, Thread,
    fold::{Group, Role},
};

use super::{
    HistoryError,
    joined::Joined,
    operations::{Operation, Operations, Power, Roles},
};
use crate::{
    overlay,
    store::{Order, Row, Store},
};

/// Texts of edits, and recalls in the archive, that are read at once.
const READS: usize = 16;

impl<S: Store> Joined<'_, S> {
    pub(super) async fn check(&self, rows: &mut [Row]) -> Result<(), HistoryError> {
        let Some(oldest) = rows.iter().map(|r| about(r).map_or(r.id, |target| target.min(r.id))).min() else { return Ok(()) };
        let mut operations = self.tail.operations(oldest, false).await?;
        let unknown = |row: &Row, of: &Operations| of.recalls_of(row).any(|op| op.power == Power::Unknown && op.from != row.from);
        if self.archived.is_some() && rows.iter().any(|r| unknown(r, &operations)) {
            operations = self.tail.operations(oldest, true).await?;
        }
        let group = if rows.iter().any(|r| unknown(r, &operations)) { self.group_now().await } else { None };
        let mut over = Vec::new();
        for row in rows.iter_mut() {
            for op in operations.recalls_of(row) {
                match power(op, &operations.roles, group.as_deref()) {
                    Power::Yes => over.push(recall(row, op, true)),
                    _ if op.from == row.from => over.push(recall(row, op, false)),
                    Power::Unknown => row.unchecked = true,
                    Power::No => {}
                }
            }
            // The archive alone knows whether this was recalled.
            row.unchecked |= row.kind == Kind::Edit && self.archived.is_none() && about(row).is_some_and(|t| t <= self.tail.floor());
        }
        let edits: Vec<MsgId> = rows.iter().filter_map(|r| operations.edit_of(r)).collect();
        drop(operations);
        let reads: Vec<_> = edits.into_iter().map(|id| self.tail.row(id)).collect();
        let edits: Vec<Option<Row>> = stream::iter(reads).buffer_unordered(READS).try_collect().await?;
        over.extend(edits.into_iter().flatten());
        let archived = rows.iter().filter(|r| r.kind == Kind::Edit && self.archived.is_some_and(|w| r.id > w));
        let reads: Vec<_> = archived.filter_map(about).map(|target| self.archived_recall(target)).collect();
        let recalls: Vec<Option<Row>> = stream::iter(reads).buffer_unordered(READS).try_collect().await?;
        over.extend(recalls.into_iter().flatten());
        overlay::lay_over(rows, &over);
        for row in rows.iter_mut() {
            // Whatever else was said of it, there is nothing left to hide.
            row.unchecked &= !overlay::is_recalled(row) && (row.kind != Kind::Edit || row.body.text.is_some());
        }
        Ok(())
    }

    /// The recall by which the archive has taken this message back.
    async fn archived_recall(&self, target: MsgId) -> Result<Option<Row>, HistoryError> {
        let one =
            async |id: MsgId| Ok::<_, HistoryError>(self.archive_rows(id, id.next(), Order::OldestFirst, Most::count(1)).await?.pop());
        match one(target).await? {
            Some(row) if overlay::is_recalled(&row) => one(row.rev).await,
            _ => Ok(None),
        }
    }

    /// The group as it stands now, if anybody knows.
    async fn group_now(&self) -> Option<Arc<Group>> {
        let Thread::Group { gid } = self.thread else { return None };
        match self.history.buckets.load_group(gid).await {
            Ok(group) => group.map(|(group, _)| Arc::new(group)),
            Err(e) => {
                tracing::debug!(thread = %self.thread, error = %e, "who may recall is not known");
                None
            }
        }
    }
}

/// The message that an edit is about.
fn about(row: &Row) -> Option<MsgId> {
    row.body.target.filter(|_| row.kind == Kind::Edit)
}

/// Where the stretch alone does not tell: whoever no change in it concerns had the role that they have now.
fn power(op: &Operation, roles: &Roles, now: Option<&Group>) -> Power {
    match (op.power, roles, now) {
        (Power::Unknown, Roles::Unknown { touched }, Some(group)) if !touched.contains(&op.from) => {
            Power::from(group.role(&op.from).is_some_and(|r| r >= Role::Admin))
        }
        (power, ..) => power,
    }
}

/// The recall as a row of its own, for `overlay`.
fn recall(row: &Row, op: &Operation, power: bool) -> Row {
    let target = if row.kind == Kind::Edit { row.body.target } else { Some(row.id) };
    Row {
        thread: row.thread.clone(),
        id: op.id,
        ts: row.ts,
        from: op.from.clone(),
        cid: row.cid,
        kind: Kind::Recall,
        body: Body { target, ..Body::default() },
        rev: MsgId::NONE,
        power,
        raw: None,
        unchecked: false,
    }
}
