//! The loop with paused time, over a world that is a few values in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use natterjack_protocol::internal::presence::Connected;
use tokio::{sync::mpsc, time::sleep};

use super::*;

const LEASE: Duration = Duration::from_secs(10);
const REFRESH: Duration = Duration::from_secs(3);
const SERVER: u64 = 1_000_000;

type Keys = BTreeMap<UserId, (UserSessions, u64)>;

/// What stands in KV, and who answers.
#[derive(Default)]
struct Outside {
    keys: Keys,
    revision: u64,
    answering: Vec<EdgeRun>,
    kv_is_away: bool,
    pings: Vec<EdgeRun>,
    sweeps: usize,
    said: Vec<(Duration, PresenceBatch)>,
}

#[derive(Clone)]
struct Fake {
    outside: Arc<Mutex<Outside>>,
    hear: mpsc::Sender<Heard>,
    began: Instant,
}

struct FakeWorld {
    fake: Fake,
    heard: mpsc::Receiver<Heard>,
}

impl Fake {
    fn start(shards: usize) -> (Self, Vec<FakeWorld>) {
        // One channel for each instance; only the first one's is kept by hand, the others hear the same.
        let outside = Arc::<Mutex<Outside>>::default();
        let began = Instant::now();
        let worlds: Vec<FakeWorld> = (0..shards)
            .map(|_| {
                let (hear, heard) = mpsc::channel(100_000);
                FakeWorld { fake: Self { outside: outside.clone(), hear, began }, heard }
            })
            .collect();
        (worlds[0].fake.clone(), worlds)
    }

    fn now_ms(&self) -> u64 {
        SERVER + self.began.elapsed().as_millis() as u64
    }

    fn hear(&self, heard: Heard) {
        self.hear.try_send(heard).unwrap();
    }

    fn write(&self, user: &UserId, sessions: UserSessions) -> Heard {
        let mut outside = self.outside.lock().unwrap();
        outside.revision += 1;
        let revision = outside.revision;
        outside.keys.insert(user.clone(), (sessions.clone(), revision));
        Heard::Sessions { user: user.clone(), sessions: Some(sessions), revision }
    }

    /// Every user's newest state, by what was said.
    fn heard_by_edges(&self) -> BTreeMap<UserId, Connected> {
        let outside = self.outside.lock().unwrap();
        let users = outside.said.iter().flat_map(|(_, batch)| &batch.users);
        users.map(|u| (u.user.clone(), u.connected)).collect()
    }

    fn said<T>(&self, of: impl Fn(&[(Duration, PresenceBatch)]) -> T) -> T {
        of(&self.outside.lock().unwrap().said)
    }
}

impl ShardWorld for FakeWorld {
    fn now(&self) -> Moment {
        Moment { server: self.fake.now_ms(), monotonic: self.fake.began.elapsed().as_millis() as u64 }
    }

    async fn heard(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }

    async fn publish(&mut self, batch: &PresenceBatch) {
        self.fake.outside.lock().unwrap().said.push((self.fake.began.elapsed(), batch.clone()));
    }

    fn ping(&self, run: EdgeRun) -> impl Future<Output = bool> + Send + 'static {
        let outside = self.fake.outside.clone();
        async move {
            sleep(Duration::from_millis(500)).await;
            let mut outside = outside.lock().unwrap();
            outside.pings.push(run.clone());
            outside.answering.contains(&run)
        }
    }

    fn sweep(&self, user: UserId, run: EdgeRun, since: u64) -> impl Future<Output = Swept> + Send + 'static {
        let fake = self.fake.clone();
        async move {
            sleep(Duration::from_millis(2)).await;
            let swept = {
                let mut outside = fake.outside.lock().unwrap();
                outside.sweeps += 1;
                if outside.kv_is_away {
                    return Swept::Failed;
                }
                let Some((sessions, _)) = outside.keys.get(&user) else { return Swept::Gone };
                let mut sessions = sessions.clone();
                sessions.runs.retain(|r| *r != run);
                sessions.left = sessions.left.max(Some(since));
                sessions
            };
            fake.hear(fake.write(&user, swept));
            Swept::Yes
        }
    }
}

fn user(n: u32) -> UserId {
    UserId::parse(&format!("u{n}")).unwrap()
}

fn run(edge: u8) -> EdgeRun {
    EdgeRun { edge: Token::parse(&format!("e{edge}")).unwrap(), incarnation: "1".into() }
}

