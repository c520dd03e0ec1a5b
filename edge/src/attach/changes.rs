//! Attach, the decision: of which changes of their own memberships a device has to be told. Pure.

use std::collections::BTreeMap;

use natterjack_protocol::{MsgId, Thread, log::fold::ThreadItem};

/// What changed after `synced` (per partition), or, where that says nothing, after the cursor of the thread. A device
/// without either has nothing that could be wrong.
pub fn changes(
    items: &[(Thread, ThreadItem)],
    cursors: &BTreeMap<Thread, MsgId>,
    synced: Option<&[MsgId]>,
) -> Vec<Thread> {
    let since = |thread: &Thread| match synced {
        Some(frontiers) if !frontiers.is_empty() => {
            frontiers.get(thread.partition(frontiers.len() as u32) as usize).copied()
        }
        _ => cursors.get(thread).copied(),
    };
    let news = items.iter().filter(|(thread, item)| since(thread).is_some_and(|since| item.known_to() > since));
    news.map(|(thread, _)| thread.clone()).collect()
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::client::frame::ServerFrame;

    use super::*;
    use crate::members::member_frame;

    #[test]
    fn what_changed_while_the_device_was_away() {
        let group =
            |n: u64| (format!("group.g{n}").parse().unwrap(), ThreadItem { v: MsgId(n), ..ThreadItem::default() });
        let dm = |with: &str, item| (format!("dm.a.{with}").parse().unwrap(), item);
        // Blocked by the other since 99; of the second this user knows nothing at all; the third they have blocked
        // themselves.
        let by_other =
            dm("b", ThreadItem { v: MsgId(99), blocked_by: true, known: Some(MsgId(4)), ..ThreadItem::default() });
        let stranger =
            dm("c", ThreadItem { v: MsgId(99), blocked_by: true, known: Some(MsgId(0)), ..ThreadItem::default() });
        let mine = dm("d", ThreadItem { v: MsgId(9), blocks: true, ..ThreadItem::default() });
        let items = [group(5), group(8), by_other.clone(), stranger.clone(), mine];
        let told = |cursors: &BTreeMap<Thread, MsgId>, synced: Option<&[MsgId]>| -> Vec<(String, u64, bool)> {
            let frame = |f| match f {
                ServerFrame::Member { thread, id, open, .. } => (thread.to_string(), id.0, open),
                other => panic!("{other:?}"),
            };
            let changed = changes(&items, cursors, synced);
            items
                .iter()
                .filter(|(thread, _)| changed.contains(thread))
                .map(|(thread, item)| frame(member_frame(thread, item)))
                .collect()
        };
        let none = BTreeMap::new();
        let want = [("group.g8".to_owned(), 8, false), ("dm.a.d".to_owned(), 9, false)];
        assert_eq!(told(&none, Some(&[MsgId(5)])), want);
        assert_eq!(told(&none, Some(&[MsgId(5), MsgId(5), MsgId(5)])), want, "of a generation with other partitions");
        assert!(told(&none, None).is_empty(), "a new device");
        let cursors = [
            (items[0].0.clone(), MsgId(4)),
            (items[1].0.clone(), MsgId(8)),
            (by_other.0, MsgId(4)),
            (stranger.0, MsgId(50)),
        ]
        .into();
        assert_eq!(told(&cursors, None), [("group.g5".to_owned(), 5, false)]);
    }
}
