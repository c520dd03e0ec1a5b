//! Beside the socket: one long poll, for clients that get no WebSocket through. A poll attaches with the cursors it
//! brings, collects what its outbox gets until there is something or its time is over, and answers. Between two polls
//! nothing is kept but the device's place (`places`), so any edge takes the next one, and an answer that was lost on
//! its way is given again. (docs/guarantees.md, P1–P5, P9.)

pub mod answer;
pub mod places;
pub mod watched;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use natterjack_protocol::{
    MsgId, Refusal, Thread, Times, Token, UserId,
    client::{
        close::{self, Close},
        frame::ServerFrame,
        poll::PollAnswer,
    },
    codec::Codec,
    limits,
};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use crate::{
    address::Came,
    admission::{Admission, OpenSession, SessionSlot},
    attach::Attach,
    auth::Actor,
    devices::hello::{DeviceHello, NotIn, replaced},
    edges::KnownEdges,
    presence::Presence,
    refusals::{EdgeError, refuse},
    sessions::{handle::SessionHandle, outbox::Call, socket::PER_FLUSH},
    status::StatusWatch,
};
use answer::Collected;
use places::{PollPlaces, PollSession};
use watched::Watched;

/// The first event of a burst waits this long for the others: every answer costs the client a request and the edge an
/// attach.
const LINGER: Duration = Duration::from_millis(50);

/// What a client brings; the same as in `hello`.
#[derive(Debug, Default)]
pub struct PollInput {
    pub device: DeviceHello,
    pub cursors: BTreeMap<Thread, MsgId>,
    pub synced: Option<String>,
    /// None: as long as possible.
    pub wait_ms: Option<u64>,
    pub watch: Option<Vec<UserId>>,
    pub seen: Option<String>,
    pub came: Came,
}

pub struct LongPolls {
    pub admission: Arc<Admission>,
    pub attach: Attach,
    pub presence: Presence,
    pub places: Arc<PollPlaces>,
    pub status: StatusWatch,
    pub edges: KnownEdges,
    pub times: Times,
}

impl LongPolls {
    /// May be dropped at any time: the session goes with it, nothing was taken from anybody, and the place is kept.
    pub async fn poll(&self, actor: Actor, ask: PollInput) -> Result<PollAnswer, Refusal> {
        if ask.cursors.len() > limits::CURSORS_PER_HELLO {
            return Err(Refusal::invalid(format!(
                "cursors: {} of them, at most {} are allowed: leave out those of the threads that have been quiet for \
                 longest",
                ask.cursors.len(),
                limits::CURSORS_PER_HELLO
            )));
        }
        if self.status.now().draining {
            return Err(Refusal::unavailable("this edge is leaving: poll another, see GET /v1/edges"));
        }
        let longest = self.times.heartbeat;
        let end = Instant::now() + ask.wait_ms.map_or(longest, |ms| Duration::from_millis(ms).min(longest));
        let open = self.session(actor, ask.device.clone(), &ask.came).await?;
        let handle = open.handle().clone();
        let _session = PollSession::new(open, &self.places);
        metrics::counter!(crate::metrics::LONG_POLLS).increment(1);
        self.collect(&handle, ask, end).await
    }

    /// That of the poll before, if its place was kept here and nobody has taken it, else a new one.
    async fn session(&self, actor: Actor, hello: DeviceHello, came: &Came) -> Result<OpenSession, NotIn> {
        let open = |slot: SessionSlot| slot.open(Codec::Json, came.clone(), |_| {});
        if let Some(claim) = self.places.take(&actor, &hello) {
            match open(self.admission.admit_again(actor.clone(), claim)) {
                // Not in its place any more: whether it may be in is asked anew.
                Err(NotIn::Refused(_)) => {}
                done => return done,
            }
        }
        let device = actor.device.clone();
        open(self.admission.admit(actor, &device, hello).await?)
    }

    /// Waits, in this order of priority, for: something in the outbox, being asked to leave, the end of attach, the end
    /// of the wait.
    async fn collect(&self, handle: &Arc<SessionHandle>, ask: PollInput, end: Instant) -> Result<PollAnswer, Refusal> {
        let came = ask.came;
        let mut collected = Collected::new(ask.cursors.clone(), ask.synced.is_some());
        if let Some(users) = ask.watch {
            // Watched first, so that nothing falls between the two.
            self.presence.watch(handle.clone(), Some(users.clone()), 0).await?;
            collected.watch(Watched::new(self.presence.pull(&handle.user, users).await?, ask.seen));
        }
        let mut attach = Box::pin(self.attach.attach(handle, ask.cursors, ask.synced).instrument(handle.span()));
        let (mut attaching, mut lingers) = (true, None::<Instant>);
        loop {
            tokio::select! {
                biased;
                call = handle.outbox.called() => {
                    if call == Call::Leave {
                        return self.closed(close::DRAINING, collected, &handle.session, &came);
                    }
                    let mut frames = Vec::new();
                    let why = handle.outbox.take(&mut frames, PER_FLUSH);
                    frames.iter().for_each(|bytes| collected.add(bytes));
                    if let Some(why) = why {
                        return self.closed(why, collected, &handle.session, &came);
                    }
                    if collected.leaving() || collected.bytes() >= limits::POLL_BYTES {
                        return Ok(collected.answer(&handle.session));
                    }
                }
                done = attach.as_mut(), if attaching => {
                    done?;
                    attaching = false;
                }
                // Not before the cursors were answered: a client that asks without waiting asks for that.
                () = sleep_until(lingers.map_or(end, |until| until.min(end))), if collected.attached() => {
                    return Ok(collected.answer(&handle.session));
                }
            }
            // Presence that has changed and is again what the client has is no news any more.
            let news = collected.attached() && collected.has_news();
            lingers = news.then(|| lingers.unwrap_or_else(|| Instant::now() + LINGER));
        }
    }

    /// The session was ended from outside. What came before is in order and good; how to go on, the client learns at
    /// its next poll.
    fn closed(
        &self,
        why: Close,
        mut collected: Collected,
        session: &Token,
        came: &Came,
    ) -> Result<PollAnswer, Refusal> {
        match why {
            close::UNAUTHORIZED => Err(refuse(EdgeError::Revoked)),
            close::DISPLACED => Err(collected.displaced()),
            close::DRAINING => {
                if !collected.leaving() {
                    collected.frame(ServerFrame::Draining { after_ms: 0, edges: self.edges.others(came) }, 0);
                }
                Ok(collected.answer(session))
            }
            close::REPLACED => Err(replaced()),
            _ if collected.has_news() => Ok(collected.answer(session)),
            _ => Err(Refusal::unavailable("this edge has lost its place: poll again")),
        }
    }
}
