//! Keys of `users` and `groups` that were lost are made again from archive and log: entries below the watermark come
//! from the store, those above from the log.

use natterjack_nats::{Position, Publisher};
use natterjack_persister::store::{ArchiveStore as _, PartitionKey, Row, ThreadBatch};
use natterjack_protocol::{
    Body, Cid, Code, Entry, Kind, MsgId, Thread, UserId,
    internal::rpc::{DirectoryAnswer, DirectoryRequest},
    log::fold::{GroupState, UserThreads, apply_dm, apply_group},
};

use crate::kit::{self, World, cheap, login};

/// What `channel` would have folded, kept beside the log.
struct Log<'a> {
    world: &'a World,
    publisher: Publisher,
    ops: u8,
    /// Every control entry that was appended.
    entries: Vec<(MsgId, Thread, Entry)>,
}

impl<'a> Log<'a> {
    fn new(world: &'a World) -> Self {
        let publisher = Publisher::new(&world.nats, world.layout, world.times.clone());
        Self { world, publisher, ops: 0, entries: Vec::new() }
    }

    async fn append(&mut self, thread: &Thread, from: &UserId, kind: Kind, users: &[&UserId]) -> MsgId {
        self.ops += 1;
        let body =
            Body { users: users.iter().map(|u| (*u).clone()).collect(), name: Some("team".into()), ..Body::default() };
        let entry = Entry::new(from.clone(), Cid::mint(1_800_000_000_000, [self.ops; 10]), kind, body);
        let last = self.entries.iter().rev().find(|(_, t, _)| t == thread).map_or(MsgId::NONE, |e| e.0);
        let stored = self.publisher.control(thread, &format!("op-{}", self.ops), entry.encode(), last).await.unwrap();
        self.entries.push((stored.id, thread.clone(), entry));
        stored.id
    }

    async fn message(&self, thread: &Thread, from: &UserId) {
        let cid = Cid::mint(1_800_000_000_001, [self.ops; 10]);
        let entry = Entry::new(from.clone(), cid, Kind::Text, Body::text("hi"));
        self.publisher.message(thread, &format!("m-{}-{thread}", self.ops), entry.encode()).await.unwrap();
    }

    fn group(&self, thread: &Thread) -> Option<GroupState> {
        let mut group = None;
        for (id, _, e) in self.entries.iter().filter(|(_, t, _)| t == thread) {
            apply_group(&mut group, *id, e);
        }
        group
    }

    fn threads(&self, user: &UserId) -> UserThreads {
        let mut threads = UserThreads::default();
        for (id, thread, entry) in &self.entries {
            match thread {
                Thread::Dm { .. } if thread.peer(user).is_some() => {
                    if let Some(item) = apply_dm(threads.threads.get(thread), user, *id, entry) {
                        threads.merge(thread, item);
                    }
                }
                Thread::Dm { .. } => {}
                Thread::Group { .. } => {
                    if let Some(item) = self.group(thread).and_then(|g| g.item(user)) {
                        threads.merge(thread, item);
                    }
                }
            }
        }
        threads
    }

    /// What the persister does with everything so far; the watermarks move to the log's ends.
    async fn archive(&self) {
        let mut seen: Vec<&Thread> = self.entries.iter().map(|e| &e.1).collect();
        seen.sort();
        seen.dedup();
        for thread in seen {
            let of = self.entries.iter().filter(|(_, t, _)| t == thread);
            let rows = of.map(|(id, t, e)| Row::from_log(t, *id, 1, true, &e.encode())).collect();
            let group = self.group(thread);
            let users: Vec<UserId> = match &group {
                Some(g) => g.members.keys().cloned().collect(),
                None => thread.dm_users().cloned().collect(),
            };
            let items =
                users.into_iter().filter_map(|u| self.threads(&u).threads.remove(thread).map(|i| (u, i))).collect();
            self.world.store.append(ThreadBatch { thread: thread.clone(), rows, group, items }).await.unwrap();
        }
        let tail = natterjack_nats::LeaderReader::new(&self.world.nats, self.world.layout);
        for p in 0..self.world.layout.partitions {
            let key = PartitionKey { generation: self.world.layout.generation, partition: p };
            let bounds = tail.bounds(p).await.unwrap();
            if bounds.first <= bounds.last {
                self.world.store.advance(key, Position { id: bounds.last, ts: 1 }).await.unwrap();
            }
        }
    }
}

