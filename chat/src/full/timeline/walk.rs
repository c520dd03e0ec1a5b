//! The thread as items on a screen, walked one by one from wherever somebody looks: nothing is laid out that is not
//! seen (pure).

use natterjack_client::protocol::{Event, Kind, MsgId};

use super::{Older, PageWanted, PendingMessage, Timeline};
use crate::day;

/// Messages of one author within this time stand under one name.
const TOGETHER_MS: u64 = 5 * 60_000;

/// Names an item; in the order of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Top,
    At(MsgId, TimelinePart),
    /// The ticket of a message of ours.
    Pending(u64),
}

/// What stands before an event, and the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimelinePart {
    Gap,
    Day,
    New,
    Event,
}

#[derive(Debug)]
pub enum TimelineItem<'a> {
    /// What lies above everything that is here.
    Top(&'a Older),
    Gap,
    Day(u64),
    /// What follows came while nobody looked.
    New,
    /// `head`: with its author's name.
    Event {
        event: &'a Event,
        head: bool,
    },
    Pending {
        pending: &'a PendingMessage,
        head: bool,
    },
}

impl Timeline {
    pub fn last_key(&self) -> Key {
        match (self.pending.last(), self.events.last_key_value()) {
            (Some(p), _) => Key::Pending(p.ticket),
            (None, Some((id, _))) => Key::At(*id, TimelinePart::Event),
            (None, None) => Key::Top,
        }
    }

    /// This one, or what stands in its place now that it is gone: a confirmed message, a closed gap.
    pub fn nearest(&self, key: Key) -> Key {
        if self.item(key).is_some() {
            return key;
        }
        match key {
            Key::Pending(_) => self.last_key(),
            Key::At(id, part) if part < TimelinePart::Event && self.events.contains_key(&id) => {
                Key::At(id, TimelinePart::Event)
            }
            Key::At(id, _) => match self.events.range(id..).next().or_else(|| self.events.last_key_value()) {
                Some((id, _)) => Key::At(*id, TimelinePart::Event),
                None => Key::Top,
            },
            Key::Top => Key::Top,
        }
    }

    pub fn item(&self, key: Key) -> Option<TimelineItem<'_>> {
        match key {
            Key::Top => Some(TimelineItem::Top(&self.older)),
            Key::Pending(ticket) => {
                let i = self.pending.iter().position(|p| p.ticket == ticket)?;
                Some(TimelineItem::Pending { pending: &self.pending[i], head: i == 0 })
            }
            Key::At(id, part) => {
                let event = self.events.get(&id)?;
                let before = self.events.range(..id).next_back().map(|(_, e)| e);
                match part {
                    TimelinePart::Event => Some(TimelineItem::Event { event, head: self.has_head(event, before) }),
                    TimelinePart::Gap => self.gap_between(before?.id, id).map(|_| TimelineItem::Gap),
                    TimelinePart::Day => begins_day(event, before).then_some(TimelineItem::Day(event.ts)),
                    TimelinePart::New => (self.new_from == Some(id)).then_some(TimelineItem::New),
                }
            }
        }
    }

    /// The page that would fill this item.
    pub fn want_at(&self, key: Key) -> Option<PageWanted> {
        match key {
            Key::Top if self.older == Older::Unknown => {
                Some(self.events.keys().next().map_or(PageWanted::Newest, |id| PageWanted::Older(*id)))
            }
            Key::At(id, TimelinePart::Gap) => {
                self.gap_between(self.events.range(..id).next_back().map(|(id, _)| *id)?, id)
            }
            _ => None,
        }
    }

    pub fn before(&self, key: Key) -> Option<Key> {
        let parts_of = |id: MsgId, below: TimelinePart| {
            let parts = [TimelinePart::Event, TimelinePart::New, TimelinePart::Day, TimelinePart::Gap];
            parts.into_iter().filter(|p| *p < below).map(|p| Key::At(id, p)).find(|k| self.item(*k).is_some())
        };
        let event_below = |id: MsgId| {
            self.events.range(..id).next_back().map_or(Key::Top, |(id, _)| Key::At(*id, TimelinePart::Event))
        };
        match key {
            Key::Top => None,
            Key::At(id, part) => Some(parts_of(id, part).unwrap_or_else(|| event_below(id))),
            Key::Pending(ticket) => {
                let before = self.pending.iter().rev().find(|p| p.ticket < ticket);
                Some(before.map_or_else(|| event_below(MsgId::MAX), |p| Key::Pending(p.ticket)))
            }
        }
    }

    pub fn after(&self, key: Key) -> Option<Key> {
        let first_part = |id: MsgId| {
            let parts = [TimelinePart::Gap, TimelinePart::Day, TimelinePart::New, TimelinePart::Event];
            parts.into_iter().map(|p| Key::At(id, p)).find(|k| self.item(*k).is_some())
        };
        let event_above = |from: MsgId| self.events.range(from..).next().and_then(|(id, _)| first_part(*id));
        let pending_above = |ticket: Option<u64>| {
            let mut above = self.pending.iter().filter(|p| ticket.is_none_or(|t| p.ticket > t));
            above.next().map(|p| Key::Pending(p.ticket))
        };
        match key {
            Key::Top => event_above(MsgId::NONE).or_else(|| pending_above(None)),
            Key::At(id, part) => {
                let parts = [TimelinePart::Day, TimelinePart::New, TimelinePart::Event];
                let same =
                    parts.into_iter().filter(|p| *p > part).map(|p| Key::At(id, p)).find(|k| self.item(*k).is_some());
                same.or_else(|| event_above(id.next())).or_else(|| pending_above(None))
            }
            Key::Pending(ticket) => pending_above(Some(ticket)),
        }
    }

    /// An operation that is shown in the message it is about needs no line of its own.
    pub fn is_folded(&self, event: &Event) -> bool {
        let Some(target) = event.body.target.and_then(|t| self.events.get(&t)) else { return false };
        match event.kind {
            Kind::Edit => target.from == event.from,
            Kind::Recall => target.kind == Kind::Recall,
            Kind::Reaction => target.kind.is_message(),
            _ => false,
        }
    }

    fn has_head(&self, event: &Event, before: Option<&Event>) -> bool {
        let Some(before) = before else { return true };
        let same =
            before.from == event.from && before.kind.is_message() && event.ts.saturating_sub(before.ts) < TOGETHER_MS;
        !same
            || begins_day(event, Some(before))
            || self.new_from == Some(event.id)
            || self.gap_between(before.id, event.id).is_some()
    }
}

fn begins_day(event: &Event, before: Option<&Event>) -> bool {
    before.is_none_or(|b| day::number(b.ts) != day::number(event.ts))
}
