//! A log that lost its end (ADR 11): nats-server is killed and the last of what it wrote is gone, or its folder is put
//! back from an older copy. No id is given twice, what is acknowledged afterwards reaches everybody, also devices whose
//! cursors are beyond the end, and readers are told of what may be missing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use natterjack_nats::{KvBuckets, Layout, Positions, subjects};
use natterjack_protocol::{Cid, Event, Kind, MsgId, Thread, client::frame::HistoryQuery, codec::Codec};
use natterjack_testkit::{eventually_within, now_ms};
use natterjack_tests::kit::{
    Api, Cassandra, Cluster, ClusterSpec, User,
    counters::until_the_direct_path_is_open,
    paging::{ask, page},
    witness::{Reader, SOON, texts},
    writer::{Writer, connect},
};

/// The folder of JetStream.
fn folder(cluster: &Cluster) -> PathBuf {
    cluster.folder().join("nats-0")
}

/// The newest block of every partition ends so many bytes earlier, or is gone with everything if it has no more.
fn cut(cluster: &Cluster, layout: Layout, lost: u64) {
    for p in 0..layout.partitions {
        let msgs =
            folder(cluster).join("jetstream/$G/streams").join(subjects::stream(layout.generation, p)).join("msgs");
        let files = std::fs::read_dir(&msgs).unwrap().map(|f| f.unwrap().path());
        let (blocks, rest): (Vec<_>, Vec<_>) = files.partition(|f| f.extension().is_some_and(|e| e == "blk"));
        let Some(newest) =
            blocks.iter().max_by_key(|f| f.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap())
        else {
            continue;
        };
        let left = newest.metadata().unwrap().len().saturating_sub(lost);
        if left == 0 {
            rest.iter().chain([newest]).for_each(|f| std::fs::remove_file(f).unwrap());
        } else {
            std::fs::File::options().write(true).open(newest).unwrap().set_len(left).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let there = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &there);
        } else {
            std::fs::copy(file.path(), there).unwrap();
        }
    }
}

async fn layout(cluster: &Cluster) -> Layout {
    Layout::load(&cluster.connect_nats().await).await.unwrap()
}

/// Everything that was ever acknowledged, and what of it has to be there for ever.
struct Talk<'a> {
    cluster: &'a Cluster,
    threads: [Thread; 2],
    writer: Writer,
    member: &'a User,
    /// A device that stays connected, or comes back, with its cursors.
    device: Reader,
    /// The newest id of each partition, which is as many as the clusters of these tests have.
    given: BTreeMap<u32, MsgId>,
    said: usize,
}

impl<'a> Talk<'a> {
    async fn begin(cluster: &'a Cluster, users: &'a [User]) -> Self {
        let edges = vec![cluster.edge_addr(0), cluster.edge_addr(1)];
        let threads = [users[0].dm(&users[1]), users[0].dm(&users[2])];
        until_the_direct_path_is_open(cluster, &users[2]).await;
        let device = Reader::start(edges.clone(), &users[1], Codec::Json).await;
        let writer = Writer::new(edges, &users[0], Codec::Msgpack);
        Self { cluster, threads, writer, member: &users[1], device, given: BTreeMap::new(), said: 0 }
    }

    /// So many into each thread; each id is new and above all before.
    async fn say(&mut self, many: usize) -> Vec<(MsgId, String)> {
        let mut told = Vec::new();
        for _ in 0..many {
            let text = format!("m{}", self.said);
            self.said += 1;
            let sends: Vec<_> =
                self.threads.iter().map(|t| (t.clone(), Cid::mint(now_ms(), rand::random()), text.clone())).collect();
            let ids = self.writer.send(&sends).await;
            let before = self.given.clone();
            for (thread, cid, _) in &sends {
                let p = thread.partition(self.cluster.spec().partitions);
                assert!(before.get(&p) < Some(&ids[cid]), "{} may have been given before: {before:?}", ids[cid]);
                let newest = self.given.entry(p).or_default();
                *newest = ids[cid].max(*newest);
            }
            told.push((ids[&sends[0].1], text));
        }
        told
    }

    fn api(&self, edge: usize) -> Api {
        self.cluster.api(self.member, edge)
    }

