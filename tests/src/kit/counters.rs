//! What processes count, and waiting for it: how a test knows that something has begun which nobody answers yet.

use natterjack_nats::{KvBuckets, Layout, Positions};
use natterjack_protocol::{MsgId, Thread, codec::Codec};
use natterjack_testkit::eventually_within;

use super::{Cluster, User, witness::SOON};

/// A counter of an edge, summed over its labels.
pub async fn counter(cluster: &Cluster, edge: usize, name: &str) -> f64 {
    sum_of(&cluster.edge_metrics(edge).await, name)
}

/// A metric in a Prometheus text, summed over its labels.
pub fn sum_of(text: &str, name: &str) -> f64 {
    text.lines().filter(|l| l.starts_with(name)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How often an edge asked history for a cid.
pub const LOOKUPS: &str = "natterjack_edge_cid_lookups_total";

/// How many polls an edge has begun.
pub const POLLS: &str = "natterjack_edge_long_polls_total";

/// How many frames an edge has read from its sockets.
pub const FRAMES_IN: &str = "natterjack_edge_frames_in_total";

/// Until a counter of an edge is above this.
pub async fn counted(cluster: &Cluster, edge: usize, name: &str, above: f64) {
    eventually_within(&format!("{name} is above {above}"), SOON, async || {
        let n = counter(cluster, edge, name).await;
        if n > above { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
}

/// How many messages an edge has published in batches.
pub const BATCHED: &str = "natterjack_edge_sends_batched_total";

/// Until the archive has everything up to these.
pub async fn archived(cluster: &Cluster, ends: &[(Thread, MsgId)]) {
    let nats = cluster.connect_nats().await;
    eventually_within("all is archived", SOON, async || {
        let Ok(layout) = Layout::load(&nats).await else { return false };
        let positions = Positions::new(&KvBuckets::new(&nats, layout), "persister");
        for (thread, end) in ends {
            if !positions.load(layout.partition(thread)).await.is_ok_and(|at| at.is_some_and(|at| at.id >= *end)) {
                return false;
            }
        }
        true
    })
    .await;
}

/// A stream younger than the slack takes every cid for old: wait until the direct path is open, so that the tests are
/// about it.
pub async fn until_the_direct_path_is_open(cluster: &Cluster, user: &User) {
    let notes = user.dm(user);
    let mut ws = cluster.raw(user, 0, Codec::Json).await;
    eventually_within("a send without a lookup", SOON, async || {
        let before = counter(cluster, 0, LOOKUPS).await;
        ws.send_text(&notes, "x").await.map_err(|e| e.to_string())?;
        let after = counter(cluster, 0, LOOKUPS).await;
        if after > before { Err("looked up".to_owned()) } else { Ok(()) }
    })
    .await;
}
