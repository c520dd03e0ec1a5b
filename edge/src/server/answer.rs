//! Before step 2: an HTTP answer on its way out, however slowly it is read.
//!
//! What the kernel does not take at once is held here: counted against its reader's address
//! (`limits.bytes_per_address`), and dropped with the connection when nothing of it moves for `edge.stall_seconds`.

use std::{io, net::IpAddr, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderValue, Response, StatusCode, header};
use natterjack_protocol::limits;
use natterjack_runtime::clock::wall_ms;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    admission::limits::AdmissionLimits,
    wire::{Wire, reset_at_close},
};

/// What becomes of the connection behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterAnswer {
    Close,
    /// As HTTP/1.1 does without a word.
    Keep,
    /// As HTTP/1.0 has to be told.
    KeepOld,
}

/// Head and body. `bare`: to HEAD, only the head.
pub fn encode(response: Response<Bytes>, bare: bool, then: AfterAnswer) -> (Bytes, Bytes) {
    let (parts, body) = response.into_parts();
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(
        format!("HTTP/1.1 {} {}\r\n", parts.status.as_u16(), parts.status.canonical_reason().unwrap_or("")).as_bytes(),
    );
    let mut add = |name: &str, value: &[u8]| {
        [name.as_bytes(), b": ", value, b"\r\n"].iter().for_each(|part| head.extend_from_slice(part));
    };
    let told = parts.headers.get(header::CONTENT_LENGTH).cloned().filter(|_| bare);
    for (name, value) in parts.headers.iter().filter(|(name, _)| **name != header::CONTENT_LENGTH) {
        add(name.as_str(), value.as_bytes());
    }
    if parts.status != StatusCode::NO_CONTENT {
        let length = told.unwrap_or_else(|| HeaderValue::from(body.len()));
        add("content-length", length.as_bytes());
    }
    add(
        "date",
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_millis(wall_ms())).as_bytes(),
    );
    match then {
        AfterAnswer::Close => add("connection", b"close"),
        AfterAnswer::KeepOld => add("connection", b"keep-alive"),
        AfterAnswer::Keep => {}
    }
    head.extend_from_slice(b"\r\n");
    (head.into(), if bare { Bytes::new() } else { body })
}

/// For the whole of it: somebody who takes a byte now and then is as good as stalled.
fn longest(bytes: usize, stall: Duration) -> Duration {
    stall + Duration::from_secs_f64(bytes as f64 / limits::ANSWER_BYTES_PER_SECOND as f64)
}

/// False: its reader is gone, or was given up.
pub async fn write(
    stream: &mut Wire,
    (head, body): (Bytes, Bytes),
    stall: Duration,
    limiter: &AdmissionLimits,
    client: IpAddr,
) -> bool {
    let mut rest = head.chain(body);
    let last = Instant::now() + longest(rest.remaining(), stall);
    let mut held = None;
    while rest.has_remaining() {
        let written = match stream.write_buf(&mut rest).now_or_never() {
            Some(written) => written,
            None => {
                if held.is_none() {
                    match limiter.holds(client, rest.remaining()) {
                        Ok(place) => {
                            held = Some(place);
                            rest = Bytes::new().chain(left(rest));
                        }
                        Err(_) => return give_up(stream, "bytes_per_address"),
                    }
                }
                match timeout_at(last.min(Instant::now() + stall), stream.write_buf(&mut rest)).await {
                    Ok(written) => written,
                    Err(_) => return give_up(stream, "stalled"),
                }
            }
        };
        if !matches!(written, Ok(n) if n > 0) {
            return false;
        }
    }
    match timeout(stall, stream.flush()).await {
        Ok(flushed) => flushed.is_ok(),
        Err(_) => give_up(stream, "stalled"),
    }
}

/// What is not sent yet, without the memory of what is: a buffer that JSON was written into is up to twice as large as
/// that.
fn left(rest: impl Buf) -> Bytes {
    let mut kept = BytesMut::with_capacity(rest.remaining());
    kept.put(rest);
    kept.freeze()
}

fn give_up(stream: &Wire, why: &'static str) -> bool {
    metrics::counter!(crate::metrics::ANSWERS_DROPPED, "why" => why).increment(1);
    // Else the kernel goes on holding what it took, for minutes.
    reset_at_close(stream);
    false
}

/// The last that is said on a connection; a second at most.
pub async fn farewell(mut stream: Wire, last: &[u8]) {
    let said = async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        // Closing over unread bytes would reset the connection before the answer is read.
        let mut rest = [0; 1_024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(Duration::from_secs(1), said).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, bare: bool, then: AfterAnswer) -> String {
        let response = Response::builder()
            .status(status)
            .header("x-y", "z")
            .header("content-length", "99")
            .body(Bytes::from("body"))
            .unwrap();
        let (head, body) = encode(response, bare, then);
        String::from_utf8([head, body].concat()).unwrap()
    }

    #[test]
    fn the_whole_of_an_answer_has_its_time() {
        let stall = Duration::from_secs(30);
        assert_eq!(longest(0, stall), stall);
        let (page, poll) = (limits::PAGE_BYTES + 61_000, limits::POLL_BYTES + 2 * limits::PAGE_BYTES);
        assert!(longest(page, stall) < Duration::from_secs(80), "a page");
        // As fast as 2G is: a poll gets through.
        assert!(longest(poll, stall) > Duration::from_secs(poll as u64 / 5_000), "a poll");
    }

    #[test]
    fn an_answer_says_its_length_and_what_follows() {
        let answer = text(200, false, AfterAnswer::Keep);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nx-y: z\r\ncontent-length: 4\r\ndate: "), "{answer}");
        assert!(answer.ends_with(" GMT\r\n\r\nbody"), "{answer}");
        assert!(text(200, false, AfterAnswer::Close).contains("\r\nconnection: close\r\n"));
        assert!(text(200, false, AfterAnswer::KeepOld).contains("\r\nconnection: keep-alive\r\n"));
        let bare = text(200, true, AfterAnswer::Keep);
        assert!(bare.contains("content-length: 99\r\n") && bare.ends_with("\r\n\r\n"), "{bare}");
        assert!(!text(204, false, AfterAnswer::Keep).contains("content-length"));
    }
}
