//! Carries a schedule out on a cluster.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use natterjack_testkit::Process;
use natterjack_tests::kit::Cluster;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, sleep_until},
};

use super::{
    record::Recorder,
    rules::{Fault, Step, Target, mix},
};

/// A drain of 20 s, and time for a slow machine.
const LEAVES: Duration = Duration::from_secs(40);

fn process(cluster: &Cluster, target: Target) -> &Process {
    match target {
        Target::Edge(i) => cluster.edge(i),
        Target::Channel(i) => cluster.channel(i),
        Target::Persister(i) => cluster.persister(i),
        Target::Presence(i) => cluster.presence(i),
        Target::Nats(i) => cluster.nats(i),
    }
}

/// Returns when the last fault is healed and everything answers. Gives what processes did unasked.
pub async fn run(cluster: &Cluster, steps: &[Step], record: &Recorder) -> Vec<String> {
    let (began, unasked) = (Instant::now(), Mutex::new(Vec::new()));
    // A drain may take longer than planned; its edge's next fault then waits.
    let turns: BTreeMap<Target, Mutex<()>> = steps.iter().map(|s| (s.fault.target(), Mutex::new(()))).collect();
    join_all(steps.iter().map(async |step| {
        sleep_until(began + Duration::from_millis(step.at_ms)).await;
        let target = step.fault.target();
        let _turn = turns[&target].lock().await;
        let process = process(cluster, target);
        if !process.is_running() {
            unasked.lock().await.push(format!("{} had ended by itself:\n{}", process.name(), process.log_tail(15)));
            process.restart().await;
        }
        eprintln!(
            "{:>7.2} s  {:?} for {:.1} s",
            began.elapsed().as_secs_f64(),
            step.fault,
            Duration::from_millis(step.for_ms).as_secs_f64()
        );
        let outage = step.fault.is_outage().then(|| record.outage(target));
        // The fault lasts as long as the schedule says.
        let lasts = sleep(Duration::from_millis(step.for_ms));
        match step.fault {
            Fault::Kill(_) => {
                process.kill9().await;
                lasts.await;
                process.spawn();
            }
            Fault::Freeze(_) => {
                process.stop();
                lasts.await;
                process.cont();
            }
            Fault::Drain(_) => {
                process.sigterm();
                lasts.await;
                let status = process.wait_exit(LEAVES).await;
                if !status.success() {
                    unasked.lock().await.push(format!("{} drained with {status}", process.name()));
                }
                process.spawn();
            }
            Fault::Lose { edge, percent, salt } => {
                let count = std::sync::atomic::AtomicU64::new(salt);
                cluster.nats_proxy(edge).drop_live(move |subject, _| {
                    subject.starts_with("live.")
                        && mix(count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) % 100 < percent
                });
                lasts.await;
                cluster.nats_proxy(edge).drop_nothing();
            }
            Fault::Cut { of, reset } => {
                let proxy = match of {
                    Target::Presence(i) => cluster.presence_proxy(i),
                    Target::Edge(i) => cluster.nats_proxy(i),
                    _ => unreachable!("nothing is between {of:?} and NATS"),
                };
                if reset {
                    proxy.refuse(true);
                    proxy.reset();
                } else {
                    proxy.stall();
                }
                lasts.await;
                proxy.pass();
                proxy.refuse(false);
            }
        }
        if let Some(outage) = outage {
            record.healed(outage);
        }
    }))
    .await;
    let mut unasked = unasked.into_inner();
    for p in cluster.processes() {
        if !p.is_running() {
            unasked.push(format!("{} had ended by itself:\n{}", p.name(), p.log_tail(15)));
            p.restart().await;
        }
        p.wait_ready().await;
    }
    unasked
}
