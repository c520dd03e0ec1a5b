//! Step 2 for messages that come over HTTP: the same order as on a socket. Of one device and thread one publish is in flight on this edge;
//! what comes meanwhile waits, and what waits behind one that failed for a moment fails with it.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::Instant,
};

use natterjack_protocol::{
    Body, Cid, DeviceId, Kind, MsgId, Refusal, Thread, UserId,
    error::{Code, Retry},
    frame::{Request, Send},
    limits,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{auth::Actor, door::Door, members::Members, people::People, send::Sends, session::queue::SendQueue};

type Key = (UserId, DeviceId);
type Turn = Result<Send, Refusal>;

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
    /// Gives the turn to who waits for it. One that waits no more will come again: so must those behind it.
    fn next(&mut self, next: Option<Send>, now: Instant) {
        let Some(send) = next else { return };
        let (r, thread, cid) = (send.r, send.thread.clone(), send.cid);
        self.in_flight.insert(r);
        let taken = self.waiting.remove(&r).is_some_and(|turn| turn.send(Ok(send)).is_ok());
        if !taken {
            self.in_flight.remove(&r);
            self.failed(&thread, cid, &gave_up(), now);
        }
    }

    fn failed(&mut self, thread: &Thread, cid: Cid, why: &Refusal, now: Instant) {
        for behind in self.queue.fail(thread, cid, why, now) {
            if let Some(turn) = self.waiting.remove(&behind.r) {
                let _ = turn.send(Err(why.clone()));
            }
        }
    }
}

pub struct Posts {
    sends: Arc<Sends>,
    members: Members,
    people: People,
    door: Door,
    lanes: Mutex<HashMap<Key, Lane>>,
}

impl Posts {
    pub fn new(sends: Arc<Sends>, members: Members, people: People, door: Door) -> Self {
        Self { sends, members, people, door, lanes: Mutex::default() }
    }

    /// As `Sends::send`, in the order of the device. Dropping it leaves the outcome open: the same cid may come again.
    pub async fn post(&self, actor: Actor, thread: Thread, cid: Cid, kind: Kind, body: Body) -> Result<MsgId, Refusal> {
        let send = Send { r: 0, cid, thread: thread.clone(), kind, body };
        let key = (actor.user, actor.device);
        let allowed = self.door.sends(&key.0);
        let (r, turn) = enter(&mut self.lanes.lock(), &key, send, allowed, Instant::now()).map_err(|e| e.with_cid(cid))?;
        let place = Place { posts: self, key, thread, cid, r };
        let gave_up = |_| Err(gave_up());
        let send = turn.await.unwrap_or_else(gave_up).map_err(|e| e.with_cid(cid))?;
        let result = self.send(&place.key.0, send).await.map_err(|e| e.with_cid(cid));
        place.decided(result.as_ref().err());
        result
    }

    async fn send(&self, user: &UserId, send: Send) -> Result<MsgId, Refusal> {
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
    mut send: Send,
    allowed: Result<(), Refusal>,
    now: Instant,
) -> Result<(Request, oneshot::Receiver<Turn>), Refusal> {
    if lanes.len() >= LANES && lanes.len() == lanes.capacity() {
        lanes.retain(|_, l| !l.queue.is_idle(now));
    }
    let lane = lanes.entry(key.clone()).or_default();
    lane.requests = lane.requests.wrapping_add(1);
    send.r = lane.requests;
    let (r, thread, cid) = (send.r, send.thread.clone(), send.cid);
    let room = if lane.waiting.len() + lane.in_flight.len() < limits::INFLIGHT_REQUESTS { Ok(()) } else { Err(full()) };
    if let Err(why) = allowed.and(room) {
        metrics::counter!("natterjack_edge_posts_refused_total").increment(1);
        // What follows it must not overtake it.
        lane.queue.hold(&thread, cid, &why, now);
        return Err(why);
    }
    let (tell, turn) = oneshot::channel();
    lane.waiting.insert(r, tell);
    match lane.queue.push(send, now) {
        Ok(now_due) => lane.next(now_due, now),
        Err(refusal) => {
            lane.waiting.remove(&r);
            return Err(refusal);
        }
    }
    metrics::gauge!("natterjack_edge_posts_waiting").increment(1.0);
    Ok((r, turn))
}

/// What a request holds of its lane, given back however it ends.
struct Place<'a> {
    posts: &'a Posts,
    key: Key,
    thread: Thread,
    cid: Cid,
    r: Request,
}

