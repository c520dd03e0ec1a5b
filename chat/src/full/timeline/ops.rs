//! Edits, recalls and reactions, laid over the messages they are about (pure).
//!
//! A page comes with edits and recalls laid over it already; what comes live is laid over here, by the same rules as
//! far as a client can judge them: the author's own change. A recall by an admin is shown as a line and is in the
//! message when the page is read again.

use std::collections::{BTreeMap, HashMap, HashSet};

use natterjack_client::protocol::{Event, Kind, MsgId, UserId};

#[derive(Debug, Default)]
pub struct Ops {
    /// Live edits and recalls, for messages whose page comes later: the newest edit's id and text; a recall has no
    /// text.
    changed: HashMap<MsgId, (MsgId, UserId, Option<String>)>,
    edited: HashSet<MsgId>,
    reactions: HashMap<MsgId, Reactions>,
}

/// Per emoji and user the last word: the id of the operation, and whether the reaction is there.
type Reactions = BTreeMap<(String, UserId), (MsgId, bool)>;

impl Ops {
    pub fn learn(&mut self, event: &Event) {
        let Some(target) = event.body.target else { return };
        match (event.kind, &event.body.emoji) {
            (Kind::Edit, _) => {
                self.edited.insert(target);
            }
            (Kind::Reaction, Some(emoji)) => {
                let words = self.reactions.entry(target).or_default();
                let word = words.entry((emoji.clone(), event.from.clone())).or_default();
                if word.0 <= event.id {
                    *word = (event.id, !event.body.remove);
                }
            }
            _ => {}
        }
    }

    pub fn apply_live(&mut self, events: &mut BTreeMap<MsgId, Event>, op: &Event) {
        let (Some(target), Kind::Edit | Kind::Recall) = (op.body.target, op.kind) else { return };
        let text = if op.kind == Kind::Edit { op.body.text.clone() } else { None };
        if op.kind == Kind::Edit && text.is_none() {
            return;
        }
        let recalled = self.changed.get(&target).is_some_and(|(_, by, text)| *by == op.from && text.is_none());
        if !recalled {
            self.changed.insert(target, (op.id, op.from.clone(), text));
        }
        if let Some(event) = events.get_mut(&target) {
            self.apply_known(event);
        }
    }

    /// What came live before this message was read.
    pub fn apply_known(&self, event: &mut Event) {
        match self.changed.get(&event.id) {
            Some((_, by, _)) if *by != event.from => {}
            Some((_, _, Some(text))) if event.kind.is_message() => event.body.text = Some(text.clone()),
            Some((_, _, None)) if event.kind.is_message() => {
                event.kind = Kind::Recall;
                event.body = natterjack_client::protocol::Body::default();
            }
            _ => {}
        }
    }

    pub fn is_edited(&self, id: MsgId) -> bool {
        self.edited.contains(&id)
    }

    /// For instance `👍 2  🐸`.
    pub fn reactions(&self, id: MsgId) -> Option<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for ((emoji, _), (_, there)) in self.reactions.get(&id)? {
            *counts.entry(emoji).or_default() += usize::from(*there);
        }
        let shown = counts
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(emoji, n)| if *n == 1 { (*emoji).to_owned() } else { format!("{emoji} {n}") });
        let shown = shown.collect::<Vec<_>>().join("  ");
        (!shown.is_empty()).then_some(shown)
    }

    pub fn forget_below(&mut self, first: MsgId) {
        self.changed.retain(|id, _| *id >= first);
        self.edited.retain(|id| *id >= first);
        self.reactions.retain(|id, _| *id >= first);
    }
}
