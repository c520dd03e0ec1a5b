//! What the sessions of one user here have acknowledged and is not written yet: when it is to be written, and how much
//! of it may be believed. Pure.

use std::{collections::HashMap, time::Duration};

use natterjack_protocol::{DeviceId, MsgId, Thread, client::frame::Acknowledged, internal::cursors::UserCursors};
use tokio::time::Instant;

/// What is read within this of each other is written together.
const LINGER: Duration = Duration::from_millis(100);
/// A user's key is written at most once in this time.
const EVERY: Duration = Duration::from_secs(1);
/// What a device has got waits longer: it is for receipts and notifications, and mostly read soon.
const GOT: Duration = Duration::from_millis(2_500);
/// An id that this edge has not heard of yet: it may have come in a page, and its partition's next beat says so.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// After so long it was never given, and counts as the newest one there is: if its partition beats, for the beats of
/// this time have counted further than any page that a client may have seen before.
const BELIEVE: Duration = Duration::from_secs(5);

/// What is known here of a thread's partition.
#[derive(Clone, Copy)]
pub struct Given {
    /// The newest id. None: nothing was heard of it yet.
    pub newest: Option<MsgId>,
    /// It is heard of now.
    pub beats: bool,
}

#[derive(Clone, Copy)]
struct Pending {
    id: MsgId,
    since: Instant,
}

#[derive(Default)]
pub struct PendingAcks {
    read: HashMap<Thread, Pending>,
    got: HashMap<DeviceId, HashMap<Thread, Pending>>,
    /// When the key was written last.
    written: Option<Instant>,
    /// Not before.
    again: Option<Instant>,
    /// The session is over: nothing is waited for.
    hurried: bool,
}

/// What is to be written now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadyAcks {
    pub read: Vec<(Thread, MsgId)>,
    pub got: Vec<(DeviceId, Thread, MsgId)>,
}

impl ReadyAcks {
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.got.is_empty()
    }

    /// What of it is further than these.
    pub fn beyond(&self, known: &UserCursors) -> Self {
        let read = self.read.iter().filter(|(thread, id)| *id > known.read(thread)).cloned().collect();
        let got = self.got.iter().filter(|(_, thread, id)| *id > known.got(thread)).cloned().collect();
        Self { read, got }
    }

    pub fn extend(&mut self, more: Self) {
        self.read.extend(more.read);
        self.got.extend(more.got);
    }

    /// Each alone, with the hash of its thread.
    pub fn by_thread(&self) -> Vec<(u64, Self)> {
        let read = self
            .read
            .iter()
            .map(|(thread, id)| (thread.hash64(), Self { read: vec![(thread.clone(), *id)], got: Vec::new() }));
        let got = self.got.iter().map(|(device, thread, id)| {
            (thread.hash64(), Self { read: Vec::new(), got: vec![(device.clone(), thread.clone(), *id)] })
        });
        read.chain(got).collect()
    }

    pub fn cursors(&self, at_s: u64) -> UserCursors {
        let mut cursors = UserCursors::default();
        self.read.iter().for_each(|(thread, id)| cursors.add_read(thread, *id, at_s));
        self.got.iter().for_each(|(device, thread, id)| cursors.add_got(device, thread, *id));
        cursors
    }
}

impl PendingAcks {
    pub fn add(&mut self, device: &DeviceId, acked: Acknowledged, now: Instant) {
        for (thread, id) in acked.read {
            further(&mut self.read, thread, id, now);
        }
        if !acked.got.is_empty() {
            let got = self.got.entry(device.clone()).or_default();
            acked.got.into_iter().for_each(|(thread, id)| further(got, thread, id, now));
        }
    }

    /// Does not wait for more to come.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.got.is_empty()
    }

    /// When to write.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        if self.hurried && self.again.is_none() {
            return Some(now);
        }
        let read = self.read.values().map(|p| p.since + LINGER);
        let got = self.got.values().flat_map(HashMap::values).map(|p| p.since + GOT);
        let first = read.chain(got).min()?;
        let earliest = self.written.filter(|_| !self.hurried).map(|at| at + EVERY);
        Some(earliest.into_iter().chain(self.again).fold(first, Instant::max))
    }

    /// Takes what may be written.
    pub fn take(&mut self, now: Instant, given: impl Fn(&Thread) -> Given) -> ReadyAcks {
        let (mut ready, mut again) = (ReadyAcks::default(), None);
        let mut believed = |thread: &Thread, pending: &Pending| {
            let Given { newest, beats } = given(thread);
            let newest = newest.unwrap_or_default();
            if pending.id <= newest {
                return Some(pending.id);
            }
            if beats && now.duration_since(pending.since) >= BELIEVE && !newest.is_none() {
                return Some(newest);
            }
            again = Some(now + LOOK_AGAIN);
            None
        };
        self.read.retain(|thread, pending| {
            let id = believed(thread, pending);
            ready.read.extend(id.map(|id| (thread.clone(), id)));
            id.is_none()
        });
        for (device, got) in &mut self.got {
            got.retain(|thread, pending| {
                let id = believed(thread, pending);
                ready.got.extend(id.map(|id| (device.clone(), thread.clone(), id)));
                id.is_none()
            });
        }
        self.got.retain(|_, got| !got.is_empty());
        self.again = again;
        ready
    }

    /// Other sessions of the user may still be here: what they say waits again.
    pub fn written(&mut self, now: Instant) {
        self.written = Some(now);
        self.hurried = false;
    }

    /// It could not be written; whatever has come since is further.
    pub fn put_back(&mut self, ready: ReadyAcks, now: Instant, again: Duration) {
        for (thread, id) in ready.read {
            further(&mut self.read, thread, id, now);
        }
        for (device, thread, id) in ready.got {
            further(self.got.entry(device).or_default(), thread, id, now);
        }
        self.again = Some(now + again);
    }
}

