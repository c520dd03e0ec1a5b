//! Everything is gone, and comes back from a copy that was made while people wrote: what was acknowledged before the
//! copy was begun is there under its id, nothing is there twice, and whoever goes on is given no id again.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Instant,
};

use natterjack_protocol::{Cid, MsgId, Thread, codec::Codec};
use natterjack_testkit::{eventually_within, now_ms};
use natterjack_tests::kit::{
    Cluster, ClusterSpec, User,
    counters::until_the_direct_path_is_open,
    paging::whole,
    witness::{Reader, SOON, assert_once_and_in_order, group, texts},
    writer::Writer,
};
use tokio::sync::watch;

struct Sent {
    at: Instant,
    cid: Cid,
    text: String,
    id: MsgId,
}

type Log = HashMap<Thread, Vec<Sent>>;

/// A few at a time until told to stop; when each was acknowledged.
async fn write(edges: Vec<SocketAddr>, user: User, threads: Vec<Thread>, stop: watch::Receiver<bool>) -> Log {
    let (mut writer, mut log) = (Writer::new(edges, &user, Codec::Msgpack), Log::new());
    for n in 0.. {
        if *stop.borrow() {
            break;
        }
        let thread = &threads[n % threads.len()];
        let sends: Vec<_> = (0..4)
            .map(|m| (thread.clone(), Cid::mint(now_ms(), rand::random()), format!("{} {n}.{m}", user.name)))
            .collect();
        let ids = writer.send(&sends).await;
        let at = Instant::now();
        let sent = sends.into_iter().map(|(_, cid, text)| Sent { at, cid, text, id: ids[&cid] });
        log.entry(thread.clone()).or_default().extend(sent);
    }
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_load_is_a_whole_system() {
    let cluster = Cluster::start(ClusterSpec { times_divisor: 5, ..ClusterSpec::default() }).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let team = group(&cluster, &[&alice, &bob, &carol]).await;
    until_the_direct_path_is_open(&cluster, &carol).await;
    let edges = vec![cluster.edge_addr(0), cluster.edge_addr(1)];
    let reader = Reader::start(edges.clone(), &carol, Codec::Json).await;
    let (tell, told) = watch::channel(false);
    let writers = [(&alice, &bob), (&bob, &alice)].map(|(user, other)| {
        tokio::spawn(write(edges.clone(), user.clone(), vec![team.clone(), user.dm(other)], told.clone()))
    });

    reader.wait_for("they write", &team, 40).await;
    // So that the log has something above the archive, for sure.
    cluster.persister(0).stop();
    let seen = reader.of(&team).len();
    reader.wait_for("they write on", &team, seen + 24).await;
    let (begun, folder) = (Instant::now(), cluster.folder().join("backup"));
    let args = [folder.display().to_string()];
    let said = cluster.run("backup", &args).await.unwrap();
    cluster.persister(0).cont();
    assert!(!said.contains(" 0 entries above the archive"), "{said}");
    let seen = reader.of(&team).len();
    reader.wait_for("and on", &team, seen + 24).await;
    tell.send_replace(true);
    let mut sent = Log::new();
    for writer in writers {
        writer.await.unwrap().into_iter().for_each(|(thread, all)| sent.entry(thread).or_default().extend(all));
    }
    let refused = cluster.run("restore", &args).await.unwrap_err();
    assert!(refused.contains("not empty"), "{refused}");

    for process in cluster.processes() {
        process.kill9().await;
    }
    cluster.wipe();
    cluster.nats(0).start().await;
    let said = cluster.run("restore", &args).await.unwrap();
    assert!(said.contains("generation 2"), "{said}");
    for role in cluster.processes().filter(|p| p.name() != cluster.nats(0).name()) {
        role.start().await;
    }

    // What was there before the copy is there as it was; of what came later each is there or is not.
    let highest = sent.values().flatten().map(|s| s.id).max().unwrap();
    let api = cluster.api(&alice, 0);
    let mut lost = HashSet::new();
    for (thread, all) in &sent {
        let events = eventually_within("the thread is there", SOON, async || {
            Some(whole(&api, thread, true).await).filter(|e| !e.is_empty())
        })
        .await;
        assert_once_and_in_order("restored", &events);
        assert_eq!(whole(&api, thread, false).await, events, "downwards as upwards");
        let there: HashMap<MsgId, String> = texts(&events).into_iter().collect();
        let known: HashMap<MsgId, &str> = all.iter().map(|s| (s.id, s.text.as_str())).collect();
        for s in all {
            match there.get(&s.id) {
                Some(text) => assert_eq!(*text, s.text),
                None => assert!(
                    s.at > begun && lost.insert(s.cid),
                    "{} was acknowledged before the copy, under {}",
                    s.text,
                    s.id
                ),
            }
        }
        assert!(there.iter().all(|(id, text)| known.get(id) == Some(&text.as_str())), "{there:?}");
    }
    assert!(!lost.is_empty(), "what came after the copy is lost, or this test shows nothing");

    // Everybody sends everything again: what is there keeps its id, what was lost gets a new one.
    for (user, other) in [(&alice, &bob), (&bob, &alice)] {
        for thread in [team.clone(), user.dm(other)] {
            let mine: Vec<&Sent> =
                sent[&thread].iter().filter(|s| s.text.starts_with(&format!("{} ", user.name))).collect();
            let again: Vec<_> = mine.iter().map(|s| (thread.clone(), s.cid, s.text.clone())).collect();
            let ids = Writer::new(edges.clone(), user, Codec::Json).send(&again).await;
            for s in mine {
                let id = ids[&s.cid];
                assert!(
                    if lost.contains(&s.cid) { id > highest } else { id == s.id },
                    "{}: {} and now {id}",
                    s.text,
                    s.id
                );
            }
        }
    }
    for (thread, all) in &sent {
        let events = whole(&api, thread, true).await;
        assert_once_and_in_order("sent again", &events);
        let (mut there, mut wanted): (Vec<String>, Vec<String>) =
            (texts(&events).into_iter().map(|(_, t)| t).collect(), all.iter().map(|s| s.text.clone()).collect());
        there.sort();
        wanted.sort();
        assert_eq!(there, wanted, "each once");
    }
    // Who had seen what was lost has a cursor beyond the copy's end, and goes on from it.
    let missed = sent[&team].iter().filter(|s| lost.contains(&s.cid)).count();
    eventually_within("the reader hears of it", SOON, async || {
        reader.of(&team).iter().filter(|e| e.id > highest && e.body.text.is_some()).count() >= missed
    })
    .await;
    reader.assert_nothing_wrong("carol");
    for role in [cluster.persister(0), cluster.channel(0)] {
        let log = role.log();
        let after = log.rsplit("is ready").next().unwrap_or_default();
        assert!(!after.contains("ERROR"), "{log}");
    }
}
