//! A connection that has not said who it is. Another type than a session, consumed by hello: nothing of a session can
//! be reached before.

use std::{cell::OnceCell, sync::Arc};

use natterjack_protocol::{
    Code, Refusal, Retry,
    client::{
        close::{self, Close},
        frame::{ClientFrame, Displaced, Hello, ServerFrame, Welcome},
    },
    codec::Codec,
    limits,
};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tracing::Instrument;

use super::{Done, Services, Session, backend::Backend, frame_rate::FrameRate, running::Running};
use crate::{
    address::Came,
    admission::OpenSession,
    auth::Actor,
    devices::hello::{DeviceHello, NotIn},
    sessions::{handle::SessionHandle, socket::Socket},
};

pub struct Handshake<B: Backend> {
    services: Arc<Services<B>>,
    socket: Socket,
    came: Came,
}

/// How waiting for hello ended without a session.
enum End {
    Close(Refusal, Close),
    Displaced(Displaced),
    Silent(Close),
    Peer,
}

impl<B: Backend> Handshake<B> {
    pub fn new(services: Arc<Services<B>>, socket: Socket, came: Came) -> Self {
        Self { services, socket, came }
    }

    /// Waits for a good hello and says welcome. None: there will be no session, the connection is closed.
    pub async fn greeted(mut self) -> Option<Session<B>> {
        let deadline = Instant::now() + self.services.times.hello;
        let mut status = self.services.status.watch();
        let session = async {
            let hello = timeout_at(deadline, self.hello()).await.unwrap_or(Err(End::Silent(close::HELLO_TIMEOUT)));
            let (hello, actor) = hello?;
            // As long as an edge may take to be gone on which another device is in.
            self.admitted(hello, actor).await
        };
        let session = tokio::select! {
            biased;
            session = session => session,
            _ = status.wait_for(|c| c.draining) => Err(End::Silent(close::DRAINING)),
        };
        let end = match session {
            Ok((hello, session)) => return Some(self.welcome(hello, session)),
            Err(end) => end,
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
            End::Displaced(by) => {
                let _ = self.say(&ServerFrame::Displaced(by));
                close::DISPLACED
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
    async fn hello(&mut self) -> Result<(Hello, Actor), End> {
        loop {
            let bytes = match (self.socket.read().await, self.socket.codec()) {
                (Ok(Message::Ping(_) | Message::Pong(_)), _) => continue,
                (Ok(Message::Binary(bytes)), Codec::Msgpack) => bytes,
                (Ok(Message::Text(text)), Codec::Json) => text.into(),
                (Ok(Message::Close(_)), _) => return Err(End::Peer),
                (Err(gone), _) => return Err(gone.close().map_or(End::Peer, End::Silent)),
                (Ok(_), _) => {
                    let refusal =
                        Refusal::new(Code::BadFrame, "text frames are for JSON, binary frames for MessagePack");
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

    /// Says who it is and what it may do here.
    async fn check(&self, hello: Hello) -> Result<(Hello, Actor), End> {
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
        Ok((hello, actor))
    }

    /// Takes its slot.
    async fn admitted(&self, hello: Hello, actor: Actor) -> Result<(Hello, OpenSession), End> {
        let (name, app, session) = (hello.name.as_deref(), hello.app.as_deref(), hello.session.clone());
        let says = DeviceHello::checked(hello.class, name, app, session).map_err(refused)?;
        let slot = self.services.admission.admit(actor, &hello.device, says).await.map_err(not_in)?;
        let session = slot.open(self.socket.codec(), self.came.clone(), |handle| self.greet(handle)).map_err(not_in)?;
        Ok((hello, session))
    }

    fn greet(&self, handle: &SessionHandle) {
        let services = &self.services;
        handle.frame(&ServerFrame::Welcome(Box::new(Welcome {
            session: handle.session.clone(),
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

    fn welcome(self, hello: Hello, open: OpenSession) -> Session<B> {
        let Self { services, socket, .. } = self;
        let handle = open.handle().clone();
        handle.outbox.writes_to(socket.writer());
        let mut running = Running::default();
        {
            let (services, handle) = (services.clone(), handle.clone());
            let span = handle.span();
            running.push(
                async move { Done::Attached(services.backend.attach(&handle, hello.cursors, hello.synced).await) }
                    .instrument(span),
            );
        }
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
            gives_back: false,
            heard: Instant::now(),
            acked: None,
            span: OnceCell::new(),
        }
    }
}

fn refused(refusal: Refusal) -> End {
    let why = match (refusal.code, refusal.code.retry()) {
        (Code::DeviceLimit, _) => close::DEVICE_LIMIT,
        (Code::Conflict, _) => close::REPLACED,
        (_, Retry::AfterLogin) => close::UNAUTHORIZED,
        (_, Retry::Later) => close::UNAVAILABLE,
        _ => close::BAD_FRAME,
    };
    End::Close(refusal, why)
}

fn not_in(why: NotIn) -> End {
    match why {
        NotIn::Displaced(by) => End::Displaced(by),
        NotIn::Refused(refusal) => refused(refusal),
    }
}
