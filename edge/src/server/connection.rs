//! Before step 2: one connection, request by request, until one of them makes a session of it.
//!
//! Heads and bodies are read here and not by an HTTP library: any request of a kept connection may be the upgrade
//! (proxies and clients with a pool do so), its bytes must not be in anybody's buffer then, nothing but the socket
//! belongs under 100,000 idle ones, and what is broken, late or too large gets the same typed JSON as everything else.
//! One request at a time: what is pipelined waits in the socket, so that a reader that has stopped costs one answer
//! and not a thousand.

use std::{net::IpAddr, time::Duration};

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use natterjack_protocol::{Code, Refusal, codec::Codec, limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tower::ServiceExt;

use crate::{
    address::Came,
    admission::{address_quota::HeldQuota, client_address, forwarded},
    http::{edges::is_check, extract::Caller, refused::Refused},
    server::{
        accept::{Acceptor, UngreetedPermit},
        answer::{self, AfterAnswer, farewell},
        body::BodyReader,
        head::{self, ParsedHead, RequestHead},
        shutdown, upgrade,
    },
    session::{Session, backend::EdgeBackend, handshake::Handshake},
    sessions::socket::Socket,
    wire::Wire,
};

/// Somebody who has said all and still listens gets the answer; somebody who is gone looks the same, and a poll would
/// wait for them.
const HALF_CLOSED: Duration = Duration::from_secs(5);

pub struct HttpConnection<'a> {
    pub front: &'a Acceptor,
    pub stream: Wire,
    pub peer: IpAddr,
    /// Read and not used yet: a head at most, or a piece of a body.
    read: BytesMut,
    /// The last request was HEAD: no answer to it has a body.
    bare: bool,
}

/// A connection whose end is decided.
enum Over {
    /// Told why.
    Told(Refused),
    Silent,
}

impl From<Refused> for Over {
    fn from(refused: Refused) -> Self {
        Self::Told(refused)
    }
}

impl<'a> HttpConnection<'a> {
    pub fn new(front: &'a Acceptor, stream: Wire, peer: IpAddr) -> Self {
        Self { front, stream, peer, read: BytesMut::new(), bare: false }
    }

    /// Answers requests until one becomes a session; None: the connection is over. `first`: when the head of the first
    /// has to be there; `ungreeted`: until then it counts among those that have not said who they are.
    pub async fn serve(
        mut self,
        first: Instant,
        ungreeted: UngreetedPermit,
        place: &mut Option<HeldQuota>,
    ) -> Option<Box<Session<EdgeBackend>>> {
        let (mut first, mut ungreeted) = (Some(first), Some(ungreeted));
        let over = loop {
            let asked = match self.head(first.take()).await {
                Ok(asked) => asked,
                Err(over) => break over,
            };
            self.bare = asked.method == Method::HEAD;
            if !is_check(asked.uri.path()) {
                self.front.leaving.asked();
            }
            // All alike, health checks too: whoever asks is to ask elsewhere.
            if self.front.services.status.now().draining {
                break Over::Told(shutdown::refused());
            }
            if upgrade::wanted(&asked) {
                match self.upgrade(&asked, ungreeted.take(), place).await {
                    Ok((codec, unknown)) => {
                        let came = self.came(&asked);
                        return self.session(codec, unknown, came).await;
                    }
                    Err(over) => break over,
                }
            }
            ungreeted = None;
            match self.request(*asked).await {
                Ok(AfterAnswer::Close) => {
                    farewell(self.stream, &[]).await;
                    return None;
                }
                Ok(AfterAnswer::Keep | AfterAnswer::KeepOld) => {}
                Err(over) => break over,
            }
        };
        if let Over::Told(refused) = over {
            farewell(self.stream, &self.front.refusal(&refused, self.bare)).await;
        }
        None
    }

