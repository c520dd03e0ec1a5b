//! A chat under load over an archive on CQL, and the comparison of all that was acknowledged with all that is archived.

use std::time::{Duration, Instant};

use natterjack_protocol::{MsgId, Thread, Times, codec::Codec};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::{Api, Cassandra, Cluster, ClusterSpec, User};

use crate::{
    people::common::{Insight, all_well},
    watching::{ReadLog, SOON, Traffic, Watcher, assert_log, new_group, slowest},
};

pub const DIVISOR: u32 = 5;
const WRITERS: usize = 4;
/// Of one writer.
const PACE: Duration = Duration::from_millis(8);

/// While a log is young its dedupe map may be empty, and every send asks the archive (P2 before P7).
pub async fn no_longer_young(insight: &Insight) {
    let times = Times::scaled(DIVISOR);
    let young = (times.cid_ahead + times.clock_slack + Duration::from_millis(500)).as_millis();
    for p in 0..insight.layout.partitions {
        eventually_within("the log is old enough", SOON, async || {
            insight.tail.bounds(p).await.is_ok_and(|b| u128::from(b.ts_ms - b.created_ms) > young)
        })
        .await;
    }
}

pub struct Chat {
    pub cluster: Cluster,
    pub insight: Insight,
    pub users: Vec<User>,
    pub group: Thread,
    log: ReadLog,
    traffic: Vec<Traffic>,
    watcher: Watcher,
}

impl Chat {
    /// Two edges, four writers in a group and in conversations of their own, one who reads along. Alone: how soon a
    /// message is shown is asserted.
    pub async fn start(cql: &Cassandra) -> Self {
        let spec = ClusterSpec { alone: true, ..ClusterSpec::default() };
        let cluster = Cluster::start(ClusterSpec { times_divisor: DIVISOR, set: cql.settings(), ..spec }).await;
        let users = cluster.mint_users(WRITERS + 3).await;
        let group = new_group(&cluster.api(&users[0], 0), &users[1..].iter().collect::<Vec<_>>()).await;
        let insight = Insight::of(&cluster).await;
        no_longer_young(&insight).await;
        let watcher = Watcher::attach(&cluster, &users[WRITERS], 1).await;
        let mut traffic = Vec::new();
        for w in 0..WRITERS {
            let codec = if w % 2 == 0 { Codec::Json } else { Codec::Msgpack };
            let ws = cluster.raw(&users[w], w % 2, codec).await;
            let threads = vec![group.clone(), users[w].dm(&users[WRITERS + 1]), users[w].dm(&users[WRITERS])];
            traffic.push(Traffic::start(ws, threads, PACE));
        }
        let log = ReadLog::of(&cluster).await;
        let chat = Self { cluster, insight, users, group, log, traffic, watcher };
        chat.goes_on(30).await;
        chat
    }

    pub fn count(&self) -> usize {
        self.traffic.iter().map(Traffic::count).sum()
    }

    /// Every writer gets so many more acknowledgements.
    pub async fn goes_on(&self, more: usize) {
        for traffic in &self.traffic {
            traffic.goes_on(more, SOON).await;
        }
    }

    /// Under load, for so long; each second every writer must have got on.
    pub async fn lasts(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.goes_on(5).await;
            // A pace.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Somebody who was not there connects, is attached, writes to the group, and is heard.
    pub async fn somebody_comes(&self, edge: usize) {
        let mut late = self.cluster.raw(&self.users[WRITERS + 2], edge, Codec::Json).await;
        let id = late.send_text(&self.group, "here I am").await.unwrap();
        self.watcher.shows("who came late is heard", &self.group, id, SOON).await;
    }

    /// How long until all that the log has now is archived.
    pub async fn catches_up(&self) -> Duration {
        let begun = Instant::now();
        self.insight.archived().await;
        begun.elapsed()
    }

    /// Entries that the persister has written since it started.
    pub async fn archived(&self) -> f64 {
        let (_, text) = Api::new(self.cluster.persister_admin(0), None).get("/metrics").await;
        let lines = text
            .as_str()
            .unwrap_or_default()
            .lines()
            .filter(|l| l.starts_with("natterjack_persister_archived_entries_total"));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Ends the load. Everything acknowledged is in the log, was shown live within `limit`, and is in the archive: a
    /// page takes from the log only what is above the archive's watermark, and that stands at the log's end.
    pub async fn nothing_is_missing(self, limit: Duration) {
        let Self { cluster, insight, users, group, log, traffic, watcher } = self;
        let mut threads = vec![group.clone()];
        for (w, traffic) in traffic.into_iter().enumerate() {
            let own = [users[w].dm(&users[WRITERS + 1]), users[w].dm(&users[WRITERS])];
            let acked = traffic.stop().await;
            for (thread, acked) in &acked {
                let found = log.messages(thread, MsgId::NONE).await;
                assert!(
                    acked.keys().all(|id| found.contains(id)),
                    "an acknowledged message of {thread} is not in the log"
                );
            }
            let late = slowest(&acked[&group], &watcher.messages(&group));
            assert!(late < limit, "shown {late:?} after its acknowledgement");
            threads.extend(own);
        }
        watcher.assert_open();
        watcher.shows_the_log(&log, &group, MsgId::NONE, SOON).await;
        insight.archived().await;
        for thread in &threads {
            let reader = if *thread == group {
                &users[0]
            } else {
                users.iter().find(|u| thread.to_string().contains(u.id().as_str())).unwrap()
            };
            let pages = whole(&cluster.api(reader, 0), thread, false).await;
            let ids: Vec<MsgId> = pages.iter().filter(|e| !e.kind.is_control()).map(|e| e.id).collect();
            assert_log(thread, &ids, &log.messages(thread, MsgId::NONE).await);
        }
        all_well(&cluster);
    }
}
