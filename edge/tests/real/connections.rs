//! What a request is does not hang on which of its connection it is: any may be the upgrade, any may be broken, and
//! what came before changes nothing.

use std::time::Duration;

use natterjack_protocol::{
    Code, Times,
    client::{
        close,
        frame::{ClientFrame, ServerFrame},
    },
    codec::Codec,
    limits,
};
use natterjack_testkit::{eventually, raw_http::upgrade};
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::kit::{Client, PATIENCE, World, times};

/// A client's frame with a mask of zeros, so that it can be written behind a head.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

const GET: &str = "GET /v1/edges HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn any_request_of_a_connection_may_be_the_upgrade() {
    let world = World::start(&["ua"]).await;
    let token = world.token("ua", "d1", 600);
    let hello = text_frame(&format!(r#"{{"t":"hello","token":"{token}","device":"d1"}}"#));
    let json = "Host: h\r\nContent-Type: application/json\r\n";
    // What comes before it, and the statuses of the answers to that.
    let before: [(&str, Vec<u8>, &[u16]); 12] = [
        ("nothing", Vec::new(), &[]),
        ("a request", GET.into(), &[200]),
        ("a description", b"GET /v1/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), &[200]),
        ("a preflight", b"OPTIONS /v1/groups HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), &[204]),
        ("pipelined ones", GET.repeat(5).into(), &[200; 5]),
        ("a body that is read", format!("POST /v1/login HTTP/1.1\r\n{json}Content-Length: 2\r\n\r\n{{}}").into(), &[400]),
        ("a body that nobody wants", format!("GET /v1/edges HTTP/1.1\r\n{json}Content-Length: 5\r\n\r\nhello").into(), &[200]),
        ("a body of nothing that is there", format!("PUT /v1/x HTTP/1.1\r\n{json}Content-Length: 5\r\n\r\nGET /").into(), &[404]),
        (
            "chunks",
            format!("POST /v1/login HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n1;x=y\r\n}}\r\n0\r\nT: u\r\n\r\n")
                .into(),
            &[400],
        ),
        (
            "a body that waited",
            format!("POST /v1/login HTTP/1.1\r\n{json}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{{}}").into(),
            // All in one write: no need to tell it to go on.
            &[400],
        ),
        (
            "a line break too many",
            format!("POST /v1/login HTTP/1.1\r\n{json}Content-Length: 2\r\n\r\n{{}}\r\n{GET}\r\n").into(),
            &[400, 200],
        ),
        ("HTTP/1.0 that stays", b"GET /v1/edges HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(), &[200]),
    ];
    for (what, bytes, statuses) in before {
        for at_once in [false, true] {
            let mut http = world.dial().await;
            let up = [upgrade("").into_bytes(), hello.clone()].concat();
            if at_once {
                // The client's first frame stands behind the head.
                http.say([bytes.clone(), up].concat()).await;
            } else {
                http.say(&bytes).await;
            }
            for status in statuses {
                assert_eq!(http.answer().await.status, *status, "{what}");
            }
            if !at_once {
                http.say([upgrade("").into_bytes(), hello.clone()].concat()).await;
            }
            assert_eq!(http.answer().await.status, 101, "{what}");
            let mut client = Client::over(http).await;
            client.until(|f| matches!(f, ServerFrame::Attached { .. })).await;
            client.put(&ClientFrame::Ping).await;
            client.until(|f| matches!(f, ServerFrame::Pong { .. })).await;
        }
    }
    // A body that is asked for, and one that is not taken.
    let mut http = world.dial().await;
    http.say(format!("POST /v1/login HTTP/1.1\r\n{json}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")).await;
    assert_eq!(http.answer().await.status, 100);
    http.say("{}").await;
    assert_eq!(http.answer().await.status, 400);
    http.say("HEAD /v1/edges HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let bare = http.next(true).await.unwrap();
    assert!(
        bare.status == 200
            && bare.header("content-length").is_some_and(|n| n != "0")
            && bare.header("connection").is_none()
    );
    http.say(upgrade("").replace("HTTP/1.1", "HTTP/1.0")).await;
    let refused = http.answer().await;
    assert_eq!(
        (refused.status, refused.code().as_str(), refused.header("connection")),
        (400, "invalid", Some("close"))
    );
    assert!(http.closed().await);

    let mut http = world.dial().await;
    http.say(format!("POST /v1/login HTTP/1.1\r\n{json}Expect: 100-continue\r\nContent-Length: 300000\r\n\r\n")).await;
    assert_eq!(http.answer().await.status, 413, "before it is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_told_so_whichever_request_it_is() {
    let world = World::start(&["ua"]).await;
    let token = world.token("ua", "d1", 600);
    let json = "Content-Type: application/json\r\n";
    let post = |headers: &str, body: &str| {
        format!("POST /v1/groups HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n{headers}\r\n{body}")
    };
    let endless = format!("GET /v1/edges HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(limits::HEAD_BYTES));
    // Request, status, whether the connection goes on.
    let cases: Vec<(String, u16, bool)> = vec![
        ("hello\r\n\r\n".into(), 400, false),
        ("GET /v1/edges\r\n\r\n".into(), 400, false),
        ("GET /v1/edges HTTP/1.1\r\n\r\n".into(), 400, false),
        ("GET /v1/edges HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(), 400, false),
        ("GET /v1/edges HTTP/1.1\r\nHost:\r\n\r\n".into(), 400, false),
        ("GET /v1/edges HTTP/3.0\r\nHost: h\r\n\r\n".into(), 400, false),
        ("\x16\x03\x01nonsense\r\n\r\n".into(), 400, false),
        (endless, 400, false),
        (post(&format!("{json}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), "0\r\n\r\n"), 400, false),
        (post(&format!("{json}Transfer-Encoding: chunked\r\n"), "z\r\n"), 400, false),
        (post(&format!("{json}Transfer-Encoding: chunked\r\n"), "50000\r\n"), 413, false),
        (post(&format!("{json}Transfer-Encoding: gzip\r\n"), ""), 501, false),
        (post(&format!("{json}Content-Length: 262145\r\n"), ""), 413, false),
        (post(&format!("{json}Expect: the worst\r\n"), ""), 417, false),
        (post("Content-Length: 2\r\n", "{}"), 415, true),
        (post("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n", "a=b"), 415, true),
        (post(&format!("{json}Content-Length: 2\r\n"), "{}"), 400, true),
        ("DELETE /v1/groups HTTP/1.1\r\nHost: h\r\n\r\n".into(), 405, true),
        ("BREW /v1/edges HTTP/1.1\r\nHost: h\r\n\r\n".into(), 405, true),
        ("POST /v1/ws HTTP/1.1\r\nHost: h\r\n\r\n".into(), 405, true),
        ("GET /v1/nothing HTTP/1.1\r\nHost: h\r\n\r\n".into(), 404, true),
        ("GET /v1/ws HTTP/1.1\r\nHost: h\r\n\r\n".into(), 400, false),
        (upgrade("").replace(".v1.json", ".v9.json"), 400, false),
    ];
    for (request, status, goes_on) in cases {
        for first in [true, false] {
            let mut http = world.dial().await;
            if !first {
                http.say(GET).await;
                assert_eq!(http.answer().await.status, 200);
            }
            http.say(&request).await;
            let answer = http.answer().await;
            assert_eq!(answer.status, status, "{request:.80}: {answer:?}");
            assert!(!answer.code().is_empty());
            assert_eq!(answer.header("connection"), (!goes_on).then_some("close"), "{request:.80}");
            if goes_on {
                http.say(GET).await;
                assert_eq!(http.answer().await.status, 200, "{request:.80}");
            } else {
                assert!(http.closed().await, "{request:.80}");
            }
        }
    }
    for (path, allow) in
        [("/v1/groups", "POST"), ("/v1/blocks/ub", "DELETE,PUT"), ("/v1/threads", "GET,HEAD"), ("/v1/ws", "GET")]
    {
        let mut http = world.dial().await;
        http.say(format!("BREW {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let answer = http.answer().await;
        let mut allowed: Vec<String> =
            answer.header("allow").unwrap_or_default().to_ascii_uppercase().split(',').map(str::to_owned).collect();
        allowed.sort_unstable();
        assert_eq!((answer.status, allowed.join(",").as_str()), (405, allow), "{path}");
    }
    // HTTP/1.0 is answered, without a host, and closed; who closes their half early gets their answer.
    let mut http = world.dial().await;
    http.say("GET /ready HTTP/1.0\r\n\r\n").await;
    http.stream.shutdown().await.unwrap();
    let answer = http.answer().await;
    assert!(answer.status == 200 && answer.header("connection") == Some("close") && http.closed().await);
    let mut http = world.dial().await;
    let head = format!("Host: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    http.say(format!("GET /v1/sync?wait_ms=1000&synced=x HTTP/1.1\r\n{head}GET /v1/edges HTTP/1.1\r\n{head}")).await;
    http.stream.shutdown().await.unwrap();
    assert_eq!((http.answer().await.status, http.answer().await.status), (200, 200));
    assert!(http.closed().await);
}

/// Who is counted is who the request says, on a connection that a proxy uses for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_counts_for_whom_its_own_request_names() {
    let limited = |cfg: &mut natterjack_edge::Config| {
        cfg.limits.exempt = Vec::new();
        cfg.limits.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        cfg.limits.connections_per_address = 1;
    };
    let world = World::configured(&["ua"], times(), limited).await;
    let by = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let request = |client: &str| format!("GET /v1/edges HTTP/1.1\r\nHost: h\r\n{}\r\n", by(client));
    // The proxy's pool is nobody's.
    let mut pool = Vec::new();
    for n in 0..4 {
        let mut http = world.dial().await;
        http.say(request(&format!("198.51.100.{n}"))).await;
        assert_eq!(http.answer().await.status, 200);
        pool.push(http);
    }
    // A connection that served one becomes the socket of another, who has the only place then.
    let mut http = pool.pop().unwrap();
    http.say(upgrade(&by("198.51.100.1"))).await;
    assert_eq!(http.answer().await.status, 101);
    let mut client = Client::over(http).await;
    client.hello(&world.token("ua", "d1", 600), "d1").await;
    client.until(|f| matches!(f, ServerFrame::Attached { .. })).await;
    let mut second = pool.pop().unwrap();
    second.say(upgrade(&by("198.51.100.1"))).await;
    let refused = second.answer().await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!(refused.header("retry-after").is_some() && second.closed().await);
    let mut other = pool.pop().unwrap();
    other.say(upgrade(&by("198.51.100.2"))).await;
    assert_eq!(other.answer().await.status, 101, "the only place of somebody else");
    // The place is free when the session is over.
    drop(client);
    eventually("the place is free again", async || {
        let mut http = world.dial().await;
        http.say(format!("{}{}", request("198.51.100.9"), upgrade(&by("198.51.100.1")))).await;
        http.answer().await;
        http.answer().await.status == 101
    })
    .await;
    // Without a proxy the connection has the place from its beginning, whatever it says and becomes.
    let mut own = world.dial_from("127.0.0.9").await;
    own.say(format!("{}{}", request("198.51.100.1"), upgrade(&by("198.51.100.1")))).await;
    assert_eq!((own.answer().await.status, own.answer().await.status), (200, 101));
    let refused = world.dial_from("127.0.0.9").await.answer().await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
}

/// What has reached an edge that leaves is answered; a kept connection takes no new session.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_leaves_answers_what_it_has_taken() {
    let mut world = World::with(&["ua"], Times { head: Duration::from_secs(5), ..times() }).await;
    let token = world.token("ua", "d1", 600);
    let (mut idle, mut half, mut waits, mut up) =
        (world.dial().await, world.dial().await, world.dial().await, world.dial().await);
    for http in [&mut idle, &mut half, &mut up] {
        http.say(GET).await;
        assert_eq!(http.answer().await.status, 200);
    }
    half.say(&GET[..20]).await;
    up.say(&upgrade("")[..20]).await;
    waits.say(format!("GET /v1/sync HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n")).await;
    // A session that waits for its answer keeps the edge from going before the others are done.
    let mut session = world.client("ua", "d2", Codec::Json).await;
    let ended = world.stop();
    assert!(timeout(PATIENCE, idle.closed()).await.unwrap(), "nothing was asked");
    half.say(&GET[20..]).await;
    let answer = half.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")), "whoever asks is to ask elsewhere");
    assert!(answer.header("retry-after").is_some());
    up.say(&upgrade("")[20..]).await;
    let answer = up.answer().await;
    assert_eq!((answer.status, answer.code()), (503, Code::Unavailable.name().to_owned()));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(waits.answer().await.header("connection"), Some("close"));
    session.closes_with(close::DRAINING).await;
    timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
}
