//! Step 2 for messages that come over HTTP: the same queue as on a socket (`protocol::client::send_queue`), one for each device.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use natterjack_protocol::{
    Cid, Code, DeviceId, MsgId, Refusal, Thread, UserId,
    client::{
        frame::{Request, SendMessage},
        send_queue::{Queued, SendQueue},
    },
    limits,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{admission::limits::AdmissionLimits, auth::Actor, members::Members, people::People, sends::send::Sends};

type Key = (UserId, DeviceId);
type Turn = Result<SendMessage, Refusal>;

/// Below this many devices nobody looks for those that have nothing to do.
const LANES: usize = 256;

/// The sends of one device.
#[derive(Default)]
struct Lane {
    queue: SendQueue,
    waiting: HashMap<Request, oneshot::Sender<Turn>>,
    in_flight: HashSet<Request>,
    requests: Request,
}

impl Lane {
    /// The request in flight is decided.
    fn decided(&mut self, r: Request, thread: &Thread, refused: Option<(Cid, &Refusal)>) {
        self.in_flight.remove(&r);
        let decided = self.queue.decided(thread, refused, Vec::new());
        for (why, send) in decided.refused {
            if let Some(turn) = self.waiting.remove(&send.r) {
                let _ = turn.send(Err(why));
            }
        }
        self.turn(decided.next);
        // Each request comes by itself: nobody knows which of them were written before the answer was read.
        self.queue.received_all();
    }

    /// Gives the turn to who waits for it. One that waits no more will come again: so must those behind it.
    fn turn(&mut self, next: Option<Queued>) {
        let Some(Queued { send, .. }) = next else { return };
        let (r, thread, cid) = (send.r, send.thread.clone(), send.cid);
        self.in_flight.insert(r);
        let taken = self.waiting.remove(&r).is_some_and(|turn| turn.send(Ok(send)).is_ok());
        if !taken {
            self.decided(r, &thread, Some((cid, &gave_up())));
        }
    }
}

pub struct HttpSends {
    sends: Arc<Sends>,
    members: Members,
    people: People,
    limiter: AdmissionLimits,
    lanes: Mutex<HashMap<Key, Lane>>,
}

impl HttpSends {
    pub fn new(sends: Arc<Sends>, members: Members, people: People, limiter: AdmissionLimits) -> Self {
        Self { sends, members, people, limiter, lanes: Mutex::default() }
    }

    /// As `Sends::send`, in the order of the device. Dropping it leaves the outcome open: the same cid may come again.
    pub async fn post(&self, actor: Actor, send: SendMessage) -> Result<MsgId, Refusal> {
        let (cid, thread) = (send.cid, send.thread.clone());
        let key = (actor.user, actor.device);
        let allowed = self.limiter.sends(&key.0);
        let (r, turn) = enter(&mut self.lanes.lock(), &key, send, allowed).map_err(|e| e.with_cid(cid))?;
        let place = Place { http_sends: self, key, thread, cid, r };
        let send = turn.await.unwrap_or_else(|_| Err(gave_up())).map_err(|e| e.with_cid(cid))?;
        let result = self.send(&place.key.0, send).await.map_err(|e| e.with_cid(cid));
        place.decided(result.as_ref().err());
        result
    }

    async fn send(&self, user: &UserId, send: SendMessage) -> Result<MsgId, Refusal> {
        let state = self.members.enter(user);
        // No signal keeps it fresh where the user has no session.
        state.load(self.people.threads(user).await?);
        self.sends.send(&state, send).await
    }
}

/// The request's number, and where its turn will be told; at once if nothing of its thread is in flight.
fn enter(
    lanes: &mut HashMap<Key, Lane>,
    key: &Key,
    mut send: SendMessage,
    allowed: Result<(), Refusal>,
) -> Result<(Request, oneshot::Receiver<Turn>), Refusal> {
    if lanes.len() >= LANES && lanes.len() == lanes.capacity() {
        lanes.retain(|_, l| !l.queue.is_idle());
    }
    let lane = lanes.entry(key.clone()).or_default();
    lane.requests = lane.requests.wrapping_add(1);
    send.r = lane.requests;
    let r = send.r;
    let room = if lane.waiting.len() + lane.in_flight.len() < limits::INFLIGHT_REQUESTS { Ok(()) } else { Err(full()) };
    if let Err(why) = allowed.and(room) {
        metrics::counter!(crate::metrics::HTTP_SENDS_REFUSED).increment(1);
        lane.queue.refused(&send, &why);
        lane.queue.received_all();
        return Err(why);
    }
    let now = lane.queue.push(send)?;
    let (tell, turn) = oneshot::channel();
    lane.waiting.insert(r, tell);
    lane.turn(now);
    metrics::gauge!(crate::metrics::HTTP_SENDS_WAITING).increment(1.0);
    Ok((r, turn))
}

/// What a request holds of its lane, given back however it ends.
struct Place<'a> {
    http_sends: &'a HttpSends,
    key: Key,
    thread: Thread,
    cid: Cid,
    r: Request,
}

impl Place<'_> {
    fn decided(&self, refused: Option<&Refusal>) {
        if let Some(lane) = self.http_sends.lanes.lock().get_mut(&self.key) {
            lane.decided(self.r, &self.thread, refused.map(|why| (self.cid, why)));
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        metrics::gauge!(crate::metrics::HTTP_SENDS_WAITING).decrement(1.0);
        let mut lanes = self.http_sends.lanes.lock();
        let Some(lane) = lanes.get_mut(&self.key) else { return };
        lane.waiting.remove(&self.r);
        if lane.in_flight.contains(&self.r) {
            // Its client is gone, and will send it again before what came after it.
            lane.decided(self.r, &self.thread, Some((self.cid, &gave_up())));
        }
    }
}