async fn rebuilt(world: &World, user: &UserId) -> UserThreads {
    let answer = world.ask(&DirectoryRequest::RebuildThreads { user: user.clone() }).await;
    assert!(matches!(answer, Ok(DirectoryAnswer::Done)));
    world.buckets().threads(user).load().await.unwrap().expect("it is there again")
}

async fn lose(world: &World, users: &[&UserId]) {
    for user in users {
        world.buckets().threads(user).delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_built_from_archive_and_log() {
    let world = World::new(cheap()).await;
    let (a, b, c) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let (dm, notes) = (Thread::dm(&a, &b), Thread::dm(&a, &a));
    let (gid, other) = (UserId::parse("g1").unwrap(), UserId::parse("g2").unwrap());
    let (group, group2) = (Thread::group(&gid), Thread::group(&other));
    let mut log = Log::new(&world);
    log.append(&dm, &a, Kind::DmStarted, &[]).await;
    log.append(&group, &a, Kind::GroupCreated, &[&b, &c]).await;
    log.message(&group, &a).await;
    log.append(&group, &a, Kind::MemberRemoved, &[&b]).await;
    log.archive().await;
    // Above the watermark: a block, joining again, a role, a group that the archive has never heard of.
    log.append(&dm, &b, Kind::Blocked, &[]).await;
    log.append(&notes, &a, Kind::DmStarted, &[]).await;
    log.append(&group, &a, Kind::MemberAdded, &[&b]).await;
    log.message(&dm, &a).await;
    log.append(&group2, &c, Kind::GroupCreated, &[&a]).await;
    log.append(&group, &c, Kind::MemberLeft, &[]).await;
    log.message(&group, &a).await;

    lose(&world, &[&a, &b, &c]).await;
    for user in [&a, &b, &c] {
        let threads = rebuilt(&world, user).await;
        let expected = log.threads(user);
        assert_eq!(threads.threads.keys().collect::<Vec<_>>(), expected.threads.keys().collect::<Vec<_>>());
        for (thread, item) in &expected.threads {
            let got = &threads.threads[thread];
            let (x, y) = (
                (&got.intervals, got.role, got.blocks, got.blocked_by),
                (&item.intervals, item.role, item.blocks, item.blocked_by),
            );
            assert_eq!(x, y, "{thread} of {user}");
        }
    }
    for (gid, thread) in [(&gid, &group), (&other, &group2)] {
        let answer = world.ask(&DirectoryRequest::RebuildGroup { group: gid.clone() }).await;
        assert!(matches!(answer, Ok(DirectoryAnswer::Done)));
        assert_eq!(world.buckets().group(gid).load().await.unwrap(), log.group(thread));
    }
    let nobody = UserId::parse("nobody").unwrap();
    assert_eq!(world.refusal(&DirectoryRequest::RebuildThreads { user: nobody.clone() }).await.code, Code::NotFound);
    assert_eq!(world.refusal(&DirectoryRequest::RebuildGroup { group: nobody }).await.code, Code::NotFound);
    world.end().await;
}

/// `channel` made the key of a group newer, or merged a newer item, in the meantime: the newer one stays.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_and_newer_stays() {
    let world = World::new(cheap()).await;
    let (a, b) = (world.user("alice").await, world.user("bob").await);
    let dm = Thread::dm(&a, &b);
    let mut log = Log::new(&world);
    log.append(&dm, &a, Kind::DmStarted, &[]).await;
    let (mut threads, revision) = world.buckets().threads(&a).root().load_with_revision().await.unwrap().unwrap();
    let mut newer = log.threads(&a).threads.remove(&dm).unwrap();
    newer.v = MsgId(newer.v.0 + 1_000_000);
    newer.blocked_by = true;
    threads.merge(&dm, newer.clone());
    world.buckets().threads(&a).root().compare_and_set(&threads, revision).await.unwrap();
    assert_eq!(rebuilt(&world, &a).await.threads[&dm], newer);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_heals_a_registration_that_a_crash_cut_short() {
    let world = World::new(cheap()).await;
    let a = world.user("alice").await;
    lose(&world, &[&a]).await;
    assert!(!world.buckets().threads(&a).exists().await.unwrap());
    assert!(world.tokens(&login("alice", kit::PASSWORD)).await.is_ok());
    assert!(world.buckets().threads(&a).exists().await.unwrap());
    world.end().await;
}

/// Who is blocked cannot send a contact request either; known from the rebuilt key like from any other.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_blocked_cannot_ask() {
    use natterjack_protocol::client::http::ContactChange;
    let world = World::new(cheap()).await;
    let (a, b) = (world.user("alice").await, world.user("bob").await);
    let mut log = Log::new(&world);
    log.append(&Thread::dm(&a, &b), &a, Kind::DmStarted, &[]).await;
    log.append(&Thread::dm(&a, &b), &b, Kind::Blocked, &[]).await;
    rebuilt(&world, &a).await;
    let request = DirectoryRequest::Contact { actor: a, other: b, change: ContactChange::Request };
    assert_eq!(world.refusal(&request).await.code, Code::Blocked);
    world.end().await;
}

/// `channel` merges into a key that is there and passes by one that is not. Whatever the timing of the two, no entry is
/// lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_folded_while_the_key_is_away_is_not_lost() {
    let world = World::new(cheap()).await;
    let a = world.user("alice").await;
    let mut log = Log::new(&world);
    for round in 0..100u64 {
        let dm = Thread::dm(&a, &UserId::parse(&format!("peer{round}")).unwrap());
        lose(&world, &[&a]).await;
        let rebuild = async {
            let answer = world.ask(&DirectoryRequest::RebuildThreads { user: a.clone() }).await;
            assert!(matches!(answer, Ok(DirectoryAnswer::Done)));
        };
        let channel = async {
            // From before the rebuild reads the log to after it has written the key; a timer is too coarse for that.
            let before = std::time::Instant::now();
            while before.elapsed() < std::time::Duration::from_micros(round * 60) {
                tokio::task::yield_now().await;
            }
            let id = log.append(&dm, &a, Kind::DmStarted, &[]).await;
            let entry = &log.entries.last().unwrap().2;
            // Until it is merged, or the key is not there.
            while let Some((mut threads, revision)) =
                world.buckets().threads(&a).root().load_with_revision().await.unwrap()
            {
                let Some(item) = apply_dm(threads.threads.get(&dm), &a, id, entry) else { break };
                threads.merge(&dm, item);
                if world.buckets().threads(&a).root().compare_and_set(&threads, revision).await.is_ok() {
                    break;
                }
            }
        };
        tokio::join!(rebuild, channel);
        let threads = world.buckets().threads(&a).load().await.unwrap().unwrap();
        assert_eq!(threads.threads.len() as u64, round + 1, "round {round}");
        assert!(threads.threads.contains_key(&dm), "round {round}");
    }
    world.end().await;
}

/// A log that begins above the watermark has lost what would be needed: no guess, and nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_between_archive_and_log_is_no_membership() {
    let world = World::new(cheap()).await;
    let a = world.user("alice").await;
    let mut log = Log::new(&world);
    let thread = Thread::dm(&a, &a);
    log.append(&thread, &a, Kind::DmStarted, &[]).await;
    let key = PartitionKey { generation: world.layout.generation, partition: world.layout.partition(&thread) };
    world.store.advance(key, Position { id: MsgId(5), ts: 1 }).await.unwrap();
    lose(&world, &[&a]).await;
    let refusal = world.refusal(&DirectoryRequest::RebuildThreads { user: a.clone() }).await;
    assert_eq!((refusal.code, refusal.retry_after_ms.is_some()), (Code::Unavailable, true));
    assert!(!world.buckets().threads(&a).exists().await.unwrap());
    assert!(world.tokens(&login("alice", kit::PASSWORD)).await.is_ok(), "a login does not depend on it");
    world.end().await;
}
