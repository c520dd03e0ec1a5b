//! The desk with paused time: batches by hand, sessions that are outboxes, a role that answers what it is told to.

use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use natterjack_protocol::{
    DeviceId,
    client::presence::{PresenceOf, PresenceState},
    codec::Codec,
    internal::presence::{Connected, UserPresence},
};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    address::Came,
    members::Members,
    presence::handle::{PresenceHandle, channel},
};

#[derive(Default)]
struct Role {
    states: BTreeMap<UserId, UserPresence>,
    contacts: Vec<UserId>,
    asked: Vec<usize>,
    is_away: bool,
}

#[derive(Clone, Default)]
struct FakeSource(Arc<Mutex<Role>>);

impl PresenceSource for FakeSource {
    fn shards(&self) -> u32 {
        1
    }

    fn shard(&self, _: &UserId) -> u32 {
        0
    }

    async fn ask(&self, _: u32, users: Vec<UserId>) -> Result<PresenceAnswer, Refusal> {
        sleep(Duration::from_millis(5)).await;
        let mut role = self.0.lock().unwrap();
        role.asked.push(users.len());
        if role.is_away {
            return Err(Refusal::unavailable("away"));
        }
        let known = |user: UserId| role.states.get(&user).cloned().unwrap_or_else(|| UserPresence::unknown(user));
        Ok(PresenceAnswer { epoch: 1, seq: 0, users: users.into_iter().map(known).collect() })
    }

    async fn contacts(&self, _: &UserId) -> Result<HashSet<UserId>, Refusal> {
        Ok(self.0.lock().unwrap().contacts.iter().cloned().collect())
    }
}

fn user(n: usize) -> UserId {
    UserId::parse(&format!("u{n}")).unwrap()
}

fn state(n: usize, revision: u64, connected: Connected) -> UserPresence {
    UserPresence { revision, connected, ..UserPresence::unknown(user(n)) }
}

struct World {
    source: FakeSource,
    desk: PresenceHandle,
    members: Members,
    sessions: u64,
    seq: u64,
    _task: JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        let (source, (desk, inbox)) = (FakeSource::default(), channel());
        let task = tokio::spawn(run(source.clone(), Duration::from_secs(3), inbox, CancellationToken::new()));
        Self { source, desk, members: Members::default(), sessions: 0, seq: 0, _task: task }
    }

    fn session(&mut self, name: &str) -> Arc<SessionHandle> {
        self.sessions += 1;
        let (id, user) = (SessionId(self.sessions), UserId::parse(name).unwrap());
        let state = self.members.enter(&user);
        SessionHandle::new(
            id,
            UserId::parse("s").unwrap(),
            user,
            DeviceId::parse("d").unwrap(),
            Codec::Json,
            state,
            Came::default(),
        )
    }

    async fn watch(&self, session: &Arc<SessionHandle>, users: impl IntoIterator<Item = usize>) {
        let users = users.into_iter().map(user).collect();
        let contacts = self.source.contacts(&session.user).await;
        self.desk.watch(session.clone(), users, contacts, 7).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }

    async fn batch(&mut self, users: Vec<UserPresence>) {
        self.seq += u64::from(!users.is_empty());
        let batch = PresenceBatch { shard: 0, epoch: 1, seq: self.seq, users };
        self.desk.batch(rmp_serde::to_vec_named(&batch).unwrap().into());
        sleep(Duration::from_millis(1)).await;
    }

    /// Beats for so long.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.batch(Vec::new()).await;
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The frames that came since this was asked last.
fn frames(session: &SessionHandle) -> Vec<(Option<Request>, Vec<PresenceOf>)> {
    let mut bytes = Vec::new();
    session.outbox.take(&mut bytes, usize::MAX);
    let presence = |bytes: Bytes| match ServerFrame::decode(Codec::Json, &bytes).unwrap() {
        Some(ServerFrame::Presence { r, users }) => Some((r, users)),
        _ => None,
    };
    bytes.into_iter().filter_map(presence).collect()
}

