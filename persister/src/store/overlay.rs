//! What an edit or a recall does to what came before it. Pure: the store runs it when it writes (step 7), `history`
//! when it lays the log's tail over a page, so both end with the same rows, in whatever order the same rows met.
//!
//! Operations stay rows of their own. Beside that
//! - an edit by its author replaces the text of its target; of several the newest counts (`rev` is its id);
//! - a recall by its author, or by who was admin or owner of the group at that point of the log (`power`), empties its
//!   target and turns it into kind `recall` without a target; nothing brings it back;
//! - such a recall also empties the texts of the target's edits, which would tell what it took away.
//!
//! An operation whose author may not do it changes nothing. Reactions are left to the clients.

use natterjack_protocol::{Body, Kind};

use super::Row;

/// Has this message been recalled? (A recall that is an operation names its target.)
pub fn is_recalled(row: &Row) -> bool {
    row.kind == Kind::Recall && row.body.target.is_none()
}

/// Applies `op` to `row`, if it concerns it at all. Says whether the row changed.
///
/// Commutes: for any set of operations on one row the result does not depend on their order.
pub fn apply(row: &mut Row, op: &Row) -> bool {
    let Some(target) = op.body.target else { return false };
    if row.thread != op.thread || op.id <= target {
        return false;
    }
    match op.kind {
        Kind::Edit if row.id == target => edit(row, op),
        Kind::Recall if row.id == target => recall(row, op),
        // The edit may be newer than the recall: it came too late, and its text must not stay either.
        Kind::Recall if row.kind == Kind::Edit && row.body.target == Some(target) && may_recall(row, op) => {
            row.body.text.take().is_some()
        }
        _ => false,
    }
}

fn edit(row: &mut Row, op: &Row) -> bool {
    let has_text = matches!(row.kind, Kind::Text | Kind::Image | Kind::Video | Kind::File | Kind::Audio);
    // An edit without a text was emptied by a recall; the recall itself decides about the target.
    if !has_text || row.from != op.from || op.id <= row.rev || op.body.text.is_none() {
        return false;
    }
    row.body.text.clone_from(&op.body.text);
    row.rev = op.id;
    true
}

fn recall(row: &mut Row, op: &Row) -> bool {
    if !may_recall(row, op) {
        return false;
    }
    if is_recalled(row) {
        // Of several recalls the first counts, whatever order they came in.
        let first = op.id < row.rev;
        if first {
            row.rev = op.id;
        }
        return first;
    }
    if !row.kind.is_message() {
        return false;
    }
    row.kind = Kind::Recall;
    row.body = Body::default();
    row.rev = op.id;
    true
}

fn may_recall(row: &Row, op: &Row) -> bool {
    op.power || row.from == op.from
}

/// Lays the operations among `ops` over `rows`, each over every row it concerns.
pub fn lay_over(rows: &mut [Row], ops: &[Row]) {
    for op in ops.iter().filter(|o| matches!(o.kind, Kind::Edit | Kind::Recall)) {
        for row in rows.iter_mut() {
            apply(row, op);
        }
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::MsgId;
    use proptest::prelude::*;

    use super::*;
    use crate::store::conformance::{edit, recall, row, text, thread};

    fn any_operation() -> impl Strategy<Value = (bool, &'static str, u64, bool)> {
        (any::<bool>(), prop::sample::select(vec!["a", "b"]), 1u64..4, any::<bool>())
    }

    proptest! {
        /// The rows are what they are by which operations there are, not by the order or number of their coming.
        #[test]
        fn operations_commute(ops in prop::collection::vec(any_operation(), 1..12), order in any::<u64>()) {
            let t = thread("t");
            let made = |(i, (edits, from, target, power)): (usize, &(bool, &str, u64, bool))| {
                let id = 10 + i as u64;
                if *edits {
                    edit(&t, id, from, *target, &format!("text {id}"))
                } else {
                    Row { power: *power, ..recall(&t, id, from, *target) }
                }
            };
            let ops: Vec<Row> = ops.iter().enumerate().map(made).collect();
            let reaction = row(&t, 3, "a", Kind::Reaction, Body::default());
            let mut rows = vec![text(&t, 1, "a", "one"), text(&t, 2, "b", "two"), reaction];
            rows.extend(ops.iter().cloned());
            let mut again = rows.clone();
            lay_over(&mut rows, &ops);
            let mut shuffled: Vec<Row> = ops.iter().chain(&ops).cloned().collect();
            shuffled.sort_by_key(|r| (r.id.0.wrapping_mul(order | 1)) % 1_013);
            lay_over(&mut again, &shuffled);
            prop_assert_eq!(&rows, &again);
            for (row, author) in rows.iter().zip(["a", "b"]) {
                let of_it = |o: &Row| o.body.target == Some(row.id) && o.kind == Kind::Recall;
                let may = |o: &&Row| of_it(o) && (o.power || o.from.as_str() == author);
                prop_assert_eq!(is_recalled(row), ops.iter().any(|o| may(&o)));
                prop_assert_eq!(is_recalled(row), row.body.text.is_none());
            }
            prop_assert_eq!(rows[2].rev, MsgId::NONE, "only messages are edited and recalled");
        }
    }
}