/// Since when the furthest is waited for does not matter: whoever waits goes with the first.
fn further(all: &mut HashMap<Thread, Pending>, thread: Thread, id: MsgId, now: Instant) {
    let pending = all.entry(thread).or_insert(Pending { id, since: now });
    if id > pending.id {
        pending.id = id;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(name: &str) -> Thread {
        format!("group.{name}").parse().unwrap()
    }

    fn device() -> DeviceId {
        DeviceId::parse("phone").unwrap()
    }

    fn acked(read: &[(&str, u64)], got: &[(&str, u64)]) -> Acknowledged {
        let all = |list: &[(&str, u64)]| list.iter().map(|(t, id)| (thread(t), MsgId(*id))).collect();
        Acknowledged { read: all(read), got: all(got) }
    }

    fn given(newest: Option<u64>, beats: bool) -> impl Fn(&Thread) -> Given {
        move |_| Given { newest: newest.map(MsgId), beats }
    }

    const ALL: fn(&Thread) -> Given = |_| Given { newest: Some(MsgId::MAX), beats: false };

    #[test]
    fn reads_go_together_at_most_once_a_second_and_what_was_got_waits() {
        let (mut acks, now) = (PendingAcks::default(), Instant::now());
        assert_eq!(acks.due(now), None);
        acks.add(&device(), acked(&[], &[("a", 5)]), now);
        assert_eq!(acks.due(now), Some(now + GOT));
        acks.add(&device(), acked(&[("a", 5), ("b", 7)], &[]), now);
        acks.add(&device(), acked(&[("a", 9), ("b", 6)], &[]), now + LINGER / 2);
        assert_eq!(acks.due(now), Some(now + LINGER));
        let mut ready = acks.take(now + LINGER, ALL);
        ready.read.sort();
        assert_eq!(ready.read, [(thread("a"), MsgId(9)), (thread("b"), MsgId(7))]);
        assert_eq!(ready.got, [(device(), thread("a"), MsgId(5))], "it goes with it");
        acks.written(now + LINGER);
        assert!(acks.is_empty() && acks.due(now).is_none());
        acks.add(&device(), acked(&[("a", 10)], &[]), now + LINGER);
        assert_eq!(acks.due(now), Some(now + LINGER + EVERY));
        acks.hurry();
        assert_eq!(acks.due(now + 2 * LINGER), Some(now + 2 * LINGER), "the session is over");
        acks.take(now + 2 * LINGER, ALL);
        acks.written(now + 2 * LINGER);
        acks.add(&device(), acked(&[("a", 11)], &[]), now + 2 * LINGER);
        assert_eq!(acks.due(now + 2 * LINGER), Some(now + 2 * LINGER + EVERY), "another one goes on");
    }

    #[test]
    fn an_id_that_nobody_has_given_waits_and_is_cut() {
        let (mut acks, now) = (PendingAcks::default(), Instant::now());
        acks.add(&device(), acked(&[("a", 50), ("b", 10)], &[("c", 60)]), now);
        acks.hurry();
        let ready = acks.take(now, given(Some(20), true));
        assert_eq!((ready.read, ready.got), (vec![(thread("b"), MsgId(10))], vec![]));
        assert_eq!(acks.due(now), Some(now + LOOK_AGAIN), "the next beat may know it");
        assert!(acks.take(now + BELIEVE, given(None, true)).is_empty(), "no beat has come yet");
        assert!(acks.take(now + 9 * BELIEVE, given(Some(20), false)).is_empty(), "nor has one for long");
        let mut cut = acks.take(now + BELIEVE, given(Some(20), true));
        assert_eq!(cut.read, [(thread("a"), MsgId(20))]);
        assert_eq!(cut.got.pop(), Some((device(), thread("c"), MsgId(20))));
        assert!(acks.is_empty());
    }

    #[test]
    fn what_could_not_be_written_is_written_later_and_never_goes_back() {
        let (mut acks, now) = (PendingAcks::default(), Instant::now());
        acks.add(&device(), acked(&[("a", 5)], &[("b", 5)]), now);
        let ready = acks.take(now, ALL);
        acks.add(&device(), acked(&[("a", 8)], &[]), now);
        acks.put_back(ready, now, EVERY);
        assert_eq!(acks.due(now), Some(now + EVERY));
        let ready = acks.take(now + EVERY, ALL);
        assert_eq!((ready.read.clone(), ready.got.len()), (vec![(thread("a"), MsgId(8))], 1));
        let cursors = ready.cursors(9);
        assert_eq!((cursors.read(&thread("a")), cursors.got_by(&device(), &thread("b"))), (MsgId(8), MsgId(5)));
    }
}
