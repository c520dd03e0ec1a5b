//! What came later, laid over the rows of a page: every edit and recall up to the head of the log. A row of which that
//! cannot be told is marked, and shown to nobody.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_protocol::{
    Body, Kind, Most, MsgId, Thread,
    log::{Role, fold::GroupState},
    size::Size,
};

use super::{
    HistoryError,
    operations::{Operation, Operations, Power, Roles},
    page_source::PageSource,
};
use crate::store::{ArchiveStore, Order, Row, overlay};

/// Texts of edits, and recalls in the archive, that are read at once.
const READS: usize = 16;

impl<S: ArchiveStore> PageSource<'_, S> {
    /// Reads edits up to so many `bytes`; rows behind what reaches them are dropped. True: some were.
    pub(super) async fn check(&self, rows: &mut Vec<Row>, bytes: usize) -> Result<bool, HistoryError> {
        let Some(oldest) = rows.iter().map(|r| about(r).map_or(r.id, |target| target.min(r.id))).min() else {
            return Ok(false);
        };
        let mut operations = self.tail.operations(oldest, false).await?;
        let unknown =
            |row: &Row, of: &Operations| of.recalls_of(row).any(|op| op.power == Power::Unknown && op.from != row.from);
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
            row.unchecked |=
                row.kind == Kind::Edit && self.archived.is_none() && about(row).is_some_and(|t| t <= self.tail.floor());
        }
        let edits: Vec<(usize, MsgId)> =
            rows.iter().enumerate().filter_map(|(n, r)| operations.edit_of(r).map(|id| (n, id))).collect();
        drop(operations);
        let cut = self.read_edits(rows, edits, bytes, &mut over).await?;
        let archived = rows.iter().filter(|r| r.kind == Kind::Edit && self.archived.is_some_and(|w| r.id > w));
        let reads: Vec<_> = archived.filter_map(about).map(|target| self.archived_recall(target)).collect();
        let recalls: Vec<Option<Row>> = stream::iter(reads).buffer_unordered(READS).try_collect().await?;
        over.extend(recalls.into_iter().flatten());
        overlay::lay_over(rows, &over);
        for row in rows.iter_mut() {
            // Whatever else was said of it, there is nothing left to hide.
            row.unchecked &= !overlay::is_recalled(row) && (row.kind != Kind::Edit || row.body.text.is_some());
        }
        Ok(cut)
    }

    /// The edits of rows (by their index), in the order of the rows. A page of short texts may have become one of the
    /// longest.
    async fn read_edits(
        &self,
        rows: &mut Vec<Row>,
        edits: Vec<(usize, MsgId)>,
        bytes: usize,
        over: &mut Vec<Row>,
    ) -> Result<bool, HistoryError> {
        let had = rows.len();
        let reads: Vec<_> = edits
            .into_iter()
            .map(|(n, id)| async move { Ok::<_, HistoryError>((n, self.tail.row(id).await?)) })
            .collect();
        let mut reads = stream::iter(reads).buffered(READS);
        let mut read = 0;
        while let Some(edit) = reads.next().await {
            let (n, edit) = edit?;
            read += edit.as_ref().map_or(0, Size::size);
            over.extend(edit);
            if read >= bytes {
                rows.truncate(n + 1);
                break;
            }
        }
        Ok(rows.len() < had)
    }

    /// The recall by which the archive has taken this message back.
    async fn archived_recall(&self, target: MsgId) -> Result<Option<Row>, HistoryError> {
        let one = async |id: MsgId| {
            Ok::<_, HistoryError>(self.archive_rows(id, id.next(), Order::OldestFirst, Most::count(1)).await?.pop())
        };
        match one(target).await? {
            Some(row) if overlay::is_recalled(&row) => one(row.rev).await,
            _ => Ok(None),
        }
    }

    /// The group as it stands now, if anybody knows.
    async fn group_now(&self) -> Option<Arc<GroupState>> {
        let Thread::Group { gid } = self.thread else { return None };
        match self.history.buckets.group(gid).load().await {
            Ok(group) => group.map(Arc::new),
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
fn power(op: &Operation, roles: &Roles, now: Option<&GroupState>) -> Power {
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
