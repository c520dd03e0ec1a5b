//! Who has got and read a message: from the cursors of its readers, asked when somebody wants to know. There is no row
//! per message and reader, so it costs the same at every age: two reads of KV for each reader on the page.

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_nats::KvBuckets;
use natterjack_protocol::{
    Code, Event, Kind, MsgId, Refusal, Thread, UserId,
    client::{
        http::{ReceiptOf, ReceiptState, ReceiptsAnswer},
        presence::{PresenceChoice, PresenceSettings},
    },
    internal::rpc::PageStart,
};

use crate::{
    pages::{PageQuestion, Pages},
    people::People,
    refusals::refuse,
};

/// Readers that are looked up at once for one answer.
const AT_ONCE: usize = 16;

/// Clones share it.
#[derive(Clone)]
pub struct Receipts {
    buckets: KvBuckets,
    people: People,
    pages: Pages,
}

impl Receipts {
    pub fn new(buckets: &KvBuckets, people: &People, pages: &Pages) -> Self {
        Self { buckets: buckets.clone(), people: people.clone(), pages: pages.clone() }
    }

    /// For somebody who may read the message: of all others who may, in the order of their ids, those behind `after`.
    pub async fn of_message(
        &self,
        asker: &UserId,
        thread: Thread,
        id: MsgId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<ReceiptsAnswer, Refusal> {
        if !self.settings(asker).await?.receipts {
            return Err(Refusal::new(
                Code::Forbidden,
                "you give no receipts and so get none: PUT /v1/presence/settings {\"receipts\": true}",
            ));
        }
        let message = self.message(asker, &thread, id).await?;
        let readers = self.readers(&thread, &message).await?;
        let of = readers.len();
        let mut page = readers.into_iter().filter(|user| after.is_none_or(|after| user > after)).collect::<Vec<_>>();
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).cloned();
        let threads = self.people.threads(asker).await?.threads;
        let blocked =
            |user: &UserId| threads.get(&Thread::dm(asker, user)).is_some_and(|item| item.blocks || item.blocked_by);
        let each: Vec<_> = page.into_iter().map(|user| (blocked(&user), user)).collect();
        let asks = each.into_iter().map(|(blocked, user)| self.clone().receipt(user, blocked, thread.clone(), id));
        let users = stream::iter(asks).buffered(AT_ONCE).try_collect().await?;
        Ok(ReceiptsAnswer { thread, id, of: of.try_into().unwrap_or(u32::MAX), users, next })
    }

    /// It is there, and the asker may read it. One that was recalled was read by some.
    async fn message(&self, asker: &UserId, thread: &Thread, id: MsgId) -> Result<Event, Refusal> {
        let question = PageQuestion { thread: thread.clone(), at: PageStart::Around(id), limit: 1 };
        let page = self.pages.page(asker, None, question, MsgId::NONE).await?;
        let is_message = |e: &Event| e.kind.is_message() || (e.kind == Kind::Recall && e.body.target.is_none());
        let found = page.events.into_iter().find(|e| e.id == id && is_message(e));
        found.ok_or_else(|| Refusal::new(Code::NotFound, "there is no message of this id in this thread"))
    }

    /// Who could read it besides its author, whether or not they are in the thread now.
    async fn readers(&self, thread: &Thread, message: &Event) -> Result<Vec<UserId>, Refusal> {
        let mut readers: Vec<UserId> = match thread {
            Thread::Dm { .. } => thread.dm_users().cloned().collect(),
            Thread::Group { gid } => {
                let group = self.people.group_or_rebuild(gid).await?;
                let members = group.map(|g| g.members).unwrap_or_default();
                members.into_iter().filter(|(_, m)| m.intervals.covers(message.id)).map(|(user, _)| user).collect()
            }
        };
        readers.retain(|user| *user != message.from);
        readers.sort();
        Ok(readers)
    }

    async fn receipt(self, user: UserId, blocked: bool, thread: Thread, id: MsgId) -> Result<ReceiptOf, Refusal> {
        let settings = self.settings(&user).await?;
        if blocked || !settings.receipts || settings.choice == PresenceChoice::Hidden {
            return Ok(ReceiptOf { user, state: ReceiptState::Unknown });
        }
        // A key that was lost is restored when its user comes: until then nobody can tell.
        let cursors = self.buckets.cursors(&user).load_part(thread.hash64()).await.map_err(refuse)?;
        let state = match cursors {
            None => ReceiptState::Unknown,
            Some((cursors, _)) if cursors.read(&thread) >= id => ReceiptState::Read,
            Some((cursors, _)) if cursors.got(&thread) >= id => ReceiptState::Delivered,
            Some(_) => ReceiptState::Sent,
        };
        Ok(ReceiptOf { user, state })
    }

    async fn settings(&self, user: &UserId) -> Result<PresenceSettings, Refusal> {
        let settings = self.buckets.settings(user).load().await.map_err(refuse)?;
        Ok(settings.unwrap_or_default().presence)
    }
}
