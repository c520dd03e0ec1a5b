//! An edge that may have 256 open files: it says at start what that is enough for, takes so many, answers the others
//! with the documented code, keeps what it needs to reach NATS again, and warns once. Where only the soft limit is that
//! low, it is raised.

use std::{collections::BTreeSet, net::SocketAddr};

use natterjack_protocol::codec::Codec;
use natterjack_testkit::{RawHttp, eventually_within, raw_http::Answer};
use natterjack_tests::kit::{Cluster, ClusterSpec};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::net::TcpStream;

use super::common::SOON;

const KNOCKS: usize = 400;

/// A connection that has asked once and stays.
async fn knock(addr: SocketAddr) -> (RawHttp<TcpStream>, Answer) {
    let mut http = RawHttp::new(TcpStream::connect(addr).await.unwrap());
    http.say("GET /v1/edges HTTP/1.1\r\nHost: edge\r\n\r\n").await;
    let answer = http.answer().await;
    (http, answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_open_files_are_said_kept_for_what_matters_and_refused_beyond() {
    let edge_shell = ["ulimit -n 256", "ulimit -S -n 256"].map(str::to_owned).to_vec();
    let cluster = Cluster::start(ClusterSpec { edge_shell, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let thread = users[0].dm(&users[1]);
    let mut session = cluster.raw(&users[0], 0, Codec::Json).await;

    // At start, in one line.
    let line = |edge: usize| {
        let log = cluster.edge(edge).log();
        let lines: Vec<&str> = log.lines().filter(|l| l.contains("this edge takes") && l.contains("INFO")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        lines[0].to_owned()
    };
    assert!(
        line(0).contains("256 open files") && line(0).contains("OpenFiles") && line(0).contains("INFO"),
        "{}",
        line(0)
    );
    assert!(cluster.edge(1).log().contains("raised from 256"), "{}", line(1));

    let (mut kept, mut refused) = (Vec::new(), 0);
    for _ in 0..KNOCKS {
        let (http, answer) = knock(cluster.edge_addr(0)).await;
        match answer.status {
            200 => kept.push(http),
            status => {
                assert_eq!(
                    (status, answer.code().as_str(), answer.header("retry-after")),
                    (503, "unavailable", Some("5")),
                    "{answer:?}"
                );
                refused += 1;
            }
        }
    }
    assert!(
        kept.len() > 100 && kept.len() < 256 && refused == KNOCKS - kept.len(),
        "{} taken, {refused} refused",
        kept.len()
    );
    assert!(
        line(0).contains(&format!("takes {} connections", kept.len() + 1)),
        "as it said, with the session: {}",
        line(0)
    );
    let open = std::fs::read_dir(format!("/proc/{}/fd", cluster.edge(0).pid())).unwrap().count();
    assert!(open < 230, "{open} open files: no reserve is left");

    // Full as it is, it finds NATS again and stores what its clients send.
    cluster.nats(0).restart().await;
    eventually_within("a send of a full edge is stored", SOON, async || {
        session.send_text(&thread, "full").await.is_ok()
    })
    .await;
    let log = cluster.edge(0).log();
    let warned = log.lines().filter(|l| l.contains("WARN") && l.contains("takes no more connections")).count();
    assert_eq!(warned, 1, "{log}");
    assert!(log.contains("LimitNOFILE"), "what to do: {log}");
    assert!(!log.contains("could not be accepted"), "{log}");

    // Places come back.
    drop(kept);
    eventually_within("there is room again", SOON, async || knock(cluster.edge_addr(0)).await.1.status == 200).await;
    // The other one took all that it was not allowed to at first.
    let mut many = Vec::new();
    for _ in 0..300 {
        let (http, answer) = knock(cluster.edge_addr(1)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        many.push(http);
    }
    none_at_all(&cluster, 1).await;
}

/// Somebody else took the last one: the limit is moved to where the open files end. Whoever waits is answered with the
/// one that was kept.
async fn none_at_all(cluster: &Cluster, edge: usize) {
    let pid = cluster.edge(edge).pid();
    let open: BTreeSet<u64> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    let limit = (0..).find(|n| !open.contains(n)).unwrap();
    let hard = getrlimit(Resource::Nofile).maximum;
    let set = |current| {
        prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, Rlimit { current, maximum: hard }).unwrap()
    };
    let before = set(Some(limit));
    for _ in 0..5 {
        let (_, answer) = knock(cluster.edge_addr(edge)).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{answer:?}");
    }
    set(before.current);
    eventually_within("and it takes connections again", SOON, async || {
        knock(cluster.edge_addr(edge)).await.1.status == 200
    })
    .await;
    let log = cluster.edge(edge).log();
    assert_eq!(log.lines().filter(|l| l.contains("WARN") && l.contains("could not be accepted")).count(), 1, "{log}");
}
