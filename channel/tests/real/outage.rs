//! A nats-server that dies under the service: nothing is skipped or swapped, and it goes on by itself.

use natterjack_protocol::live::Live;

use crate::{
    harness::{Server, eventually, thread},
    kit::{Instance, Observer, What, Writer},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_after_its_server_was_killed() {
    let (mut server, nats, layout) = Server::ready().await;
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
    assert!(observer.with(|all| all.iter().any(|s| matches!(s.what, What::Live(Live::Head { .. })))), "quiet threads had their heads");
    instance.stop().await;
}
