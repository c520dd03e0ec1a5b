//! Work by shard: each shard is worked on by whoever has its lease, and begun again after a failure.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use natterjack_nats::{Layout, Nats};
use natterjack_protocol::Times;
use natterjack_role::{RoleSetup, ShardWork, run_shards};
use natterjack_runtime::{
    Health,
    health::{Reader, Readers, State},
};
use natterjack_testkit::{NatsServer, eventually};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Who works on a shard.
type Workers = Arc<Mutex<BTreeMap<u32, &'static str>>>;

struct Work {
    name: &'static str,
    workers: Workers,
    /// The shard whose work fails.
    fails: watch::Receiver<Option<u32>>,
}

impl ShardWork for Work {
    const NAME: &'static str = "worker";
    const PART: &'static str = "work";
    type Error = &'static str;

    async fn work(&self, shard: u32, reader: &Reader) -> Result<Infallible, Self::Error> {
        reader.begin();
        reader.end(0);
        self.workers.lock().unwrap().insert(shard, self.name);
        let mut fails = self.fails.clone();
        let _ = fails.wait_for(|fails| *fails == Some(shard)).await;
        Err("on purpose")
    }

    fn failed(&self, _: &Self::Error) {}
}

struct Instance {
    health: Health,
    stop: CancellationToken,
    fails: watch::Sender<Option<u32>>,
    task: AbortOnDropHandle<()>,
}

fn start(name: &'static str, nats: &Nats, layout: Layout, workers: &Workers) -> Instance {
    let (health, stop, fails) = (Health::new(), CancellationToken::new(), watch::Sender::new(None));
    let readers = Readers::new(&health);
    let work = Work { name, workers: workers.clone(), fails: fails.subscribe() };
    let times = Times::default();
    let setup = RoleSetup { nats: nats.clone(), layout, times, instance: name.into(), readers: readers.clone() };
    let running = run_shards(work, setup, stop.clone());
    let task = async move {
        tokio::select! {
            () = running => {}
            () = readers.watch() => {}
        }
    };
    Instance { health, stop, fails, task: AbortOnDropHandle::new(tokio::spawn(task)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_begins_again_after_a_failure_and_another_instance_takes_over() {
    let (_server, nats, layout) = NatsServer::ready().await;
    let workers = Workers::default();
    let all = |name| (0..layout.kv_shards).map(|shard| (shard, name)).collect::<BTreeMap<_, _>>();
    let first = start("first", &nats, layout, &workers);
    eventually("it has every shard", async || *workers.lock().unwrap() == all("first") && first.health.report().ready)
        .await;
    let second = start("second", &nats, layout, &workers);
    eventually("it stands by", async || second.health.report().ready).await;
    assert_eq!(*workers.lock().unwrap(), all("first"));

    first.fails.send_replace(Some(1));
    let why = State::Failing("begins again after: on purpose".into());
    eventually("the health says why, of this shard alone", async || {
        let parts = first.health.report().parts;
        (&parts["work.0"], &parts["work.1"]) == (&State::Ok, &why)
    })
    .await;
    workers.lock().unwrap().clear();
    first.fails.send_replace(None);
    // It alone, and its lease was kept.
    let again = BTreeMap::from([(1, "first")]);
    eventually("it begins again", async || *workers.lock().unwrap() == again && first.health.report().ready).await;

    first.stop.cancel();
    first.task.await.unwrap();
    assert!(first.health.report().parts.is_empty());
    eventually("the other has every shard", async || *workers.lock().unwrap() == all("second")).await;
    assert!(second.health.report().ready);
}
