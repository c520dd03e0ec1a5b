//! No two clocks are compared: whatever a machine takes for the time, logins work, tokens live as long as they say, a
//! message is stored once and has one time; and whoever's clock is wrong says so. All others moved by as much the other
//! way is NATS moved by it.

use std::time::Duration;

use natterjack_protocol::{Thread, client::frame::ServerFrame, codec::Codec};
use natterjack_testkit::{eventually_within, programs};
use natterjack_tests::kit::{Cluster, ClusterSpec, User, counters::sum_of, paging::page};
use serde_json::{Value, json};

const HOURS: i64 = 2 * 3_600_000;
const SOON: Duration = Duration::from_secs(20);

/// Everything that hangs on a time: a login, its token at both edges, a renewal whose answer was lost, a message and
/// its repetition.
async fn all_is_well(cluster: &Cluster, bob: &User, what: &str) -> (Thread, u64, u64) {
    let alice = cluster.user("alice").await;
    for edge in 0..2 {
        let (status, body) = cluster.api(&alice, edge).get("/v1/threads").await;
        assert_eq!(status, 200, "{what}: a fresh token at edge {edge}: {body}");
    }
    let old = json!({ "refresh": alice.tokens.refresh });
    let mut next: Vec<Value> = Vec::new();
    // Both persisters answer, one or the other.
    for attempt in 0..6 {
        let (status, body) = cluster.anonymous(attempt % 2).post("/v1/refresh", &old).await;
        assert_eq!(status, 200, "{what}: renewed: {body}");
        assert_eq!(body["expires_in"], 3_600, "{what}");
        next.push(body);
    }
    assert!(next.iter().all(|n| n["refresh"] == next[0]["refresh"]), "{what}: the same next one");
    let renewed = cluster.anonymous(0).with_token(next[5]["access"].as_str().unwrap());
    assert_eq!(renewed.get("/v1/threads").await.0, 200, "{what}: the renewed token");

    let thread = alice.dm(bob);
    let mut live = cluster.raw(bob, 1, Codec::Msgpack).await;
    let second = alice.log_in(cluster, 1).await;
    let (mut a, mut b) = (cluster.raw(&alice, 0, Codec::Json).await, cluster.raw(&second, 1, Codec::Msgpack).await);
    let cid = a.cid();
    let id = a.send_cid(&thread, cid, what).await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
    assert_eq!(b.send_cid(&thread, cid, what).await, Ok(id), "{what}: sent again");
    let ts = live
        .until("the message", |f| match f {
            ServerFrame::Event(e) if e.id == id => Some(e.ts),
            _ => None,
        })
        .await;
    (thread, id.0, ts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_machine_takes_for_the_time() {
    let cluster = Cluster::start(ClusterSpec { persisters: 2, ..ClusterSpec::default() }).await;
    let bob = cluster.user("bob").await;
    let all = ["edge-0", "edge-1", "channel-0", "persister-0", "persister-1"];
    let set = |who: &[&str], ms: i64| who.iter().for_each(|name| cluster.set_clock(name, ms));
    let mut said = vec![all_is_well(&cluster, &bob, "as it is").await];
    let cells: [&[&str]; 5] = [&all[..1], &all[2..3], &all[3..4], &all[3..], &all[..]];
    for who in cells {
        for ms in [HOURS, -HOURS] {
            set(who, ms);
            said.push(all_is_well(&cluster, &bob, &format!("{who:?} {ms} ms ahead")).await);
        }
        set(who, 0);
    }
    // One that was started with a wrong clock, and one that drifts by a minute each second.
    set(&["edge-1", "persister-0"], HOURS);
    set(&["persister-1"], -HOURS);
    for process in [cluster.edge(1), cluster.persister(0), cluster.persister(1)] {
        process.restart().await;
    }
    said.push(all_is_well(&cluster, &bob, "started with wrong clocks").await);
    for minute in 0..5 {
        set(&all, minute * 60_000);
        said.push(all_is_well(&cluster, &bob, "drifting").await);
    }
    set(&all, 0);
    said.push(all_is_well(&cluster, &bob, "right again").await);

    // One event has one time on every way, and is found by it.
    let api = cluster.api(&bob, 0);
    for (thread, id, ts) in said {
        let found =
            eventually_within("the page", SOON, async || page(&api, &thread, &format!("?at={ts}&limit=2")).await).await;
        // The conversation may have begun in the same millisecond.
        let found: Vec<_> = found.events.iter().map(|e| (e.id.0, e.ts)).collect();
        assert!(found[0].1 == ts && found.contains(&(id, ts)), "{thread}: {found:?}, not {id} at {ts}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_clock_is_wrong_says_so() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let (processes, words) =
        ([cluster.edge(0), cluster.channel(0), cluster.persister(0)], "this machine's clock is 7200 s behind");
    processes.iter().for_each(|p| cluster.set_clock(p.name(), -HOURS));
    for process in processes {
        eventually_within(&format!("{} says it", process.name()), SOON, async || {
            let log = process.log();
            let line = log.lines().find(|l| l.contains(words)).ok_or_else(|| "not yet".to_owned())?;
            if line.contains("ERROR") && line.contains("run a time service") { Ok(()) } else { Err(line.to_owned()) }
        })
        .await;
    }
    let metrics =
        reqwest::get(format!("http://{}/metrics", cluster.persister_admin(0))).await.unwrap().text().await.unwrap();
    let ahead = sum_of(&metrics, "natterjack_clock_ahead_seconds{clock=\"own\"}");
    assert!((-7_205.0..-7_195.0).contains(&ahead), "{ahead}");
    processes.iter().for_each(|p| cluster.set_clock(p.name(), 0));

    let doctor = async |ms: i64| {
        cluster.set_clock("doctor", ms);
        let mut command = tokio::process::Command::new(programs::natterjack());
        command.arg("doctor").arg("--set").arg(format!("nats.urls={}", cluster.nats_url(0)));
        let out = command.env(Cluster::CLOCK, cluster.clock("doctor")).output().await.unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    for (ms, wanted) in [
        (0, "ok    clocks: this machine and every nats-server that leads the log are within"),
        (HOURS, "FAIL  clocks: this machine's clock is 7200 s ahead of the server's time"),
        (-HOURS, "FAIL  clocks: this machine's clock is 7200 s behind the server's time"),
    ] {
        let report = doctor(ms).await;
        assert!(report.contains(wanted), "{report}");
        assert_eq!(ms != 0, report.contains("run a time service"), "{report}");
    }
}