fn here(edge: u8) -> UserSessions {
    UserSessions { runs: vec![run(edge)], left: None }
}

fn shard(world: FakeWorld) -> Shard<FakeWorld> {
    Shard::new(0, world, ShardTable::new(0, REFRESH))
}

/// Two edges with leases, users 0..n at the second, all read.
fn stand(fake: &Fake, users: u32) {
    for edge in 0..2 {
        fake.hear(Heard::Lease { run: run(edge), in_bucket: true });
    }
    for n in 0..users {
        fake.hear(fake.write(&user(n), here(1)));
    }
    fake.hear(Heard::AllRead);
}

/// The first edge goes on writing its lease.
async fn refresh(fake: Fake) {
    loop {
        sleep(REFRESH).await;
        fake.hear(Heard::Lease { run: run(0), in_bucket: true });
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_of_a_dead_edge_is_offline_soon_and_swept() {
    let (fake, mut worlds) = Fake::start(1);
    stand(&fake, 5_000);
    let outside = async {
        sleep(LEASE).await;
        fake.hear(Heard::LeaseGone { edge: run(1).edge });
        sleep(REFRESH + Duration::from_secs(1)).await;
        let offline = fake.heard_by_edges();
        assert_eq!(offline.len(), 5_000);
        assert!(offline.values().all(|c| *c == Connected::No(Some(SERVER))), "since the edge's last lease");
        let batches = fake.said(|said| said.iter().filter(|(_, b)| !b.users.is_empty()).count());
        assert_eq!(batches, 3, "they are told together");
        sleep(Duration::from_secs(2)).await;
        let outside = fake.outside.lock().unwrap();
        assert!(outside.keys.values().all(|(s, _)| s.runs.is_empty()));
        assert_eq!(outside.pings, [run(1)]);
    };
    tokio::select! {
        lost = shard(worlds.remove(0)).run(|| ()) => panic!("{lost:?}"),
        () = refresh(fake.clone()) => {}
        () = outside => {}
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_swept_while_kv_is_sick_or_the_edge_answers() {
    let (fake, mut worlds) = Fake::start(1);
    stand(&fake, 10);
    fake.outside.lock().unwrap().answering = vec![run(1)];
    let outside = async {
        // No lease is written any more, by anybody; then all expire.
        sleep(LEASE).await;
        fake.hear(Heard::LeaseGone { edge: run(1).edge });
        sleep(LEASE).await;
        assert_eq!(fake.outside.lock().unwrap().pings, [], "the other lease was not refreshed since");
        fake.hear(Heard::LeaseGone { edge: run(0).edge });
        sleep(LEASE).await;
        assert!(fake.outside.lock().unwrap().pings.len() >= 3, "without any lease the pings decide, again and again");
        assert_eq!((fake.heard_by_edges().len(), fake.outside.lock().unwrap().sweeps), (0, 0));
        // It lives again, and nothing ever happened.
        fake.hear(Heard::Lease { run: run(1), in_bucket: true });
        sleep(LEASE).await;
        assert_eq!(fake.heard_by_edges().len(), 0);
    };
    tokio::select! {
        lost = shard(worlds.remove(0)).run(|| ()) => panic!("{lost:?}"),
        () = outside => {}
    }
}

#[tokio::test(start_paused = true)]
async fn two_instances_sweep_the_same_edge_and_one_ends_in_the_middle() {
    let (fake, mut worlds) = Fake::start(2);
    let (second, first) = (worlds.pop().unwrap(), worlds.pop().unwrap());
    let other = second.fake.clone();
    let all = |heard: &dyn Fn() -> Heard| {
        fake.hear(heard());
        other.hear(heard());
    };
    for edge in 0..2 {
        all(&|| Heard::Lease { run: run(edge), in_bucket: true });
    }
    for n in 0..2_000 {
        let revision = match fake.write(&user(n), here(1)) {
            Heard::Sessions { revision, .. } => revision,
            _ => unreachable!(),
        };
        all(&|| Heard::Sessions { user: user(n), sessions: Some(here(1)), revision });
    }
    all(&|| Heard::AllRead);
    let outside = async {
        sleep(LEASE).await;
        all(&|| Heard::LeaseGone { edge: run(1).edge });
        all(&|| Heard::Lease { run: run(0), in_bucket: true });
        let swept = || fake.outside.lock().unwrap().keys.values().filter(|(s, _)| s.runs.is_empty()).count();
        // Until the pings have decided, which is not what is tested here.
        for _ in 0..5_000 {
            if swept() > 0 {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let swept = swept();
        assert!(swept > 0 && swept < 2_000, "in the middle: {swept}");
    };
    let mut second = Box::pin(shard(second).run(|| ()));
    tokio::select! {
        _ = shard(first).run(|| ()) => {}
        _ = &mut second => {}
        () = outside => {}
    }
    let rest = async {
        sleep(Duration::from_secs(3)).await;
        assert!(fake.outside.lock().unwrap().keys.values().all(|(s, _)| s.runs.is_empty()));
        assert!(fake.heard_by_edges().values().all(|c| *c == Connected::No(Some(SERVER))));
    };
    tokio::select! {
        _ = second => {}
        () = rest => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_without_a_leader_is_swept_later() {
    let (fake, mut worlds) = Fake::start(1);
    stand(&fake, 300);
    fake.outside.lock().unwrap().kv_is_away = true;
    let outside = async {
        sleep(LEASE).await;
        fake.hear(Heard::LeaseGone { edge: run(1).edge });
        sleep(Duration::from_secs(14)).await;
        let attempts = fake.outside.lock().unwrap().sweeps;
        assert!((SWEEPS..SWEEPS * 25).contains(&attempts), "it does not press: {attempts}");
        assert_eq!(fake.heard_by_edges().len(), 300, "they are offline all the same");
        fake.outside.lock().unwrap().kv_is_away = false;
        sleep(Duration::from_secs(3)).await;
        assert!(fake.outside.lock().unwrap().keys.values().all(|(s, _)| s.runs.is_empty()));
    };
    tokio::select! {
        _ = shard(worlds.remove(0)).run(|| ()) => {}
        () = refresh(fake.clone()) => {}
        () = outside => {}
    }
}

#[tokio::test(start_paused = true)]
async fn batches_have_100_ms_between_them_and_a_beat_comes_each_second() {
    let (fake, mut worlds) = Fake::start(1);
    stand(&fake, 0);
    let outside = async {
        for n in 0..1_000 {
            fake.hear(fake.write(&user(n), here(0)));
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(5_500)).await;
    };
    tokio::select! {
        _ = shard(worlds.remove(0)).run(|| ()) => {}
        () = outside => {}
    }
    fake.said(|said| {
        let batches: Vec<&(Duration, PresenceBatch)> = said.iter().filter(|(_, b)| !b.users.is_empty()).collect();
        assert_eq!(batches.iter().map(|(_, b)| b.users.len()).sum::<usize>(), 1_000);
        assert!((9..=11).contains(&batches.len()), "{}", batches.len());
        assert!(batches.windows(2).all(|w| w[1].0 - w[0].0 >= BATCH && w[1].1.seq == w[0].1.seq + 1));
        let last = said.last().unwrap();
        assert_eq!((last.1.users.len(), last.1.seq), (0, batches.len() as u64), "a beat says how many there were");
        assert!(said.windows(2).all(|w| w[1].0 - w[0].0 <= BEAT + Duration::from_millis(20)), "it is never silent");
    });
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_answered_once_all_was_read_with_all_that_was_said() {
    let (fake, mut worlds) = Fake::start(1);
    let ask = |n| {
        let (reply, answer) = oneshot::channel();
        fake.hear(Heard::Asked(Asked { users: vec![user(n), user(99)], reply }));
        answer
    };
    let outside = async {
        assert!(ask(1).await.is_err(), "nothing was read yet");
        fake.hear(Heard::Lease { run: run(0), in_bucket: false });
        fake.hear(fake.write(&user(1), here(0)));
        fake.hear(Heard::AllRead);
        let first = ask(1).await.unwrap();
        let states = |a: &PresenceAnswer| a.users.iter().map(|u| u.connected).collect::<Vec<_>>();
        assert_eq!(states(&first), [Connected::Yes, Connected::Unknown], "an edge has yet to put its sessions");
        fake.hear(Heard::Lease { run: run(0), in_bucket: true });
        let second = ask(1).await.unwrap();
        assert_eq!(states(&second), [Connected::Yes, Connected::No(None)]);
        assert_ne!(first.epoch, second.epoch, "everybody has to ask again");
        fake.hear(Heard::BucketLost);
    };
    let (lost, ()) = tokio::join!(shard(worlds.remove(0)).run(|| ()), outside);
    assert_eq!(lost, BucketLost);
}
