//! A connection that has not said who it is. Another type than a session, consumed by hello: nothing of a session can
//! be reached before.

use std::{cell::OnceCell, sync::Arc};

use futures_util::stream::FuturesUnordered;
use natterjack_protocol::{
    Code, Refusal, Retry, Token,
    client::{
        close::{self, Close},
        frame::{ClientFrame, Hello, ServerFrame, Welcome},
    },
    codec::Codec,
    limits,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tokio_tungstenite::tungstenite::Message;
use tracing::Instrument;

use super::{Done, Services, Session, backend::Backend, frame_rate::FrameRate, socket::Socket};
use crate::{address::Came, admission::OpenSession, sessions::handle::SessionHandle};

pub struct Handshake<S, B: Backend> {
    services: Arc<Services<B>>,
    socket: Socket<S>,
    came: Came,
}

/// How waiting for hello ended without a session.
enum End {
    Close(Refusal, Close),
    Silent(Close),
    Peer,
}

impl<S: AsyncRead + AsyncWrite + Unpin, B: Backend> Handshake<S, B> {
    pub fn new(services: Arc<Services<B>>, socket: Socket<S>, came: Came) -> Self {
        Self { services, socket, came }
    }

    /// Waits for a good hello and says welcome. None: there will be no session, the connection is closed.
    pub async fn greeted(mut self) -> Option<Session<S, B>> {
        let deadline = Instant::now() + self.services.times.hello;
        let mut status = self.services.status.watch();
        let hello = tokio::select! {
            biased;
            hello = timeout_at(deadline, self.hello()) => hello,
            _ = status.wait_for(|c| c.draining) => Ok(Err(End::Silent(close::DRAINING))),
        };
        let end = match hello {
            Ok(Ok((hello, session))) => return Some(self.welcome(hello, session)),
            Ok(Err(end)) => end,
            Err(_) => End::Silent(close::HELLO_TIMEOUT),
        };
        let why = match end {
            End::Peer => {
                self.socket.finish().await;
                return None;
            }
            End::Silent(why) => why,
            End::Close(refusal, why) => {
                let _ = self.say(&ServerFrame::error(None, refusal));
                why
            }
        };
        metrics::counter!(crate::metrics::CLOSES, "code" => why.code.to_string()).increment(1);
        self.socket.close(why).await;
        None
    }

    fn say(&mut self, frame: &ServerFrame) -> Result<(), End> {
        let bytes = frame.encode(self.socket.codec());
        self.socket.feed([bytes]).map_err(|_| End::Peer)
    }

    /// The first frame has to be a hello: what else it is, is refused, and that is the end.
    async fn hello(&mut self) -> Result<(Hello, OpenSession), End> {
        loop {
            let bytes = match (self.socket.read().await, self.socket.codec()) {
                (Ok(Message::Ping(_) | Message::Pong(_)), _) => continue,
                (Ok(Message::Binary(bytes)), Codec::Msgpack) => bytes,
                (Ok(Message::Text(text)), Codec::Json) => text.into(),
                (Ok(Message::Close(_)), _) => return Err(End::Peer),
                (Err(gone), _) => return Err(gone.close().map_or(End::Peer, End::Silent)),
                (Ok(_), _) => {
                    let refusal = Refusal::new(Code::BadFrame, "text frames are for JSON, binary frames for MessagePack");
                    return Err(End::Close(refusal, close::BAD_FRAME));
                }
            };
            let (r, refusal) = match ClientFrame::decode(self.socket.codec(), &bytes) {
                Ok(ClientFrame::Hello(hello)) => return self.check(hello).await,
                Ok(ClientFrame::Bye) => return Err(End::Silent(close::BYE)),
                Ok(other) => (super::commands::request(&other), Refusal::new(Code::Unauthorized, "say hello first")),
                Err(bad) => (bad.r, bad.refusal),
            };
            self.say(&ServerFrame::error(r, refusal))?;
            return Err(End::Silent(close::BAD_FRAME));
        }
    }

    /// Says who it is and what it may do here, and takes its slot.
    async fn check(&self, hello: Hello) -> Result<(Hello, OpenSession), End> {
        let refused = |refusal: Refusal| {
            let why = match refusal.code.retry() {
                Retry::AfterLogin => close::UNAUTHORIZED,
                Retry::Later => close::UNAVAILABLE,
                _ => close::BAD_FRAME,
            };
            End::Close(refusal, why)
        };
        if self.services.status.now().draining {
            return Err(End::Silent(close::DRAINING));
        }
        let actor = self.services.backend.verify(&hello.token).await.map_err(refused)?;
        self.services.limiter.greets(&actor.user).map_err(refused)?;
        if hello.cursors.len() > limits::CURSORS_PER_HELLO {
            let why = format!(
                "cursors: {} of them, at most {} are allowed: send the rest with `sync`",
                hello.cursors.len(),
                limits::CURSORS_PER_HELLO
            );
            return Err(refused(Refusal::invalid(why)));
        }
        let slot = self.services.admission.admit(actor, &hello.device, hello.class).await.map_err(refused)?;
        let session = slot.open(self.socket.codec(), self.came.clone(), |handle| self.greet(handle)).map_err(refused)?;
        Ok((hello, session))
    }

    fn greet(&self, handle: &SessionHandle) {
        let services = &self.services;
        handle.frame(&ServerFrame::Welcome(Box::new(Welcome {
            session: Token::mint('s', rand::random()),
            user: handle.user.clone(),
            now: services.clock.any_now_ms(),
            heartbeat_ms: services.times.heartbeat.as_millis() as u64,
            edge_ping_ms: services.times.edge_ping.as_millis() as u64,
            silence_ms: services.times.heartbeat_timeout.as_millis() as u64,
            edge: services.edge.clone(),
            limits: services.limits.clone(),
        })));
        if services.status.now().degraded() {
            handle.frame(&ServerFrame::Degraded { on: true });
        }
    }

    fn welcome(self, hello: Hello, open: OpenSession) -> Session<S, B> {
        let Self { services, socket, .. } = self;
        let handle = open.handle().clone();
        let running = FuturesUnordered::new();
        let attach: futures_util::future::BoxFuture<'static, Done> = {
            let (services, handle) = (services.clone(), handle.clone());
            let span = handle.span();
            Box::pin(async move { Done::Attached(services.backend.attach(&handle, hello.cursors, hello.synced).await) }.instrument(span))
        };
        running.push(attach);
        Session {
            services,
            handle,
            open: Some(open),
            socket,
            leaving: false,
            attached: false,
            whole: false,
            sends: None,
            running,
            requests: 0,
            rate: FrameRate::of_session(Instant::now().into_std()),
            bad_frames: 0,
            heard: Instant::now(),
            acked: None,
            span: OnceCell::new(),
        }
    }
}
