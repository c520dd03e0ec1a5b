//! Edges that are gone, that only seem to be, and instances that end in the middle.

use std::time::{Duration, Instant};

use natterjack_protocol::internal::presence::Connected;
use natterjack_testkit::{eventually, eventually_within};

use crate::kit::{Instance, World, users};

#[tokio::test]
async fn a_dead_edge_is_swept_and_everybody_hears_it() {
    let world = World::start().await;
    world.lease("e1", "1").await;
    world.lease("e2", "1").await;
    let all = users(2_000);
    world.connect(all.clone(), "e1", "1").await;
    let role = Instance::start(&world.server, "one");
    role.health.ready().await;
    world.is(&all[0], Connected::Yes).await;
    world.expire("e1").await;
    let began = Instant::now();
    // The other edge goes on.
    world.lease("e2", "1").await;
    eventually("nobody of it has a session", async || world.connected(&all).await == 0).await;
    eprintln!("2,000 sessions swept after {:?}", began.elapsed());
    eventually("everybody hears it", async || all.iter().all(|u| world.heard(u).is_some())).await;
    // Its last lease was a moment ago: the ten seconds are not over for all of them.
    eventually_within("they are offline", Duration::from_secs(15), async || {
        all.iter().all(|u| matches!(world.heard(u), Some(Connected::No(Some(_)))))
    })
    .await;
    role.stop().await;
}

#[tokio::test]
async fn an_edge_that_answers_is_not_swept_and_one_that_began_anew_is() {
    let world = World::start().await;
    let _answers = world.answers("e1", "1").await;
    world.lease("e1", "1").await;
    world.lease("e2", "1").await;
    let all = users(20);
    world.connect(all.clone(), "e1", "1").await;
    let role = Instance::start(&world.server, "one");
    role.health.ready().await;
    world.is(&all[0], Connected::Yes).await;
    world.expire("e1").await;
    world.lease("e2", "1").await;
    tokio::time::sleep(Duration::from_secs(5)).await; // it has been asked twice by now
    assert_eq!(world.connected(&all).await, 20);
    world.lease("e1", "2").await;
    eventually("the sessions of the run before are gone", async || world.connected(&all).await == 0).await;
    role.stop().await;
}

#[tokio::test]
async fn an_instance_that_ends_in_a_sweep_leaves_the_rest_to_the_other() {
    let world = World::start().await;
    world.lease("e1", "1").await;
    world.lease("e2", "1").await;
    let all = users(3_000);
    world.connect(all.clone(), "e1", "1").await;
    let first = Instance::start(&world.server, "one");
    first.health.ready().await;
    world.is(&all[0], Connected::Yes).await;
    let second = Instance::start(&world.server, "two");
    second.health.ready().await;
    world.expire("e1").await;
    world.lease("e2", "1").await;
    eventually("it has begun", async || world.connected(&all[..200]).await < 200).await;
    first.die();
    let refresh = async {
        loop {
            world.lease("e2", "1").await;
            tokio::time::sleep(Duration::from_secs(1)).await; // as edges do
        }
    };
    let swept = eventually_within("the other one sweeps the rest", Duration::from_secs(20), async || {
        world.connected(&all).await == 0
    });
    tokio::select! {
        () = refresh => {}
        () = swept => {}
    }
    second.stop().await;
}