    /// The next head. Before the first: at once; before a later one the connection may idle, and ends without a word.
    async fn head(&mut self, first: Option<Instant>) -> Result<Box<RequestHead>, Over> {
        let times = &self.front.services.times;
        if first.is_none() {
            self.idle(times.http_idle).await?;
        }
        let deadline = first.unwrap_or_else(|| Instant::now() + times.head);
        let leaving = &self.front.leaving.clone();
        loop {
            match head::parse(&self.read) {
                ParsedHead::Partial => {}
                ParsedHead::Request(asked) => {
                    self.read.advance(asked.end);
                    let limiter = &self.front.services.limiter;
                    limiter.heed(self.peer, forwarded::header(&asked.headers, limiter.trusts(self.peer)));
                    return Ok(asked);
                }
                ParsedHead::Broken(refused) => {
                    return Err(self.front.prefaced(self.peer, &self.read).unwrap_or(refused).into());
                }
            }
            let more = tokio::select! {
                biased;
                more = timeout_at(deadline, self.more()) => more.ok(),
                () = leaving.last_word() => None,
            };
            if let Some(Ok(1..)) = more {
                continue;
            }
            metrics::counter!(crate::metrics::INCOMPLETE_HEADS).increment(1);
            // Who has said nothing is told nothing: a proxy would take it for the answer to its next request.
            return Err(match more {
                None if self.read.is_empty() => Over::Silent,
                None if leaving.closing.is_cancelled() => shutdown::refused().into(),
                None => timed_out("the request's head did not come in time").into(),
                Some(_) => Over::Silent,
            });
        }
    }

    /// Waits for a first byte.
    async fn idle(&mut self, limit: Duration) -> Result<(), Over> {
        let deadline = Instant::now() + limit;
        let leaving = &self.front.leaving.clone();
        loop {
            // Some clients send a line break too many behind a body.
            let blank = self.read.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            self.read.advance(blank);
            if !self.read.is_empty() {
                return Ok(());
            }
            // A body's buffer does not belong under an idle connection.
            self.read = BytesMut::new();
            let more = tokio::select! {
                more = timeout_at(deadline, self.more()) => more.ok(),
                // What is here already is answered.
                () = leaving.closing.cancelled() => self.more().now_or_never(),
            };
            if !matches!(more, Some(Ok(1..))) {
                return Err(Over::Silent);
            }
        }
    }

    /// Reads what there is, up to one byte over the limit of a head, by which its judge knows. Cancel-safe.
    async fn more(&mut self) -> std::io::Result<usize> {
        let room = (limits::HEAD_BYTES + 1).saturating_sub(self.read.len());
        self.read.reserve(room.min(1_024));
        (&mut self.stream).take(room as u64).read_buf(&mut self.read).await
    }

    fn client(&self, asked: &RequestHead) -> IpAddr {
        // A proxy may send requests of several clients over one connection.
        let forwarded = asked.headers.get_all(client_address::HEADER).iter().filter_map(|v| v.to_str().ok());
        self.front.services.limiter.client(self.peer, forwarded)
    }

    fn came(&self, asked: &RequestHead) -> Came {
        Came::of(&asked.uri, &asked.headers, self.front.tls.is_some(), self.front.services.limiter.trusts(self.peer))
    }

    /// One request and its answer.
    async fn request(&mut self, asked: RequestHead) -> Result<AfterAnswer, Over> {
        let (client, waits) = (self.client(&asked), asked.waits);
        let (keep, old, length, came) = (asked.keep, asked.old, asked.length, self.came(&asked));
        let reading = BodyReader::new(length)?;
        let limit = self.front.services.times.body;
        let leaving = &self.front.leaving.clone();
        let body = tokio::select! {
            biased;
            body = timeout(limit, self.body(reading, waits, client)) => match body {
                Ok(body) => body?,
                Err(_) => return Err(timed_out("the request's body did not come in time").into()),
            },
            () = leaving.hurry.cancelled() => return Err(shutdown::refused().into()),
        };
        let mut request = Request::new(Body::from(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (asked.method, asked.uri, asked.headers);
        request.extensions_mut().insert(Caller(client));
        request.extensions_mut().insert(came);
        let response = self.handled(request).await.ok_or(Over::Silent)?;
        let then = match (keep && !leaving.draining.is_cancelled(), old) {
            (false, _) => AfterAnswer::Close,
            (true, false) => AfterAnswer::Keep,
            (true, true) => AfterAnswer::KeepOld,
        };
        let (services, bytes) = (&self.front.services, answer::encode(response, self.bare, then));
        let written = answer::write(&mut self.stream, bytes, services.times.stall, &services.limiter, client).await;
        if written { Ok(then) } else { Err(Over::Silent) }
    }

    async fn body(&mut self, mut reading: BodyReader, waits: bool, client: IpAddr) -> Result<Bytes, Over> {
        // Until the handler has it, which makes values of it at once.
        let _held = self.front.services.limiter.holds(client, reading.most()).map_err(Refused::from)?;
        if reading.feed(&mut self.read)? {
            return Ok(reading.body.freeze());
        }
        if waits && reading.body.is_empty() && self.read.is_empty() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| Over::Silent)?;
            self.stream.flush().await.map_err(|_| Over::Silent)?;
        }
        loop {
            if !matches!(self.more().await, Ok(1..)) {
                return Err(Over::Silent);
            }
            if reading.feed(&mut self.read)? {
                return Ok(reading.body.freeze());
            }
        }
    }

