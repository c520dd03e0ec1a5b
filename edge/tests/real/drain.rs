//! P6, the planned part: an edge that leaves says so first, finishes what was sent, and goes.

use std::time::Duration;

use natterjack_protocol::{close, codec::Codec, frame::ServerFrame};
use tokio::time::timeout;

use crate::kit::{World, cid};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_sent_is_lost_when_the_edge_leaves() {
    let mut world = World::start(&["ua", "ub"]).await;
    let mut c = world.client("ua", "d1", Codec::Msgpack).await;
    let mut idle = world.client("ub", "d1", Codec::Json).await;
    assert!(c.sent(cid(), "dm.ua.ub", "before").await.is_ok());
    for i in 0..50 {
        c.send(cid(), "dm.ua.ub", &i.to_string()).await;
    }
    // The edge has read them once the first is answered.
    c.until(|f| matches!(f, ServerFrame::Sent { .. })).await;
    let ended = world.stop();
    let (mut answered, mut told) = (1, false);
    let code = loop {
        match c.next().await {
            Ok(ServerFrame::Sent { .. }) => answered += 1,
            Ok(ServerFrame::Draining { .. }) => told = true,
            Ok(ServerFrame::Error { refusal, .. }) => panic!("{refusal}"),
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    assert_eq!((code, told), (close::DRAINING.code, true));
    assert!(answered >= 1, "{answered}");
    idle.until(|f| matches!(f, ServerFrame::Draining { .. })).await;
    idle.closes_with(close::DRAINING).await;
    timeout(Duration::from_secs(6), ended).await.unwrap().unwrap().unwrap();
    assert!(!world.health.report().parts.contains_key("edge"));
}
