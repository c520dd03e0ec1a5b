//! P3 under refusals: nothing that was sent behind a message is stored before it, whatever that one is refused for; and
//! whoever waits for each answer, or gives a message up, is held up by nothing. Over the socket, over HTTP and through
//! the SDK.

use std::{collections::HashMap, time::Duration};

use natterjack_protocol::{
    Body, Cid, Code, Kind, MsgId, Refusal, Thread,
    client::frame::{ClientFrame, SendMessage, ServerFrame},
    codec::Codec,
};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, paging::whole, witness::texts, writer::send_until_sent};
use serde_json::json;

/// A second.
const SENDS: usize = 6;
const AHEAD: i64 = 60_000;

/// Writes all of it without waiting; answers by text.
async fn pipeline(
    ws: &mut RawWs,
    thread: &Thread,
    sends: &[(&str, Cid, Option<Cid>)],
) -> HashMap<String, Result<MsgId, Refusal>> {
    let (mut asked, mut frames) = (HashMap::new(), Vec::new());
    for (text, cid, behind) in sends {
        let r = ws.request();
        asked.insert(r, (*text).to_owned());
        let send = SendMessage {
            r,
            cid: *cid,
            thread: thread.clone(),
            kind: Kind::Text,
            body: Body::text(*text),
            behind: *behind,
        };
        frames.push(ClientFrame::Send(send));
    }
    ws.send_together(&frames).await;
    let mut answers = HashMap::new();
    while answers.len() < sends.len() {
        let (r, answer) = ws
            .until("an answer", |f| match f {
                ServerFrame::Sent { r, id, .. } => Some((r, Ok(id))),
                ServerFrame::Error { r: Some(r), refusal } => Some((r, Err(refusal))),
                _ => None,
            })
            .await;
        answers.insert(asked[&r].clone(), answer);
    }
    answers
}

fn code(answers: &HashMap<String, Result<MsgId, Refusal>>, text: &str) -> Option<Code> {
    answers[text].as_ref().err().map(|r| r.code)
}

/// The texts of a thread, in its order.
async fn log(cluster: &Cluster, user: &natterjack_tests::kit::User, thread: &Thread) -> Vec<String> {
    let events = whole(&cluster.api(user, 0), thread, true).await;
    texts(&events).into_iter().map(|(_, text)| text).filter(|t| !t.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_behind_a_refused_message_is_not_stored_before_it() {
    let set = [("limits.sends_per_user".to_owned(), SENDS.to_string())];
    let cluster = Cluster::start(ClusterSpec { edges: 1, set: set.into(), ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(5).await;
    // Time itself: what the limit has taken comes back with it.
    let pause = || tokio::time::sleep(Duration::from_millis(2_100));

    for codec in [Codec::Json, Codec::Msgpack] {
        let (anna, thread) = (&users[0], users[0].dm(&users[if codec == Codec::Json { 1 } else { 2 }]));
        let mut ws = cluster.raw(anna, 0, codec).await;
        let [ahead, a, b, c, d] = [ws.cid_at(AHEAD), ws.cid(), ws.cid(), ws.cid(), ws.cid()];
        let answers = pipeline(&mut ws, &thread, &[("a", ahead, None), ("b", b, Some(ahead)), ("c", c, Some(b))]).await;
        assert_eq!(code(&answers, "a"), Some(Code::ClockAhead), "{answers:?}");
        assert!([code(&answers, "b"), code(&answers, "c")] == [Some(Code::OutOfOrder); 2], "{answers:?}");
        // On its way all the time, on a slow line.
        let late = pipeline(&mut ws, &thread, &[("d", d, Some(c))]).await;
        assert_eq!(code(&late, "d"), Some(Code::OutOfOrder));
        let answers =
            pipeline(&mut ws, &thread, &[("a", a, None), ("b", b, Some(a)), ("c", c, Some(b)), ("d", d, Some(c))])
                .await;
        assert!(answers.values().all(Result::is_ok), "{answers:?}");
        assert_eq!(log(&cluster, anna, &thread).await, ["a", "b", "c", "d"]);

        // A client that knows nothing of `behind`: what has come with it is refused with it; one message after the
        // other goes at once.
        pause().await;
        let (ahead, e, f) = (ws.cid_at(AHEAD), ws.cid(), ws.cid());
        let answers = pipeline(&mut ws, &thread, &[("x", ahead, None), ("e", e, None), ("f", f, None)]).await;
        assert!([code(&answers, "e"), code(&answers, "f")] == [Some(Code::OutOfOrder); 2], "{answers:?}");
        for (text, cid) in [("e", e), ("f", f), ("g", ws.cid())] {
            let answers = pipeline(&mut ws, &thread, &[(text, cid, None)]).await;
            assert!(answers[text].is_ok(), "nothing is held back: {answers:?}");
        }
        assert_eq!(log(&cluster, anna, &thread).await[4..], ["e", "f", "g"]);
        pause().await;
    }

    // More than the rate allows, again and again, until all are there.
    let (ben, thread) = (&users[1], users[1].dm(&users[2]));
    let ws = cluster.raw(ben, 0, Codec::Msgpack).await;
    let sends: Vec<(Thread, Cid, String)> = (0..25).map(|n| (thread.clone(), ws.cid(), format!("{n}"))).collect();
    drop(ws);
    send_until_sent(&[cluster.edge_addr(0)], ben, Codec::Msgpack, &sends).await;
    assert_eq!(log(&cluster, ben, &thread).await, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());

    // Over HTTP, where an answer may be on its way, too.
    let (carl, thread) = (&users[3], users[3].dm(&users[2]));
    let api = cluster.api(carl, 0);
    let post = async |text: &str, cid: Cid, behind: Option<Cid>| {
        let mut message = json!({ "cid": cid, "kind": "text", "body": { "text": text } });
        if let Some(behind) = behind {
            message["behind"] = json!(behind);
        }
        let (status, answer) = api.post(&format!("/v1/threads/{thread}/messages"), &message).await;
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    };
    let ws = cluster.raw(carl, 0, Codec::Json).await;
    let (ahead, b, c) = (ws.cid_at(AHEAD), ws.cid(), ws.cid());
    assert_eq!(post("c", c, Some(b)).await, (409, "out_of_order".into()), "it has overtaken b");
    assert_eq!(post("a", ahead, None).await, (409, "clock_ahead".into()));
    assert_eq!(post("b", b, Some(ahead)).await, (409, "out_of_order".into()));
    assert_eq!(post("b", b, None).await.0, 200, "a was given up");
    assert_eq!(post("c", c, Some(b)).await.0, 200);
    assert_eq!(log(&cluster, carl, &thread).await, ["b", "c"]);

    // The SDK, with many on their way at once.
    let (dora, thread) = (&users[4], users[4].dm(&users[2]));
    let (client, _events) = cluster.client_with(dora, 0, |b| b.pipeline(16, 32)).await;
    for n in 0..30 {
        client.send_text(thread.clone(), n.to_string()).await.unwrap();
    }
    assert_eq!(client.flushed(Duration::from_secs(60)).await, Ok(()));
    assert_eq!(log(&cluster, dora, &thread).await, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
}
