//! A role is one file (`counter`): what the runner does for it is shown here.

use std::collections::BTreeMap;

use natterjack_nats::{
    KvBuckets, Layout, LeaderReader, LogReaders, Nats, Position, Positions, ProvisionError, Publisher, switch,
};
use natterjack_protocol::{MsgId, Thread, Times};
use natterjack_role::RoleSetup;
use natterjack_runtime::{
    Health,
    health::{Readers, State},
};
use natterjack_testkit::{NatsServer, eventually, thread, thread_in};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::counter::{Counter, Counts, Fault};

struct World {
    server: NatsServer,
    nats: Nats,
    layout: Layout,
    fault: watch::Sender<Fault>,
    counts: Counts,
    truth: BTreeMap<Thread, Vec<MsgId>>,
}

struct Instance {
    health: Health,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl World {
    async fn new() -> Self {
        let (server, nats, layout) = NatsServer::ready().await;
        Self {
            server,
            nats,
            layout,
            fault: watch::Sender::new(Fault::None),
            counts: Counts::default(),
            truth: BTreeMap::new(),
        }
    }

    async fn start(&self, name: &str) -> Instance {
        let (health, stop) = (Health::new(), CancellationToken::new());
        let counter = Counter { counts: self.counts.clone(), fault: self.fault.subscribe() };
        let setup = RoleSetup {
            nats: self.server.nats().await,
            layout: Layout::load(&self.nats).await.unwrap(),
            times: Times::default(),
            instance: name.to_owned(),
            readers: Readers::new(&health),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(natterjack_role::run(counter, setup, stop.clone())));
        Instance { health, stop, task }
    }

    async fn say(&mut self, thread: &Thread) {
        let n = self.truth.values().map(Vec::len).sum::<usize>();
        let publisher = Publisher::new(&self.nats, self.layout, Times::default());
        let id = publisher.message(thread, &n.to_string(), "x".into()).await.unwrap().id;
        self.truth.entry(thread.clone()).or_default().push(id);
    }

    /// In nine threads.
    async fn talk(&mut self) {
        for n in 0..45 {
            self.say(&thread(&format!("group.g{}", n % 9))).await;
        }
    }

    /// Every id of every thread, each once and in order.
    async fn all_is_counted(&self) {
        eventually("everything is counted", async || *self.counts.lock().unwrap() == self.truth).await;
    }

    async fn switch(&mut self, partitions: u32) -> Result<(), ProvisionError> {
        self.layout = switch(&self.nats, &self.server.config(), &Times::default(), partitions).await?;
        Ok(())
    }

    /// As far as channel and persister are concerned, the former generation is read.
    async fn others_have_read_the_former(&self) {
        let former = self.layout.previous().unwrap();
        for p in 0..former.partitions {
            let end = Position { id: LeaderReader::new(&self.nats, former).bounds(p).await.unwrap().last, ts: 1 };
            for role in ["channel", "persister"] {
                Positions::new(&KvBuckets::new(&self.nats, former), role).advance(p, end).await.unwrap();
            }
        }
    }
}

fn failing(health: &Health, part: &str) -> Option<String> {
    match health.report().parts.get(part) {
        Some(State::Failing(why)) => Some(why.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gets_everything_in_order_across_switches_that_wait_for_it() {
    let mut w = World::new().await;
    w.talk().await;
    let instance = w.start("one").await;
    w.all_is_counted().await;
    w.fault.send_replace(Fault::Pause);
    w.talk().await;
    w.switch(3).await.unwrap();
    w.talk().await;
    w.others_have_read_the_former().await;
    let refused = w.switch(2).await.unwrap_err();
    assert!(matches!(&refused, ProvisionError::Unread { generation: 1, reader } if reader == "counter"), "{refused}");
    assert!(refused.to_string().contains("provision --forget-reader counter"), "{refused}");

    w.fault.send_replace(Fault::None);
    w.all_is_counted().await;
    w.switch(2).await.unwrap();
    w.talk().await;
    w.all_is_counted().await;
    assert!(
        instance.health.report().parts.keys().all(|part| part.starts_with("counter.3-")),
        "{:?}",
        instance.health.report()
    );

    // Stopped for good: nobody waits for it any longer than it takes to say so.
    instance.stop.cancel();
    instance.task.await.unwrap();
    w.talk().await;
    w.others_have_read_the_former().await;
    w.switch(5).await.unwrap();
    w.others_have_read_the_former().await;
    assert!(w.switch(4).await.is_err());
    assert!(LogReaders::new(&w.nats).forget("counter").await.unwrap());
    assert!(!LogReaders::new(&w.nats).forget("counter").await.unwrap());
    w.switch(4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_error_or_a_panic_it_begins_again_and_is_not_ready_meanwhile() {
    let mut w = World::new().await;
    let instance = w.start("one").await;
    eventually("it is ready", async || instance.health.report().ready).await;
    let [failing_part, other_part] = [0, 1].map(|p| format!("counter.1-{p}"));
    let t = thread_in(&w.layout, 0);
    for (fault, words) in [(Fault::Error, "on purpose"), (Fault::Panic, "panicked")] {
        w.fault.send_replace(fault);
        w.say(&t).await;
        eventually(words, async || failing(&instance.health, &failing_part).is_some_and(|why| why.contains(words)))
            .await;
        assert!(!instance.health.report().ready);
        assert_eq!(failing(&instance.health, &other_part), None, "the other partition has nothing to do with it");
        w.fault.send_replace(Fault::None);
        w.all_is_counted().await;
        eventually("it is ready again", async || instance.health.report().ready).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_takes_over_when_the_first_is_killed() {
    let mut w = World::new().await;
    let first = w.start("one").await;
    w.talk().await;
    w.all_is_counted().await;
    let second = w.start("two").await;
    eventually("it stands by", async || second.health.report().ready).await;
    // Its leases are not released.
    drop(first.task);
    w.talk().await;
    w.all_is_counted().await;
    assert!(second.health.report().ready);
}