impl Place<'_> {
    fn decided(&self, refused: Option<&Refusal>) {
        let now = Instant::now();
        if let Some(lane) = self.posts.lanes.lock().get_mut(&self.key) {
            lane.in_flight.remove(&self.r);
            match refused {
                Some(why) if why.code.retry() == Retry::Later => lane.failed(&self.thread, self.cid, why, now),
                _ => {
                    let next = lane.queue.done(&self.thread);
                    lane.next(next, now);
                }
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        metrics::gauge!("natterjack_edge_posts_waiting").decrement(1.0);
        let (mut lanes, now) = (self.posts.lanes.lock(), Instant::now());
        let Entry::Occupied(mut lane) = lanes.entry(self.key.clone()) else { return };
        lane.get_mut().waiting.remove(&self.r);
        if lane.get_mut().in_flight.remove(&self.r) {
            // Its client is gone, and will send it again before what came after it.
            lane.get_mut().failed(&self.thread, self.cid, &gave_up(), now);
        }
        if lane.get().queue.is_idle(now) {
            lane.remove();
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
    use super::*;

    fn key() -> Key {
        (UserId::parse("a").unwrap(), DeviceId::parse("d").unwrap())
    }

    fn send(n: u8) -> Send {
        Send { r: 0, cid: Cid::mint(1, [n; 10]), thread: "dm.a.b".parse().unwrap(), kind: Kind::Text, body: Body::text("x") }
    }

    fn come(lanes: &mut HashMap<Key, Lane>, n: u8) -> (Request, oneshot::Receiver<Turn>) {
        enter(lanes, &key(), send(n), Ok(()), Instant::now()).unwrap()
    }

    #[test]
    fn one_at_a_time_in_the_order_of_coming() {
        let mut lanes = HashMap::new();
        let (mut a, mut b, mut c) = (come(&mut lanes, 1), come(&mut lanes, 2), come(&mut lanes, 3));
        assert_eq!(a.1.try_recv().unwrap().unwrap().cid, send(1).cid);
        assert!(b.1.try_recv().is_err() && c.1.try_recv().is_err());
        let lane = lanes.get_mut(&key()).unwrap();
        lane.in_flight.remove(&a.0);
        let next = lane.queue.done(&send(1).thread);
        lane.next(next, Instant::now());
        assert_eq!(b.1.try_recv().unwrap().unwrap().cid, send(2).cid);
        // The second fails for a moment: the third must not overtake it.
        lane.in_flight.remove(&b.0);
        lane.failed(&send(2).thread, send(2).cid, &Refusal::unavailable("x"), Instant::now());
        assert_eq!(c.1.try_recv().unwrap().unwrap_err().code, Code::Unavailable);
        assert_eq!(enter(&mut lanes, &key(), send(3), Ok(()), Instant::now()).unwrap_err().code, Code::Unavailable, "held");
        assert!(come(&mut lanes, 2).1.try_recv().is_ok());
    }

    #[test]
    fn who_went_away_while_waiting_is_not_overtaken() {
        let mut lanes = HashMap::new();
        let (a, b, mut c) = (come(&mut lanes, 1), come(&mut lanes, 2), come(&mut lanes, 3));
        drop(b);
        let lane = lanes.get_mut(&key()).unwrap();
        lane.in_flight.remove(&a.0);
        let next = lane.queue.done(&send(1).thread);
        lane.next(next, Instant::now());
        assert_eq!(c.1.try_recv().unwrap().unwrap_err().code, Code::Unavailable);
        assert!(lane.in_flight.is_empty() && lane.waiting.is_empty());
    }

    #[test]
    fn a_device_has_so_many_and_no_more() {
        let mut lanes = HashMap::new();
        let all: Vec<_> = (0..limits::INFLIGHT_REQUESTS as u8).map(|n| come(&mut lanes, n)).collect();
        assert_eq!(enter(&mut lanes, &key(), send(200), Ok(()), Instant::now()).unwrap_err().code, Code::RateLimited);
        drop(all);
    }

    #[test]
    fn what_the_rate_refuses_is_not_overtaken() {
        let mut lanes = HashMap::new();
        let refused = enter(&mut lanes, &key(), send(1), Err(full()), Instant::now()).unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        assert!(enter(&mut lanes, &key(), send(2), Ok(()), Instant::now()).is_err());
        assert!(come(&mut lanes, 1).1.try_recv().is_ok() && come(&mut lanes, 2).1.try_recv().is_err());
    }
}
