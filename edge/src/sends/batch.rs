//! Step 2, several at once: what one device has sent into one thread while nothing of it was in flight, or while
//! something was. One publish after the other would cost each of them the way to the log and back; together they keep
//! their order by a fast batch (ADR 7).
//!
//! Only what nothing has to be asked about goes together. All else, and whatever of a batch is not known to be stored,
//! goes the way of `send`, one after the other: the same Msg-Id is stored once, so going it twice does no harm.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use natterjack_protocol::{
    Cid, Code, MsgId, Refusal, Thread,
    cid::Age,
    client::{
        frame::SendMessage,
        send_queue::{Queued, SendSource, Tried},
    },
    log::fold,
};

use crate::{
    members::UserState,
    sends::{
        device::{PublishSends, Published, SendResult},
        send::{Sends, entry_of},
    },
};

/// How long to wait for the events of a batch that the log has acknowledged. Usually they are there before the
/// acknowledgement; they are not while another holder takes over the partition.
const ECHO: Duration = Duration::from_millis(500);
/// A cid this old, in milliseconds, is probably sent again, and a message that is stored already has no event any more.
const RESENT: u64 = 2_000;

/// What became of a batch.
enum Batch {
    Stored(Vec<MsgId>),
    /// Nothing was published.
    Not,
    /// Nobody knows how much of it is stored.
    Unsure,
}

impl PublishSends for Sends {
    async fn send_all(&self, state: &Arc<UserState>, thread: &Thread, mut sends: Vec<Queued>) -> Published {
        let tried = match self.together(state, thread, &sends).await {
            Batch::Stored(ids) => return Published { results: ids.into_iter().map(Ok).collect(), rest: Vec::new() },
            Batch::Not => Tried::Alone,
            Batch::Unsure => Tried::Unsure,
        };
        if sends.len() > 1 {
            sends.iter_mut().for_each(|s| s.tried = tried);
        }
        let mut rest = sends.into_iter();
        let Some(first) = rest.next() else { return Published { results: Vec::new(), rest: Vec::new() } };
        let mut result = match first.source {
            SendSource::Connection(_) => self.send(state, first.send).await,
            SendSource::Request(_) => self.send_of_request(state, first.send).await,
        };
        if first.tried == Tried::Unsure {
            result = result.map_err(without_certainty);
        }
        Published { results: vec![result], rest: rest.collect() }
    }
}

impl Sends {
    async fn send_of_request(&self, state: &Arc<UserState>, send: SendMessage) -> SendResult {
        self.membership.load(state).await?;
        self.send(state, send).await
    }

    async fn together(&self, state: &Arc<UserState>, thread: &Thread, sends: &[Queued]) -> Batch {
        let Some((p, messages)) = self.batch_of(state, thread, sends) else { return Batch::Not };
        let cids: Vec<Cid> = sends.iter().map(|s| s.send.cid).collect();
        let started = std::time::Instant::now();
        let awaited = self.batch_acks.expect(thread, &state.user, cids);
        if !self.publisher.batch(thread, messages).await {
            return Batch::Unsure;
        }
        let Ok(ids) = tokio::time::timeout(ECHO, awaited.ids()).await else { return Batch::Unsure };
        // As for one alone: an acknowledgement this late may be of copies.
        let on_time = |now| sends.iter().all(|s| !s.send.cid.is_late(now, None, &self.log.times));
        if !self.log.clock.now_ms(p).is_some_and(on_time) {
            return Batch::Unsure;
        }
        self.metrics.batch(sends.len(), started.elapsed());
        Batch::Stored(ids)
    }

    /// The partition and what to publish; None: one after the other.
    fn batch_of(
        &self,
        state: &Arc<UserState>,
        thread: &Thread,
        sends: &[Queued],
    ) -> Option<(u32, Vec<(String, Bytes)>)> {
        if sends.len() < 2 {
            return None;
        }
        let p = self.log.layout.partition(thread);
        let allowed = state.item(thread).is_some_and(|item| !item.not_begun && fold::may_send(&item).is_ok())
            && self.log.may_publish(thread, p).is_ok();
        if !allowed {
            return None;
        }
        let (now, since) = self.log.window(p)?;
        let ready = |Queued { send, .. }: &Queued| -> Option<(String, Bytes)> {
            // What another message is named by has to be looked up first.
            let alone = send.body.references().next().is_some();
            let first_time =
                !alone && send.cid.age(now, since, &self.log.times) == Age::Fresh && send.cid.unix_ms() + RESENT > now;
            let (_, encoded) = entry_of(&state.user, send.clone()).ok().filter(|_| first_time)?;
            Some((send.cid.dedupe_id(thread, &state.user), encoded))
        };
        Some((p, sends.iter().map(ready).collect::<Option<Vec<_>>>()?))
    }
}

/// The batch before may have stored it, so what says that this attempt did not is not the whole truth.
fn without_certainty(why: Refusal) -> Refusal {
    if why.code.means_not_stored() { Refusal { code: Code::Unavailable, ..why } } else { why }
}
