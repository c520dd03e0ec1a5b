//! Who is slow, or does nothing, costs a bounded time and a bounded memory.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use natterjack_protocol::{Times, limits};
use natterjack_testkit::{eventually, raw_http::upgrade};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::kit::{World, times};

const GET: &str = "GET /v1/edges HTTP/1.1\r\nHost: h\r\n\r\n";
/// An answer of tens of kilobytes, without a login.
const LARGE: &str = "GET /v1/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wait_has_its_own_end() {
    let patient = Times { http_idle: ms(1_500), ..times() };
    let world = World::with(&["ua"], patient).await;
    let post = "POST /v1/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n";
    // What is said, how many whole answers come first, what is told at the end (0: nothing), after how long.
    let cases: [(String, usize, u16, Duration); 9] = [
        (String::new(), 0, 0, ms(700)),
        ("GET /v1/edges HT".into(), 0, 408, ms(700)),
        (GET.into(), 1, 0, ms(1_500)),
        (format!("{GET}\r\n"), 1, 0, ms(1_500)),
        (format!("{GET}{GET}G"), 2, 408, ms(700)),
        (format!("{GET}{}", &upgrade("")[..90]), 1, 408, ms(700)),
        (format!("{post}Content-Length: 10\r\n\r\n{{}}"), 0, 408, ms(700)),
        (format!("{GET}{post}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}"), 1, 408, ms(700)),
        // Tells that it goes on, and it does not.
        (format!("{post}Content-Length: 10\r\nExpect: 100-continue\r\n\r\n"), 1, 408, ms(700)),
    ];
    let all = cases.into_iter().map(async |(said, answers, told, after)| {
        let mut http = world.dial().await;
        let began = Instant::now();
        http.say(&said).await;
        for _ in 0..answers {
            http.answer().await;
        }
        if told > 0 {
            let answer = http.answer().await;
            assert_eq!(
                (answer.status, answer.code().as_str(), answer.header("connection")),
                (told, "unavailable", Some("close")),
                "{said}"
            );
        }
        assert!(http.closed().await, "{said}");
        let took = began.elapsed();
        assert!(took > after.mul_f64(0.9) && took < after + ms(10_000), "{took:?} for {after:?}: {said}");
    });
    futures_util::future::join_all(all).await;
    // A head and a body that come byte by byte have an end as well.
    for slow in [GET.to_owned(), format!("{post}Content-Length: 1000\r\n\r\n{}", " ".repeat(1_000))] {
        let mut http = world.dial().await;
        let drip = async {
            for byte in slow.as_bytes() {
                if http.stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                // Byte by byte, on and on: that is what it is about.
                let at_once = slow.len() > 1_000 && *byte != b' ';
                tokio::time::sleep(if at_once { Duration::ZERO } else { ms(50) }).await;
            }
        };
        let _ = timeout(ms(1_500), drip).await;
        assert_eq!(http.answer().await.status, 408);
    }
}