fn full() -> Refusal {
    let why = Refusal::new(Code::RateLimited, format!("{} messages of this device wait already", limits::INFLIGHT_REQUESTS));
    Refusal { retry_after_ms: Some(1_000), ..why }
}

fn gave_up() -> Refusal {
    Refusal::unavailable("an earlier message of this thread is not known to be stored: send it again first")
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Kind};

    use super::*;

    fn key() -> Key {
        (UserId::parse("a").unwrap(), DeviceId::parse("d").unwrap())
    }

    fn send(n: u8, behind: Option<u8>) -> SendMessage {
        let cid = |n| Cid::mint(1, [n; 10]);
        let thread = "dm.a.b".parse().unwrap();
        SendMessage { r: 0, cid: cid(n), thread, kind: Kind::Text, body: Body::text("x"), behind: behind.map(cid) }
    }

    fn come(lanes: &mut HashMap<Key, Lane>, n: u8, behind: Option<u8>) -> Result<(Request, oneshot::Receiver<Turn>), Code> {
        enter(lanes, &key(), send(n, behind), Ok(())).map_err(|e| e.code)
    }

    /// Whose turn it is; none: it waits.
    fn turn(entered: &mut (Request, oneshot::Receiver<Turn>)) -> Option<Result<Cid, Code>> {
        entered.1.try_recv().ok().map(|t| t.map(|s| s.cid).map_err(|e| e.code))
    }

    fn decided(lanes: &mut HashMap<Key, Lane>, (r, n): (Request, u8), refused: Option<Refusal>) {
        let send = send(n, None);
        lanes.get_mut(&key()).unwrap().decided(r, &send.thread, refused.as_ref().map(|why| (send.cid, why)));
    }

    #[test]
    fn one_at_a_time_in_the_order_of_coming() {
        let mut lanes = HashMap::new();
        let mut all: Vec<_> = (1..=3).map(|n| come(&mut lanes, n, None).unwrap()).collect();
        assert_eq!(turn(&mut all[0]), Some(Ok(send(1, None).cid)));
        assert!(turn(&mut all[1]).is_none() && turn(&mut all[2]).is_none());
        decided(&mut lanes, (all[0].0, 1), None);
        assert_eq!(turn(&mut all[1]), Some(Ok(send(2, None).cid)));
        // The second fails for a moment: the third must not overtake it.
        decided(&mut lanes, (all[1].0, 2), Some(Refusal::unavailable("x")));
        assert_eq!(turn(&mut all[2]), Some(Err(Code::OutOfOrder)));
        assert!(lanes[&key()].queue.is_idle());
    }

    #[test]
    fn what_names_a_message_before_it_is_stored_behind_it_or_refused() {
        let mut lanes = HashMap::new();
        assert_eq!(come(&mut lanes, 2, Some(1)).unwrap_err(), Code::OutOfOrder, "it has overtaken the first on its way");
        let mut first = come(&mut lanes, 1, None).unwrap();
        assert!(turn(&mut first).is_some());
        decided(&mut lanes, (first.0, 1), Some(Refusal::new(Code::ClockAhead, "x")));
        assert_eq!(come(&mut lanes, 2, Some(1)).unwrap_err(), Code::OutOfOrder, "sent before the answer was read");
        let mut again = come(&mut lanes, 9, None).unwrap();
        assert!(turn(&mut again).is_some(), "a new cid, or another message: the client has its reasons");
        decided(&mut lanes, (again.0, 9), None);
        assert!(turn(&mut come(&mut lanes, 2, Some(9)).unwrap()).is_some(), "stored already, its answer is on its way");
    }

    #[test]
    fn who_went_away_while_waiting_is_not_overtaken() {
        let mut lanes = HashMap::new();
        let (a, b, mut c) = (come(&mut lanes, 1, None).unwrap(), come(&mut lanes, 2, None).unwrap(), come(&mut lanes, 3, None).unwrap());
        drop(b);
        decided(&mut lanes, (a.0, 1), None);
        assert_eq!(turn(&mut c), Some(Err(Code::OutOfOrder)));
        assert!(lanes[&key()].in_flight.is_empty() && lanes[&key()].waiting.is_empty());
    }

    #[test]
    fn a_device_has_so_many_and_no_more() {
        let mut lanes = HashMap::new();
        let all: Vec<_> = (0..limits::INFLIGHT_REQUESTS as u8).map(|n| come(&mut lanes, n, None).unwrap()).collect();
        assert_eq!(come(&mut lanes, 200, None).unwrap_err(), Code::RateLimited);
        drop(all);
    }

    #[test]
    fn what_the_rate_refuses_is_not_overtaken_by_what_names_it() {
        let mut lanes = HashMap::new();
        assert_eq!(enter(&mut lanes, &key(), send(1, None), Err(full())).unwrap_err().code, Code::RateLimited);
        assert_eq!(come(&mut lanes, 2, Some(1)).unwrap_err(), Code::OutOfOrder);
        assert!(come(&mut lanes, 1, None).is_ok() && come(&mut lanes, 2, Some(1)).is_ok());
    }

    #[test]
    fn devices_with_nothing_to_do_are_forgotten() {
        let mut lanes = HashMap::new();
        for n in 0..LANES * 8 {
            let key = (UserId::parse(&format!("u{n}")).unwrap(), DeviceId::parse("d").unwrap());
            let (r, _turn) = enter(&mut lanes, &key, send(1, None), Ok(())).unwrap();
            lanes.get_mut(&key).unwrap().decided(r, &send(1, None).thread, None);
        }
        assert!(lanes.len() < LANES * 4, "{}", lanes.len());
    }
}
