//! A nats-server that dies under the service: nothing is skipped or swapped, and it goes on by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use natterjack_nats::subjects;
use natterjack_protocol::internal::live::LiveMessage;
use natterjack_testkit::{NatsServer, eventually, thread};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::kit::{Instance, Observer, What, Writer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_after_its_server_was_killed() {
    let (mut server, nats, layout) = NatsServer::ready().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let instance = Instance::start(&server, "one");
    let threads = ["dm.a.b", "group.g", "group.h"].map(thread);
    let send = async |n: usize| {
        for i in 0..n {
            writer.text(&threads[i % threads.len()], "a").await;
        }
    };
    send(90).await;
    observer.has_everything(&writer).await;
    server.restart();
    let beats = || observer.with(|all| all.iter().filter(|s| matches!(s.what, What::Beat(_))).count());
    // The observer has to be there again before anything is published; beats come again on every partition.
    let before = beats();
    eventually("beats after the restart", async || observer.nats.connected() && beats() >= before + 2).await;
    send(90).await;
    observer.has_everything(&writer).await;
    instance.health.ready().await;
    let a_head = || observer.with(|all| all.iter().any(|s| matches!(s.what, What::Live(LiveMessage::Head { .. }))));
    eventually("the heads of quiet threads", async || a_head()).await;
    instance.stop().await;
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Passes,
    /// What the service writes is taken and never arrives.
    Swallows,
    Cut,
}

/// One connection through the proxy, until it is cut.
async fn carry(
    mut near: TcpStream,
    to: String,
    line: watch::Receiver<Line>,
    swallowed: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    let mut cut = line.clone();
    let swallows = || *line.borrow() == Line::Swallows;
    let (mut up, mut down) = (vec![0; 1 << 14], vec![0; 1 << 14]);
    loop {
        tokio::select! {
            () = async { drop(cut.wait_for(|l| *l == Line::Cut).await) } => return Ok(()),
            n = near.read(&mut up) => match n? {
                0 => return Ok(()),
                n if swallows() => drop(swallowed.fetch_add(n, Ordering::Relaxed)),
                n => far.write_all(&up[..n]).await?,
            },
            n = far.read(&mut down) => match n? {
                0 => return Ok(()),
                n => near.write_all(&down[..n]).await?,
            },
        }
    }
}

/// Frames that a breaking connection swallows are published again: what is missing is noticed, and everything comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swallowed_frames_are_published_again() {
    let (server, nats, layout) = NatsServer::ready().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let mut cfg = server.config();
    let to = cfg.urls[0].trim_start_matches("nats://").to_owned();
    // Next to the server, on an address that is this test's own.
    let listener = TcpListener::bind((to.split(':').next().unwrap(), 4223)).await.unwrap();
    cfg.urls = vec![format!("nats://{}", listener.local_addr().unwrap())];
    let (line, seen) = watch::channel(Line::Passes);
    let (swallowed, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (stop, over) = watch::channel(false);
    let mut proxy = JoinSet::new();
    proxy.spawn({
        let (swallowed, open) = (swallowed.clone(), open.clone());
        async move {
            let mut lines = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (to, seen, swallowed, open) = (to.clone(), seen.clone(), swallowed.clone(), open.clone());
                lines.spawn(async move {
                    open.fetch_add(1, Ordering::Relaxed);
                    let ended = carry(near, to, seen, swallowed).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                    ended
                });
            }
        }
    });
    let instance = Instance::through(cfg, "one");
    let threads = ["dm.a.b", "group.g", "group.h"].map(thread);
    let first = writer.text(&threads[0], "a").await;
    eventually("the first event", async || observer.saw_event("live.user.a.e", first)).await;
    let sending = tokio::spawn({
        let (writer, threads) = (writer.clone(), threads.clone());
        async move {
            for i in 0.. {
                if *over.borrow() {
                    break;
                }
                writer.text(&threads[i % threads.len()], "a").await;
                // A pace: some tens of messages in each of the line's states.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
    let events =
        || observer.with(|all| all.iter().filter(|s| matches!(s.what, What::Live(LiveMessage::Event { .. }))).count());
    for _ in 0..4 {
        let so_far = events();
        eventually("it publishes", async || events() > so_far + 80).await;
        let before = swallowed.load(Ordering::Relaxed);
        line.send_replace(Line::Swallows);
        eventually("something is swallowed", async || swallowed.load(Ordering::Relaxed) > before + 500).await;
        line.send_replace(Line::Cut);
        eventually("the connections are cut", async || open.load(Ordering::Relaxed) == 0).await;
        line.send_replace(Line::Passes);
    }
    stop.send_replace(true);
    sending.await.unwrap();
    let truth = writer.truth();
    for (thread, ids) in &truth {
        for subject in subjects::live_subjects_of(thread) {
            // Each and every one was published, whatever an edge would have fetched in between.
            eventually("every event in spite of the cuts", async || {
                ids.iter().all(|id| observer.saw_event(&subject, *id))
            })
            .await;
        }
    }
    let (copies, gaps) = observer.judge(&truth);
    println!("{} bytes swallowed, {copies} copies, {gaps} gaps noticed", swallowed.load(Ordering::Relaxed));
    assert!(swallowed.load(Ordering::Relaxed) > 1_000, "the test tested something");
    instance.stop().await;
}