    async fn is_archived(&self) {
        let nats = self.cluster.connect_nats().await;
        eventually_within("all is archived", SOON, async || {
            let Ok(layout) = Layout::load(&nats).await else { return false };
            let positions = Positions::new(&KvBuckets::new(&nats, layout), "persister");
            for (p, given) in &self.given {
                if !positions.load(*p).await.is_ok_and(|at| at.is_some_and(|at| at.id >= *given)) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// What was acknowledged after the loss came to the device and is in every history.
    async fn holds(&self, what: &str, after: &[(MsgId, String)]) {
        let thread = &self.threads[0];
        eventually_within(&format!("{what}: the device has it live"), SOON, async || {
            let seen = texts(&self.device.of(thread));
            after.iter().all(|m| seen.contains(m))
        })
        .await;
        for edge in 0..2 {
            let api = self.api(edge);
            eventually_within(&format!("{what}: history has it"), SOON, async || {
                let there = texts(&history(&api, thread).await?);
                match after.iter().find(|m| !there.contains(m)) {
                    Some(missing) => Err(format!("{missing:?} is not in {there:?}")),
                    None => Ok(()),
                }
            })
            .await;
        }
        self.device.assert_nothing_wrong(what);
    }

    /// The mark of what may be lost stands before this message.
    async fn is_told(&self, what: &str, before: MsgId) {
        let api = self.api(0);
        eventually_within(&format!("{what}: readers are told"), SOON, async || {
            let events = history(&api, &self.threads[0]).await.unwrap_or_default();
            let mark = events.iter().rev().find(|e| e.kind == Kind::Lost);
            mark.is_some_and(|mark| mark.id < before && mark.body.target.is_some_and(|first| first <= mark.id))
        })
        .await;
    }
}

/// All of it, which is less than a page; none while a part of it cannot be read.
async fn history(api: &Api, thread: &Thread) -> Result<Vec<Event>, String> {
    let page = page(api, thread, "?limit=200").await?;
    if page.holes.is_empty() { Ok(page.events) } else { Err(format!("holes: {:?}", page.holes)) }
}

fn spec() -> ClusterSpec {
    ClusterSpec { times_divisor: 5, ..ClusterSpec::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_cut_off_nothing_is_given_twice_or_passed_by() {
    Box::pin(cut_off(spec(), &[40, 2_500, 1 << 40])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: a CQL server"]
async fn heavy_whatever_is_cut_off_over_a_cql_archive() {
    let cql = Cassandra::one().await;
    Box::pin(cut_off(ClusterSpec { set: cql.settings(), ..spec() }, &[40, 2_500, 1 << 40])).await;
}

/// The roles run on meanwhile; then everything is stopped, the folder is an older copy, and everything starts at once.
async fn cut_off(spec: ClusterSpec, lengths: &[u64]) {
    let cluster = Cluster::start(spec).await;
    let users = cluster.mint_users(3).await;
    let mut talk = Talk::begin(&cluster, &users).await;
    let mut now = layout(&cluster).await;
    for lost in lengths {
        let what = format!("{lost} bytes are gone");
        let before = talk.say(12).await;
        talk.device.wait_for(&what, &talk.threads[0].clone(), talk.said).await;
        cluster.nats(0).kill9().await;
        cut(&cluster, now, *lost);
        cluster.nats(0).start().await;
        // At once: whoever has an acknowledgement from here on is believed.
        let after = talk.say(5).await;
        let new = layout(&cluster).await;
        assert!(new.generation > now.generation, "{what}: {new:?}");
        assert!(after[0].0 > before[11].0, "{what}");
        talk.holds(&what, &after).await;
        talk.is_told(&what, after[0].0).await;
        now = new;
        talk.is_archived().await;
    }
    let older = cluster.folder().join("older");
    cluster.nats(0).kill9().await;
    copy(&folder(&cluster), &older);
    cluster.nats(0).start().await;
    let before = talk.say(8).await;
    talk.device.wait_for("before the copy", &talk.threads[0].clone(), talk.said).await;
    talk.is_archived().await;
    for role in [cluster.channel(0), cluster.persister(0), cluster.nats(0)] {
        role.kill9().await;
    }
    std::fs::remove_dir_all(folder(&cluster)).unwrap();
    copy(&older, &folder(&cluster));
    cluster.nats(0).start().await;
    for role in [cluster.persister(0), cluster.channel(0)] {
        role.start().await;
    }
    eventually_within("a new generation", SOON, async || layout(&cluster).await.generation > now.generation).await;
    let after = talk.say(5).await;
    talk.holds("an older copy", &after).await;
    talk.holds("what was archived stays", &before).await;
    // Without a reason nothing changes, and an operator may have their way.
    let now = layout(&cluster).await;
    talk.is_archived().await;
    eventually_within("provision --new-generation", SOON, async || cluster.new_generation().await).await;
    let last = talk.say(2).await;
    assert_eq!(layout(&cluster).await.generation, now.generation + 1);
    talk.holds("a new generation by hand", &last).await;
    // A device that comes only now, and one that asks over its socket.
    let thread = talk.threads[0].clone();
    let marks = |events: &[Event]| {
        events.iter().filter(|e| e.kind == Kind::Lost).map(|e| (e.body.target, e.id)).collect::<Vec<_>>()
    };
    let there = marks(&history(&talk.api(1), &thread).await.unwrap());
    assert!(there.len() >= lengths.len(), "{there:?}");
    let [comes_late, asks] = ["d-late", "d-asks"].map(|device| cluster.other_device(&users[1], device));
    let late = Reader::start(vec![cluster.edge_addr(1)], &comes_late, Codec::Json).await;
    let seen = async || marks(&late.of(&thread)).last() == there.last();
    eventually_within("what a device missed says it too", SOON, seen).await;
    let mut ws = connect(cluster.edge_addr(0), &asks, Codec::Msgpack, BTreeMap::new()).await.unwrap();
    let asked = HistoryQuery { thread: Some(thread), limit: Some(200), ..HistoryQuery::default() };
    assert_eq!(marks(&ask(&mut ws, asked).await.unwrap().events), there);
    let (report, _) = cluster.doctor().await;
    for words in ["messages may be lost for ever", "every partition has what was read of it"] {
        assert!(report.contains(words), "{words}: {report}");
    }
}