    /// None: nobody waits for the answer any more.
    async fn handled(&mut self, request: Request<Body>) -> Option<Response<Bytes>> {
        let router = self.front.router.clone();
        let mut answer = Box::pin(async move {
            let (parts, body) = router.oneshot(request).await.unwrap_or_else(|never| match never {}).into_parts();
            match body.collect().await {
                Ok(body) => Response::from_parts(parts, body.to_bytes()),
                Err(_) => Refused::from(Refusal::new(Code::Internal, "the answer was cut short")).answer(),
            }
        });
        let mut ended: Option<Instant> = None;
        let hurry = &self.front.leaving.hurry.clone();
        loop {
            let (listens, gone) =
                (ended.is_none() && self.read.len() <= limits::HEAD_BYTES, ended.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                response = answer.as_mut() => return Some(response),
                more = self.more(), if listens => match more {
                    Ok(0) => ended = Some(Instant::now() + HALF_CLOSED),
                    Ok(_) => {}
                    Err(_) => return None,
                },
                () = sleep_until(gone), if ended.is_some() => return None,
                // Whether it was done is not known; it may be asked for again, it is done once.
                () = hurry.cancelled() => return Some(self.front.refused(&shutdown::refused())),
            }
        }
    }

    /// Lets it become a WebSocket, and says so. Whoever a proxy speaks for is known by this very request, so their
    /// place is taken here.
    async fn upgrade(
        &mut self,
        asked: &RequestHead,
        unknown: Option<UngreetedPermit>,
        place: &mut Option<HeldQuota>,
    ) -> Result<(Codec, UngreetedPermit), Over> {
        let services = &self.front.services;
        let up = upgrade::judge(asked)?;
        // A later request of a connection has given its permit back.
        let proxied = services.limiter.trusts(self.peer).then(|| self.client(asked));
        let unknown = match unknown {
            Some(unknown) if proxied.is_none() => unknown,
            // Whoever a proxy speaks for is known only now.
            _ => self.front.unknown(proxied.unwrap_or(self.peer)).map_err(Refused::from)?,
        };
        if let Some(client) = proxied {
            *place = services.limiter.connects(client).map_err(Refused::from)?;
        }
        let said = async {
            self.stream.write_all(up.switching().as_bytes()).await?;
            self.stream.flush().await
        };
        match timeout(services.times.stall, said).await {
            Ok(Ok(())) => Ok((up.codec, unknown)),
            _ => Err(Over::Silent),
        }
    }

    /// Leaves nothing of the HTTP connection behind but its stream and what was read behind the head, which is
    /// WebSocket already.
    async fn session(self, codec: Codec, ungreeted: UngreetedPermit, came: Came) -> Option<Box<Session<EdgeBackend>>> {
        let Self { front, stream, read, .. } = self;
        let socket = Socket::new(stream, read.freeze(), codec);
        let session = Handshake::new(front.services.clone(), socket, came).greeted().await;
        drop(ungreeted);
        session.map(Box::new)
    }
}

fn timed_out(why: &str) -> Refused {
    Refused(StatusCode::REQUEST_TIMEOUT, Refusal::unavailable(why))
}