/// Was it reset? Seen without reading what came before that.
fn is_reset(stream: &TcpStream) -> bool {
    let refused = |e: std::io::Error| e.kind() != ErrorKind::WouldBlock;
    stream.take_error().unwrap().is_some() || stream.try_write(b"\r\n").is_err_and(refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_takes_is_dropped() {
    let world = World::with(&["ua"], Times { stall: ms(500), ..times() }).await;
    let one = {
        let mut http = world.dial().await;
        http.say(LARGE).await;
        http.answer().await.body.len()
    };
    // 64 MB are asked for at once; a slow reader gets all, and one that has stopped is let go.
    let many = (64 << 20) / one;
    let ask = LARGE.repeat(many);
    let mut stopped = world.dial().await;
    // The requests may all be in the kernels between the two, or some of them not when it is let go.
    let _ = timeout(ms(10_000), stopped.stream.write_all(ask.as_bytes())).await;
    eventually("it is let go", async || is_reset(&stopped.stream)).await;

    let mut slow = world.dial().await;
    let few = 400;
    slow.say(LARGE.repeat(few)).await;
    let mut sum = 0;
    let mut buffer = vec![0; 2 << 20];
    while sum < few * one {
        // Pauses that are shorter than the limit.
        tokio::time::sleep(ms(100)).await;
        let n = timeout(ms(5_000), slow.stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "dropped at {sum} of {}", few * one);
        sum += n;
    }
}

/// It takes something all the time, so it never stalls.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_trickles_is_dropped() {
    let stall = ms(4_000);
    let world = World::with(&["ua", "ub"], Times { stall, ..times() }).await;
    // A page of 20 kB.
    let token = world.token("ua", "d1", 600);
    let ask = format!("GET /v1/threads/dm.ua.ub/messages HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    let one = {
        let mut http = world.dial().await;
        http.say(&ask).await;
        http.answer().await.body.len()
    };
    assert!((10_000..100_000).contains(&one), "{one}");
    let limit = stall + Duration::from_secs_f64(one as f64 / limits::ANSWER_BYTES_PER_SECOND as f64);
    let mut trickle = world.dial_with_buffer(4 * 1024).await;
    // More than the kernels between the two take; the requests may be.
    let _ = timeout(ms(2_000), trickle.stream.write_all(ask.repeat((16 << 20) / one).as_bytes())).await;
    let (began, mut buffer) = (Instant::now(), vec![0; 128]);
    let mut longest_pause = Duration::ZERO;
    loop {
        // A KiB a second.
        tokio::time::sleep(ms(125)).await;
        let asked = Instant::now();
        match timeout(limit, trickle.stream.read(&mut buffer)).await.unwrap() {
            Ok(1..) => longest_pause = longest_pause.max(asked.elapsed()),
            _ => break,
        }
        assert!(began.elapsed() < limit * 2, "it goes on for {:?}", began.elapsed());
    }
    assert!(longest_pause < stall, "something was taken all the time: {longest_pause:?}");
    // The kernel asks for more only when a third of its buffer is free again: for the edge that may be no progress at
    // all.
    assert!(began.elapsed() > stall.mul_f64(0.8), "{:?} are less than it has", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_address_makes_wait_is_bounded() {
    let world = World::configured(&["ua"], Times { body: ms(5_000), stall: ms(20_000), ..times() }, |cfg| {
        cfg.limits.exempt = Vec::new();
        cfg.limits.bytes_per_address = 600_000;
    })
    .await;
    let declares = |n: usize| {
        format!(
            "POST /v1/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nExpect: \
             100-continue\r\nContent-Length: {n}\r\n\r\n"
        )
    };
    // Bodies that are announced: two of 250,000 bytes, no third, unless from somewhere else.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut http = world.dial_from("127.0.0.7").await;
        http.say(declares(250_000)).await;
        assert_eq!(http.answer().await.status, 100);
        held.push(http);
    }
    let mut third = world.dial_from("127.0.0.7").await;
    third.say(declares(250_000)).await;
    let refused = third.answer().await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!(refused.header("retry-after").is_some());
    let mut other = world.dial_from("127.0.0.8").await;
    other.say(declares(250_000)).await;
    assert_eq!(other.answer().await.status, 100);
    // Given back when the body is there.
    held[0].say(" ".repeat(250_000)).await;
    assert_eq!(held[0].answer().await.status, 400);
    let mut again = world.dial_from("127.0.0.7").await;
    again.say(declares(250_000)).await;
    assert_eq!(again.answer().await.status, 100);

    // Answers that wait: some connections of the address stay, those that would make too much wait are let go.
    let mut crowd = Vec::new();
    for _ in 0..40 {
        let mut http = world.dial_from("127.0.0.9").await;
        let _ = timeout(ms(300), http.stream.write_all(LARGE.repeat(500).as_bytes())).await;
        crowd.push(http);
    }
    let let_go = async || {
        let mut gone = 0;
        for http in &mut crowd {
            gone += usize::from(is_reset(&http.stream));
        }
        gone > 10
    };
    eventually("those beyond the limit are let go", let_go).await;
}
