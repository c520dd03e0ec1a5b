//! Before step 2: connections. Each gets a task that reads requests (`connection`) until one of them makes a session
//! of it.
//!
//! Bounded: connections at all, those that have not said who they are, and (`admission/limits`) those of one address.
//! Over a limit: told so, and gone. Whoever the kernel has connected is answered: also at the very end, when this edge
//! leaves (`last`). A TLS handshake (`tls`) belongs to what happens under these limits, and it and the first head have
//! one deadline together.

mod refuse;

use std::{
    fs::File,
    io,
    net::{IpAddr, Shutdown, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant as StdInstant},
};

use axum::Router;
use futures_util::future::select;
use natterjack_protocol::{Refusal, limits};
use natterjack_runtime::seldom::Seldom;
use parking_lot::Mutex;
use socket2::{SockFilter, SockRef};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use self::refuse::spare;
use crate::{
    admission::{address_quota::HeldQuota, forwarded},
    http::refused::Refused,
    server::{
        answer::farewell,
        capacity::Capacity,
        connection::HttpConnection,
        shutdown::ShutdownPhases,
        tls::{Accepted, Tls},
    },
    session::{Services, Session, backend::EdgeBackend},
    wire::Wire,
};

/// Connections that wait to be accepted, in the kernel: a reconnect of everybody after an edge died.
const BACKLOG: u32 = 4_096;
/// After a failed accept (usually: no file descriptors left).
const PAUSE: Duration = Duration::from_millis(50);
/// From the last handshake that was begun to the connection: a round trip and time to spare.
const HANDSHAKES: Duration = Duration::from_millis(200);
/// Where the kernel does not let handshakes be stopped, connections come without an end.
const LAST: Duration = Duration::from_secs(1);
/// For a listener: TCP segments that begin a handshake (SYN without ACK; byte 13 has the flags) are dropped, so
/// whoever sends one tries again a second later, and finds nobody listening. Everything else passes, of the handshakes
/// under way and of connections alike.
const NO_NEW: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted edge takes its port back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

pub struct Acceptor {
    pub services: Arc<Services<EdgeBackend>>,
    pub router: Router,
    pub leaving: ShutdownPhases,
    pub tls: Option<Arc<Tls>>,
    capacity: Capacity,
    /// Connections so far; the id of the next one in logs.
    opened: AtomicU64,
    connections: Arc<Semaphore>,
    ungreeted: Arc<Semaphore>,
    /// For connections that are told why they are refused, a second each at most. Others get the answer if it arrives
    /// before the reset.
    farewells: Arc<Semaphore>,
    full: Mutex<Seldom>,
    failed: Mutex<Seldom>,
    /// An open file that stands in for a connection when there are no more.
    spare: Mutex<Option<File>>,
}

