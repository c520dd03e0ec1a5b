//! Control entries into states (step 7), with the very rules `channel` uses (`protocol::log::fold`): from a thread's
//! part of a batch to what the store is to hold. `history` uses the same to know who was admin when a recall in the
//! log's tail was written.
//!
//! A replay must decide as the first time did, although the stored state is already ahead: then the state is folded
//! again, from the thread's control entries up to there.

use std::collections::BTreeMap;

use natterjack_protocol::{
    Kind, MsgId, Thread, UserId,
    log::{
        Role,
        fold::{self, GroupState, ThreadItem},
    },
};

use crate::store::{ArchiveError, ArchiveStore, Row, ThreadBatch};

/// The group as it stood just before `id`.
pub async fn group_before<S: ArchiveStore>(
    store: &S,
    thread: &Thread,
    id: MsgId,
) -> Result<Option<GroupState>, ArchiveError> {
    match store.group(thread).await? {
        Some(group) if group.version >= id => {
            let mut state = None;
            for row in store.controls(thread, id).await? {
                fold::apply_group(&mut state, row.id, &row.entry());
            }
            Ok(state)
        }
        state => Ok(state),
    }
}

/// Folds the control entries among `rows` (oldest first) into `state`, and marks the recalls that the group's admins
/// and owners may do. Returns the users whose item changed. Pure.
pub fn walk_group(state: &mut Option<GroupState>, rows: &mut [Row]) -> Vec<UserId> {
    let mut affected = Vec::new();
    for row in rows {
        if row.kind.is_control() {
            affected.extend(fold::apply_group(state, row.id, &row.entry()));
        } else if row.kind == Kind::Recall {
            row.power = state.as_ref().and_then(|g| g.role(&row.from)).is_some_and(|r| r >= Role::Admin);
        }
    }
    affected.sort();
    affected.dedup();
    affected
}

/// Everything the store is to write for one thread of a batch.
pub async fn fold_thread<S: ArchiveStore>(
    store: &S,
    thread: Thread,
    mut rows: Vec<Row>,
) -> Result<ThreadBatch, ArchiveError> {
    let Some(first) = rows.first().map(|r| r.id) else {
        return Ok(ThreadBatch { thread, rows, group: None, items: Vec::new() });
    };
    let changes = rows.iter().any(|r| r.kind.is_control());
    let recalls = rows.iter().any(|r| r.kind == Kind::Recall);
    let (mut group, mut items) = (None, Vec::new());
    match &thread {
        Thread::Group { .. } if changes || recalls => {
            let mut state = group_before(store, &thread, first).await?;
            let affected = walk_group(&mut state, &mut rows);
            if changes && let Some(state) = state {
                items = affected.into_iter().filter_map(|u| state.item(&u).map(|i| (u, i))).collect();
                group = Some(state);
            }
        }
        Thread::Dm { .. } if changes => {
            let mut now: BTreeMap<&UserId, ThreadItem> = BTreeMap::new();
            for user in thread.dm_users() {
                let mut item = store.item(&thread, user).await?;
                for row in rows.iter().filter(|r| r.kind.is_control()) {
                    if let Some(new) = fold::apply_dm(item.as_ref(), user, row.id, &row.entry()) {
                        item = Some(new.clone());
                        now.insert(user, new);
                    }
                }
            }
            items = now.into_iter().map(|(u, i)| (u.clone(), i)).collect();
        }
        _ => {}
    }
    Ok(ThreadBatch { thread, rows, group, items })
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::Body;

    use super::*;
    use crate::store::{
        Sqlite,
        conformance::{recall, row, text, thread, user},
    };

    #[tokio::test]
    async fn a_replay_decides_as_the_first_time_did() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path().join("n.db")).await.unwrap();
        let t = thread("g");
        let members = |users: &[&str]| Body {
            users: users.iter().map(|u| user(u)).collect(),
            name: Some("g".into()),
            ..Body::default()
        };
        let admin = Body { role: Some(Role::Admin), ..members(&["b"]) };
        let member = Body { role: Some(Role::Member), ..members(&["b"]) };
        let log = vec![
            row(&t, 1, "a", Kind::GroupCreated, members(&["b", "c"])),
            text(&t, 2, "c", "x"),
            recall(&t, 3, "b", 2),
            row(&t, 4, "a", Kind::RoleChanged, admin),
            text(&t, 5, "c", "y"),
            recall(&t, 6, "b", 5),
            row(&t, 7, "a", Kind::RoleChanged, member),
            text(&t, 8, "c", "z"),
            recall(&t, 9, "b", 8),
        ];
        let powers = |b: &ThreadBatch| b.rows.iter().filter(|r| r.power).map(|r| r.id.0).collect::<Vec<_>>();
        let first = fold_thread(&store, t.clone(), log.clone()).await.unwrap();
        assert_eq!(powers(&first), [6]);
        store.append(first.clone()).await.unwrap();
        for from in 0..log.len() {
            let again = fold_thread(&store, t.clone(), log[from..].to_vec()).await.unwrap();
            assert_eq!(powers(&again), if from <= 5 { vec![6] } else { vec![] }, "from {from}");
            store.append(again).await.unwrap();
        }
        assert_eq!(store.group(&t).await.unwrap(), first.group);
        assert_eq!(
            store.item(&t, &user("b")).await.unwrap().map(|i| (i.v, i.role)),
            Some((MsgId(7), Some(Role::Member)))
        );
    }

    #[tokio::test]
    async fn a_dm_has_an_item_for_each_of_its_users() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path().join("n.db")).await.unwrap();
        for (name, users) in [("dm.a.b", vec!["a", "b"]), ("dm.c.c", vec!["c"])] {
            let t: Thread = name.parse().unwrap();
            let log = vec![
                row(&t, 1, users[0], Kind::DmStarted, Body::default()),
                text(&t, 2, users[0], "x"),
                row(&t, 3, users[0], Kind::Blocked, Body::default()),
            ];
            for _ in 0..2 {
                store.append(fold_thread(&store, t.clone(), log.clone()).await.unwrap()).await.unwrap();
            }
            for u in users {
                let item = store.item(&t, &user(u)).await.unwrap().unwrap();
                assert!(
                    item.v == MsgId(3)
                        && item.intervals.open()
                        && item.blocks == (u != "b")
                        && item.blocked_by == (u == "b")
                );
            }
        }
    }
}
