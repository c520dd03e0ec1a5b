//! What users set for their threads: muted, pinned, archived, marked as unread, a draft. It stands beside how far they
//! have read, a draft in a key of its own; each change is told to all devices of the user (ADR 15).

use std::collections::BTreeMap;

use natterjack_nats::{KvBuckets, Nats, ServerTime, subjects};
use natterjack_protocol::{
    Code, MsgId, Refusal, Thread, UserId,
    client::{
        frame::ServerFrame,
        thread_settings::{SettingsChange, ThreadSettings},
    },
    internal::{
        cursors::UserCursors,
        live::Ephemeral,
        thread_settings::{SettingsMark, UserDrafts},
    },
    limits,
    log::fold::ThreadItem,
    size,
};

use crate::{cursors::CursorKeeper, refusals::refuse, sessions::handle::SessionHandle};

/// Clones share it.
#[derive(Clone)]
pub struct SettingsKeeper {
    nats: Nats,
    buckets: KvBuckets,
    cursors: CursorKeeper,
    time: ServerTime,
}

/// As they were read, if there are any.
#[derive(Default)]
pub struct Drafts(UserDrafts);

impl Drafts {
    pub fn of(&self, thread: &Thread) -> Option<String> {
        self.0.0.get(&thread.hash64()).cloned()
    }
}

impl SettingsKeeper {
    pub fn new(nats: &Nats, buckets: &KvBuckets, cursors: &CursorKeeper, time: &ServerTime) -> Self {
        Self { nats: nats.clone(), buckets: buckets.clone(), cursors: cursors.clone(), time: time.clone() }
    }

    /// Returns when it is stored, with what is set then. `item`: the user's, none: they are not in the thread.
    pub async fn set(
        &self,
        user: &UserId,
        thread: &Thread,
        item: Option<ThreadItem>,
        change: SettingsChange,
    ) -> Result<ThreadSettings, Refusal> {
        change.check()?;
        if item.is_none_or(|item| !item.visible()) {
            return Err(Refusal::new(Code::NotMember, "you are not in this thread"));
        }
        self.put(user, thread, change).await
    }

    async fn put(&self, user: &UserId, thread: &Thread, change: SettingsChange) -> Result<ThreadSettings, Refusal> {
        if change.pinned == Some(true) || change.draft.as_ref().is_some_and(|draft| !draft.is_empty()) {
            self.has_room(user, thread, &change).await?;
        }
        // The text first, the mark that says that there is one behind it.
        if let Some(draft) = &change.draft {
            self.put_draft(user, thread, draft).await?;
        }
        let now = self.time.now_ms();
        let stands = self.cursors.change(user, thread, |part| Ok(part.set(thread, &change, now))).await?;
        let (mark, read) = (stands.settings(thread), stands.read(thread));
        let draft = match change.draft {
            Some(draft) => Some(draft),
            None => self.drafts_if(user, mark.draft).await.of(thread),
        };
        let settings = mark.shown(read, draft);
        self.tell(user, thread, &settings).await;
        Ok(settings)
    }

    /// Marks as unread are taken away from all threads.
    pub async fn all_read(&self, user: &UserId, threads: &[(Thread, MsgId)]) -> Result<(), Refusal> {
        let stands = self.cursors.load(user).await?;
        let change = SettingsChange { unread: Some(false), ..SettingsChange::default() };
        let marked = |thread: &Thread| stands.settings(thread).is_unread(stands.read(thread));
        for (thread, _) in threads.iter().filter(|(thread, _)| marked(thread)) {
            self.put(user, thread, change.clone()).await?;
        }
        Ok(())
    }

    /// Whether another one may be pinned, or begun to be written in.
    async fn has_room(&self, user: &UserId, thread: &Thread, change: &SettingsChange) -> Result<(), Refusal> {
        let stands = self.cursors.load(user).await?;
        let (pinned, drafts) = stands.pinned_and_drafts();
        let SettingsMark { pinned: is_pinned, draft: has_draft, .. } = stands.settings(thread);
        let full = |what: String| Err(Refusal::new(Code::LimitReached, what));
        if change.pinned == Some(true) && !is_pinned && pinned >= limits::PINNED_THREADS {
            return full(format!("pinned: at most {} threads are pinned; unpin one first", limits::PINNED_THREADS));
        }
        if change.draft.is_some() && !has_draft && drafts >= limits::DRAFTS {
            return full(format!("draft: at most {} threads have one; send or empty one first", limits::DRAFTS));
        }
        Ok(())
    }

    async fn put_draft(&self, user: &UserId, thread: &Thread, draft: &str) -> Result<(), Refusal> {
        let (hash, mut fits) = (thread.hash64(), true);
        let key = self.buckets.drafts(user);
        let written = key.merge(|found| {
            let mut drafts = found.unwrap_or_default();
            let before =
                if draft.is_empty() { drafts.0.remove(&hash) } else { drafts.0.insert(hash, draft.to_owned()) };
            fits = draft.is_empty() || size::json(&drafts) <= limits::STATE_BYTES;
            (fits && before.as_deref().unwrap_or_default() != draft).then_some(drafts)
        });
        written.await.map_err(refuse)?;
        if fits {
            Ok(())
        } else {
            Err(Refusal::new(Code::LimitReached, "draft: all your drafts together are too long"))
        }
    }

    /// What the user has begun to write. A list without drafts is better than none.
    pub async fn drafts(&self, user: &UserId, cursors: Option<&UserCursors>) -> Drafts {
        self.drafts_if(user, cursors.is_some_and(|c| c.pinned_and_drafts().1 > 0)).await
    }

    async fn drafts_if(&self, user: &UserId, any: bool) -> Drafts {
        let drafts = if any { self.buckets.drafts(user).load().await.ok().flatten() } else { None };
        Drafts(drafts.unwrap_or_default())
    }

    /// To a device that comes back: what was set since then (seconds since 1970); if nobody knows when, of the threads
    /// that it has.
    pub async fn come_back(
        &self,
        session: &SessionHandle,
        cursors: &UserCursors,
        has: &BTreeMap<Thread, MsgId>,
        since_s: Option<u64>,
    ) {
        let set = |thread: &Thread| {
            let at = cursors.settings(thread).at_ms;
            at > 0 && since_s.map_or_else(|| has.contains_key(thread), |since| at / 1_000 >= since)
        };
        let set = session.state.select(|thread, item| item.visible() && set(thread));
        let set: Vec<Thread> = set.into_iter().map(|(thread, _)| thread).collect();
        let drafts = self.drafts_if(&session.user, set.iter().any(|thread| cursors.settings(thread).draft)).await;
        for thread in set {
            let settings = cursors.settings(&thread).shown(cursors.read(&thread), drafts.of(&thread));
            session.frame(&ServerFrame::ThreadSettings { r: None, thread, settings });
        }
    }

    async fn tell(&self, user: &UserId, thread: &Thread, settings: &ThreadSettings) {
        let payload = Ephemeral::Settings { thread: thread.clone(), settings: settings.clone() }.encode();
        if let Err(e) = self.nats.publish(subjects::live_user_x(user), payload).await {
            tracing::debug!(%user, error = %e, "what was set is not told");
        }
    }
}