impl Acceptor {
    pub fn new(
        services: Arc<Services<EdgeBackend>>,
        router: Router,
        leaving: ShutdownPhases,
        capacity: Capacity,
        tls: Option<Arc<Tls>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            services,
            router,
            leaving,
            tls,
            connections: Arc::new(Semaphore::new(capacity.connections)),
            ungreeted: Arc::new(Semaphore::new(limits::UNGREETED.min(capacity.connections))),
            farewells: Arc::new(Semaphore::new(capacity.farewells)),
            capacity,
            opened: AtomicU64::new(1),
            full: Mutex::default(),
            failed: Mutex::default(),
            spare: Mutex::new(spare()),
        })
    }

    /// Accepts until `leaving.closing`, also while draining: who comes then is told so. Who comes later waits in the
    /// kernel for whoever accepts next, if anybody will. Every connection's task is tracked and ends with `end`.
    pub async fn accept(self: Arc<Self>, listener: Arc<TcpListener>, tasks: TaskTracker, end: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.leaving.closing.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            self.take(&listener, accepted, &tasks, &end).await;
        }
        if self.services.status.now().draining {
            self.last(&listener, &tasks, &end).await;
        }
    }

    /// A listener that is closed resets what it has not handed over, and whoever was connected there would wait for an
    /// answer in vain. So first no more handshakes are begun, then what has come of those before is taken, then nobody
    /// listens any more.
    async fn last(self: &Arc<Self>, listener: &TcpListener, tasks: &TaskTracker, end: &CancellationToken) {
        let socket = SockRef::from(listener);
        if let Err(e) = socket.attach_filter(&NO_NEW) {
            tracing::debug!(error = %e, "handshakes cannot be stopped here; a connection made in the last moment may \
                be reset");
        }
        let last = Instant::now() + LAST;
        while let Ok(accepted) = timeout_at(last.min(Instant::now() + HANDSHAKES), listener.accept()).await {
            self.take(listener, accepted, tasks, end).await;
        }
        let _ = socket.shutdown(Shutdown::Both);
    }

    async fn take(
        self: &Arc<Self>,
        listener: &TcpListener,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        tasks: &TaskTracker,
        end: &CancellationToken,
    ) {
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(e) => {
                if let Some(times) = self.failed.lock().due(StdInstant::now()) {
                    tracing::warn!(error = %e, times, "a connection could not be accepted; it is told so if that is \
                        possible");
                }
                if !self.refuse_without_a_file(listener) {
                    tokio::time::sleep(PAUSE).await;
                }
                return;
            }
        };
        let (connection, place, unknown) = match self.admit(peer) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(stream, refusal, tasks),
        };
        let _ = stream.set_nodelay(true);
        let (front, tasks, end) = (self.clone(), tasks.clone(), end.clone());
        tasks.clone().spawn(async move {
            let counted = Counted::new(connection);
            let greeted = end.run_until_cancelled(front.greeted(stream, peer, place, unknown)).await.flatten();
            if let Some((session, place)) = greeted {
                // A task of its own: what requests and hello need is gone while the session idles for hours.
                tasks.spawn(run(session, counted, place, end));
            }
        });
    }

    /// Permits for a connection: among all, of its address, and among those that have not said who they are.
    fn admit(&self, peer: IpAddr) -> Result<(OwnedSemaphorePermit, Option<HeldQuota>, UngreetedPermit), Refusal> {
        let connection = self.connections.clone().try_acquire_owned().map_err(|_| self.full())?;
        let limiter = &self.services.limiter;
        if limiter.trusts(peer) {
            // Whoever comes through a proxy is known by the head only.
            return Ok((connection, None, self.unknown_of(None)?));
        }
        let unknown = self.unknown(peer)?;
        Ok((connection, limiter.connects(peer)?, unknown))
    }

    /// The session that the connection becomes; None: it is over. With the place of its address.
    async fn greeted(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        mut place: Option<HeldQuota>,
        unknown: UngreetedPermit,
    ) -> Option<(Box<Session<EdgeBackend>>, Option<HeldQuota>)> {
        let span = tracing::info_span!("connection", id = self.opened.fetch_add(1, Relaxed), %peer);
        let greeted = async {
            let deadline = Instant::now() + self.services.times.handshake;
            let stream = self.wire(stream, peer, deadline).await?;
            HttpConnection::new(self, stream, peer).serve(deadline, unknown, &mut place).await
        };
        // Boxed: between two requests a connection may idle, and the future around this one holds it twice.
        let session = Box::pin(greeted.instrument(span)).await?;
        Some((session, place))
    }

    /// Through the TLS handshake, if this edge speaks TLS. None: it came to nothing, and the connection is over.
    async fn wire(&self, stream: TcpStream, peer: IpAddr, deadline: Instant) -> Option<Wire> {
        let Some(tls) = &self.tls else { return Some(Wire::Left(stream)) };
        let count =
            |result: &'static str| metrics::counter!(crate::metrics::TLS_HANDSHAKES, "result" => result).increment(1);
        match timeout_at(deadline, tls.accept(stream)).await {
            Ok(Accepted::Secure(stream)) => {
                count("ok");
                return Some(Wire::Right(Either::Left(stream)));
            }
            Ok(Accepted::Plain(stream)) => {
                count("plain");
                let mut first = [0; forwarded::PREFACE];
                // There already, or it is not told apart.
                let there = stream.peek(&mut first).await.unwrap_or_default();
                let prefaced = self.prefaced(peer, &first[..there]);
                let refused =
                    prefaced.unwrap_or_else(|| Refused::bad_request("this port speaks TLS: use https:// or wss://"));
                farewell(Wire::Left(stream), &self.refusal(&refused, false)).await;
            }
            Ok(Accepted::Failed(e)) => {
                count("failed");
                tracing::debug!(error = %e, "TLS handshake");
            }
            Err(_) => count("late"),
        }
        None
    }

    /// A place among those that have not said who they are.
    pub fn unknown(&self, client: IpAddr) -> Result<UngreetedPermit, Refusal> {
        self.unknown_of(self.services.limiter.waits(client)?)
    }

    fn unknown_of(&self, place: Option<HeldQuota>) -> Result<UngreetedPermit, Refusal> {
        let permit = self.ungreeted.clone().try_acquire_owned().map_err(|_| self.full())?;
        Ok(UngreetedPermit { _permit: permit, _place: place })
    }
}

/// Until the session ends, or everything does: dropping it is safe, its cleanup is a guard, its sends may be repeated.
/// What this future holds, each idle connection holds.
async fn run(session: Box<Session<EdgeBackend>>, _counted: Counted, _place: Option<HeldQuota>, end: CancellationToken) {
    select(pin!(end.cancelled()), pin!(session.run())).await;
}

/// A connection that has not said who it is. Its place is given back when this is dropped.
pub struct UngreetedPermit {
    _permit: OwnedSemaphorePermit,
    _place: Option<HeldQuota>,
}

/// Keeps the gauge of open connections, with the permit.
struct Counted(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Counted {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(crate::metrics::CONNECTIONS).increment(1.0);
        Self(permit)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(crate::metrics::CONNECTIONS).decrement(1.0);
    }
}
