//! Beside step 5: a page of history for somebody who asks, over the socket or HTTP. Decides whether they may;
//! `history` cuts it.

use natterjack_nats::calls::history;
use natterjack_protocol::{
    Code, MsgId, Refusal, Thread, UserId,
    client::frame::{HistoryQuery, Page},
    internal::rpc::{PageStart, ReadAccess},
    log::{Intervals, fold::ThreadItem},
    text,
};

use crate::{history::HistoryClient, people::People, threads::page_limit};

/// A `history` whose fields fit together. The same question is asked over HTTP.
#[derive(Debug, PartialEq, Eq)]
pub struct PageQuestion {
    pub thread: Thread,
    pub at: PageStart,
    pub limit: u16,
}

impl PageQuestion {
    pub fn of(h: &HistoryQuery) -> Result<Self, Refusal> {
        let thread = h.thread.clone().ok_or_else(|| Refusal::invalid("thread: is missing"))?;
        for (field, id) in [("before", h.before), ("after", h.after), ("around", h.around), ("at", h.at.map(MsgId))] {
            id.map_or(Ok(()), |id| text::number(id.0)).map_err(|e| e.of(field))?;
        }
        let places = [
            h.before.map(PageStart::Before),
            h.after.map(PageStart::After),
            h.around.map(PageStart::Around),
            h.at.map(PageStart::Time),
        ];
        let mut given = places.into_iter().flatten();
        let at = given.next().unwrap_or(PageStart::Newest);
        if given.next().is_some() {
            return Err(Refusal::invalid("before, after, around, at: at most one of them may be given"));
        }
        let limit = page_limit(h.limit)? as u16;
        Ok(Self { thread, at, limit })
    }
}

#[derive(Clone)]
pub struct Pages {
    history: HistoryClient,
    people: People,
}

impl Pages {
    pub fn new(history: &HistoryClient, people: &People) -> Self {
        Self { history: history.clone(), people: people.clone() }
    }

    /// `known`: the reader's item, if this edge has one. `min_id`: what they know to exist.
    pub async fn page(
        &self,
        reader: &UserId,
        known: Option<ThreadItem>,
        question: PageQuestion,
        min_id: MsgId,
    ) -> Result<Page, Refusal> {
        let PageQuestion { thread, at, limit } = question;
        let not_member = || Refusal::new(Code::NotMember, "you are not in this thread");
        let known = known.filter(|i| i.visible() && i.intervals.open());
        let (access, certain) = match known {
            Some(item) => (ReadAccess::from(&item), true),
            None => self.access(reader, &thread).await?.ok_or_else(not_member)?,
        };
        let question = history::page(thread.clone(), reader.clone(), access, at, usize::from(limit), min_id);
        let page = self.history.ask(question).await?;
        let nothing = page.events.is_empty() && page.prev.is_none() && page.holes.is_empty();
        if let (false, true, Some(peer)) = (certain, nothing, thread.peer(reader)) {
            // A conversation that has not begun is an empty one, with somebody who is there.
            self.people.exist(std::slice::from_ref(peer)).await?;
        }
        Ok(Page { thread: Some(thread), ..page })
    }

    /// Somebody may ask for a message that was acknowledged before the fold has come to their own key. A group's key
    /// is folded first, and nobody can write there before it is; who is in a conversation of two says its name. False:
    /// there may be no such conversation.
    async fn access(&self, reader: &UserId, thread: &Thread) -> Result<Option<(ReadAccess, bool)>, Refusal> {
        let item = self.people.threads(reader).await?.threads.remove(thread).filter(ThreadItem::visible);
        if let Some(item) = item.as_ref().filter(|i| i.intervals.open()) {
            return Ok(Some((ReadAccess::from(item), true)));
        }
        let newer = match thread {
            Thread::Dm { .. } => {
                let part =
                    thread.peer(reader).map(|_| (ReadAccess { intervals: Intervals::all(), v: MsgId::NONE }, false));
                return Ok(item.map(|i| (ReadAccess::from(&i), true)).or(part));
            }
            Thread::Group { gid } => self.people.group(gid).await?.and_then(|g| g.item(reader)),
        };
        let newest = item.into_iter().chain(newer).max_by_key(|i| i.v);
        Ok(newest.map(|i| (ReadAccess::from(&i), true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_one_place() {
        let h = |before, at| HistoryQuery { thread: "dm.a.b".parse().ok(), before, at, ..HistoryQuery::default() };
        assert_eq!(PageQuestion::of(&h(None, None)).unwrap().at, PageStart::Newest);
        assert_eq!(PageQuestion::of(&h(Some(MsgId(5)), None)).unwrap().at, PageStart::Before(MsgId(5)));
        assert_eq!(PageQuestion::of(&h(None, Some(7))).unwrap().at, PageStart::Time(7));
        assert_eq!(PageQuestion::of(&h(Some(MsgId(5)), Some(7))).unwrap_err().code, Code::Invalid);
        for bad in [h(Some(MsgId(1 << 53)), None), h(None, Some(u64::MAX))] {
            let refusal = PageQuestion::of(&bad).unwrap_err();
            assert!(refusal.code == Code::Invalid && refusal.message.contains("2^53"), "{refusal}");
        }
        assert!(PageQuestion::of(&HistoryQuery { limit: Some(0), ..h(None, None) }).is_err());
        assert!(PageQuestion::of(&HistoryQuery::default()).is_err());
    }
}