/// What they add up to.
fn seen(session: &SessionHandle) -> Vec<(UserId, PresenceState)> {
    let all: BTreeMap<UserId, PresenceState> =
        frames(session).into_iter().flat_map(|(_, u)| u).map(|p| (p.user, p.state)).collect();
    all.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_answered_at_once_and_what_is_learned_follows_in_one_frame() {
    let mut w = World::start();
    w.source.0.lock().unwrap().states = (0..50).map(|n| (user(n), state(n, 1, Connected::Yes))).collect();
    w.batch(Vec::new()).await;
    let alice = w.session("alice");
    w.watch(&alice, 0..50).await;
    let first = frames(&alice);
    assert_eq!((first.len(), first[0].0, first[0].1.len()), (1, Some(7), 50));
    assert!(first[0].1.iter().all(|p| p.state == PresenceState::Unknown), "nothing is known yet, and that is said");
    w.pass(Duration::from_secs(1)).await;
    let second = frames(&alice);
    assert_eq!((second.len(), second[0].0, second[0].1.len()), (1, None, 50));
    assert!(second[0].1.iter().all(|p| p.state == PresenceState::Online));
    assert_eq!(w.source.0.lock().unwrap().asked, [50], "once, for all of them");
    let bob = w.session("bob");
    w.watch(&bob, 10..20).await;
    assert_eq!(frames(&bob)[0].1.iter().filter(|p| p.state == PresenceState::Online).count(), 10, "known here already");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_one_frame_in_250_ms_however_much_changes() {
    let mut w = World::start();
    w.batch(Vec::new()).await;
    let alice = w.session("alice");
    w.watch(&alice, 0..100).await;
    w.pass(Duration::from_secs(1)).await;
    frames(&alice);
    for n in 0..100 {
        w.batch(vec![state(n, 5, Connected::Yes)]).await;
        sleep(Duration::from_millis(9)).await;
    }
    w.pass(Duration::from_secs(1)).await;
    let frames = frames(&alice);
    assert!((4..=6).contains(&frames.len()), "{}", frames.len());
    assert_eq!(frames.iter().map(|(_, users)| users.len()).sum::<usize>(), 100);
}

#[tokio::test(start_paused = true)]
async fn silence_is_unknown_and_the_same_speaker_needs_no_questions() {
    let mut w = World::start();
    w.source.0.lock().unwrap().states.insert(user(1), state(1, 1, Connected::Yes));
    w.batch(Vec::new()).await;
    let alice = w.session("alice");
    w.watch(&alice, [1]).await;
    w.pass(Duration::from_secs(1)).await;
    assert_eq!(seen(&alice), [(user(1), PresenceState::Online)]);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(seen(&alice), [(user(1), PresenceState::Unknown)], "never offline");
    w.pass(Duration::from_secs(1)).await;
    assert_eq!(seen(&alice), [(user(1), PresenceState::Online)]);
    assert_eq!(w.source.0.lock().unwrap().asked, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_number_is_asked_for_until_there_is_an_answer() {
    let mut w = World::start();
    w.source.0.lock().unwrap().states.insert(user(1), state(1, 1, Connected::Yes));
    w.batch(Vec::new()).await;
    let alice = w.session("alice");
    w.watch(&alice, [1]).await;
    w.pass(Duration::from_secs(1)).await;
    seen(&alice);
    w.seq += 1;
    {
        let mut role = w.source.0.lock().unwrap();
        role.states.insert(user(1), state(1, 2, Connected::No(Some(9))));
        role.is_away = true;
    }
    w.pass(Duration::from_secs(1)).await;
    assert_eq!(seen(&alice), []);
    w.source.0.lock().unwrap().is_away = false;
    w.pass(Duration::from_secs(2)).await;
    assert_eq!(seen(&alice), [(user(1), PresenceState::Offline)]);
}

#[tokio::test(start_paused = true)]
async fn contacts_that_change_are_read_again_and_leaving_ends_it() {
    let mut w = World::start();
    let shy = |n| {
        let mut shy = state(n, 1, Connected::Yes);
        shy.settings.visibility = natterjack_protocol::client::presence::PresenceVisibility::Contacts;
        shy.settings_revision = 1;
        shy
    };
    w.source.0.lock().unwrap().states = [1, 2].map(|n| (user(n), shy(n))).into();
    w.source.0.lock().unwrap().contacts = vec![user(1)];
    w.batch(Vec::new()).await;
    let alice = w.session("alice");
    w.watch(&alice, [1, 2]).await;
    w.pass(Duration::from_secs(1)).await;
    assert_eq!(seen(&alice), [(user(1), PresenceState::Online), (user(2), PresenceState::Offline)]);
    w.source.0.lock().unwrap().contacts = vec![user(2)];
    w.desk.contacts_changed(&alice.user);
    w.pass(Duration::from_secs(1)).await;
    assert_eq!(seen(&alice), [(user(1), PresenceState::Offline), (user(2), PresenceState::Online)]);
    w.desk.leave(&alice);
    w.batch(vec![state(2, 9, Connected::No(None))]).await;
    w.pass(Duration::from_secs(1)).await;
    assert_eq!(seen(&alice), []);
}

#[tokio::test(start_paused = true)]
async fn many_frames_make_the_window_longer() {
    let mut w = World::start();
    w.batch(Vec::new()).await;
    let sessions: Vec<_> = (0..2_000).map(|n| w.session(&format!("w{n}"))).collect();
    for session in &sessions {
        w.watch(session, [1]).await;
    }
    w.pass(Duration::from_secs(3)).await;
    sessions.iter().for_each(|s| drop(frames(s)));
    let mut told = 0;
    for n in 0..20u64 {
        let connected = if n % 2 == 0 { Connected::Yes } else { Connected::No(None) };
        w.batch(vec![state(1, n + 5, connected)]).await;
        sleep(Duration::from_millis(249)).await;
        told += sessions.iter().map(|s| frames(s).len()).sum::<usize>();
    }
    // 5 s: 20 windows of 250 ms would be 40,000 frames.
    assert!((4_000..=12_000).contains(&told), "{told}");
}
