//! protocol/conformance, run against a real edge: every case on both codecs.
#![allow(clippy::unwrap_used, reason = "tests: a panic with its place is the report")]

mod case;
mod pattern;
mod run;
mod scope;
mod template;
#[path = "../../../protocol/tests/contract/tree.rs"]
mod tree;

use futures_util::{StreamExt, stream};
use natterjack_protocol::codec::Codec;
use natterjack_tests::kit::{Cluster, ClusterSpec};

/// Cases at once: most of their time they wait.
const SIDE_BY_SIDE: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_does_what_the_document_says() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let mut all: Vec<(String, case::Case, Codec)> = Vec::new();
    for (file, cases) in case::read_all() {
        for case in cases {
            let codecs = Codec::ALL.into_iter().filter(|c| case.codec.is_none_or(|only| only == *c));
            all.extend(codecs.map(|codec| (format!("{file}: {} ({codec:?})", case.name), case.clone(), codec)));
        }
    }
    assert!(all.len() > 200, "{} cases", all.len());
    let users = cluster.mint_users(all.iter().map(|(_, case, _)| case.users.len()).sum()).await;
    let mut users = users.into_iter();
    let runs: Vec<_> = all
        .into_iter()
        .map(|(name, case, codec)| {
            let people = case.users.iter().cloned().zip(users.by_ref()).collect();
            (name, run::Run::new(&cluster, codec, people), case)
        })
        .collect();
    let failures: Vec<String> = stream::iter(runs)
        .map(|(name, mut run, case)| async move {
            run.steps(&case.steps).await.err().map(|why| format!("{name}\n    {why}"))
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}
