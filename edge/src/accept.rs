//! Before step 2: connections. Each gets a task that reads requests (`connection`) until one of them makes a session of it.
//!
//! Bounded: connections at all, those that have not said who they are, and (`door`) those of one address. Over a limit: told so, and gone.
//! A TLS handshake (`tls`) belongs to what happens under these limits, and it and the first head have one deadline together.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use natterjack_protocol::{Refusal, limits};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    answer::{self, Then, farewell},
    connection::Connection,
    door::{forwarded, places::Place},
    http::refused::{Refused, common},
    session::Services,
    tls::{self, Accepted, Tls},
    wire::Wire,
};

/// Connections that wait to be accepted, in the kernel: a reconnect of everybody after an edge died.
const BACKLOG: u32 = 4_096;
/// After a failed accept (usually: no file descriptors left).
const PAUSE: Duration = Duration::from_millis(50);
/// Refused connections that are told why at the same time, a second each at most. Others get the answer if it arrives before the reset.
const FAREWELLS: usize = 256;

pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted edge takes its port back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

pub struct Front {
    pub services: Arc<Services>,
    pub router: Router,
    /// Cancelled when this edge begins to leave.
    pub draining: CancellationToken,
    pub tls: Option<Arc<Tls>>,
    connections: Arc<Semaphore>,
    ungreeted: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
}

impl Front {
    pub fn new(
        services: Arc<Services>,
        router: Router,
        draining: CancellationToken,
        max_connections: usize,
        tls: Option<Arc<Tls>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            services,
            router,
            draining,
            tls,
            connections: Arc::new(Semaphore::new(max_connections)),
            ungreeted: Arc::new(Semaphore::new(limits::UNGREETED.min(max_connections))),
            farewells: Arc::new(Semaphore::new(FAREWELLS)),
        })
    }

    /// Accepts until `full_stop`, also while draining: who comes then is told so. Who comes later waits in the kernel for whoever accepts
    /// next. Every connection's task is tracked and ends with `end`.
    pub async fn accept(
        self: Arc<Self>,
        listener: Arc<TcpListener>,
        tasks: TaskTracker,
        full_stop: CancellationToken,
        end: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = full_stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(e) => {
                    tracing::warn!(error = %e, "accept; if too many files are open, raise the limit or lower max_connections");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (connection, place, unknown) = match self.admit(peer) {
                Ok(admitted) => admitted,
                Err(refusal) => {
                    self.refuse(stream, refusal, &tasks);
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (front, end) = (self.clone(), end.clone());
            tasks.spawn(async move {
                let _counted = Counted::new(connection);
                // Dropping a session at `end` is safe: its cleanup is a guard, its sends may be repeated.
                tokio::select! {
                    () = end.cancelled() => {}
                    () = front.connection(stream, peer, place, unknown) => {}
                }
            });
        }
    }

    /// Places for a connection: among all, of its address, and among those that have not said who they are.
    fn admit(&self, peer: IpAddr) -> Result<(OwnedSemaphorePermit, Option<Place>, Unknown), Refusal> {
        let connection = self.connections.clone().try_acquire_owned().map_err(|_| Self::full())?;
        let door = &self.services.door;
        if door.trusts(peer) {
            // Whoever comes through a proxy is known by the head only.
            return Ok((connection, None, self.unknown_of(None)?));
        }
        let unknown = self.unknown(peer)?;
        Ok((connection, door.connects(peer)?, unknown))
    }

    /// Nobody is waited for. Over TLS the reason would cost a handshake, the very thing there is too much of: an alert has to do.
    fn refuse(self: &Arc<Self>, stream: TcpStream, refusal: Refusal, tasks: &TaskTracker) {
        let last = if self.tls.is_some() { tls::ACCESS_DENIED.to_vec() } else { self.refusal(&refusal.into()) };
        match self.farewells.clone().try_acquire_owned() {
            Ok(permit) => {
                tasks.spawn(async move {
                    let _permit = permit;
                    farewell(Wire::Plain(stream), &last).await;
                });
            }
            // Into the empty buffer of a new socket.
            Err(_) => drop(stream.try_write(&last)),
        }
    }

    async fn connection(&self, stream: TcpStream, peer: IpAddr, mut place: Option<Place>, unknown: Unknown) {
        // Boxed: what requests and hello need is gone while the session idles for hours.
        let session = Box::pin(async {
            let deadline = Instant::now() + self.services.times.handshake;
            let stream = self.wire(stream, peer, deadline).await?;
            Connection::new(self, stream, peer).serve(deadline, unknown, &mut place).await
        });
        if let Some(session) = session.await {
            session.run().await;
        }
    }

    /// Through the TLS handshake, if this edge speaks TLS. None: it came to nothing, and the connection is over.
    async fn wire(&self, stream: TcpStream, peer: IpAddr, deadline: Instant) -> Option<Wire> {
        let Some(tls) = &self.tls else { return Some(Wire::Plain(stream)) };
        let count = |result: &'static str| metrics::counter!("natterjack_edge_tls_handshakes_total", "result" => result).increment(1);
        match timeout_at(deadline, tls.accept(stream)).await {
            Ok(Accepted::Secure(stream)) => {
                count("ok");
                return Some(Wire::Tls(stream));
            }
            Ok(Accepted::Plain(stream)) => {
                count("plain");
                let mut first = [0; forwarded::PREFACE];
                // There already, or it is not told apart.
                let there = stream.peek(&mut first).await.unwrap_or_default();
                let prefaced = self.prefaced(peer, &first[..there]);
                let refused = prefaced.unwrap_or_else(|| Refused::bad_request("this port speaks TLS: use https:// or wss://"));
                farewell(Wire::Plain(stream), &self.refusal(&refused)).await;
            }
            Ok(Accepted::Failed(e)) => {
                count("failed");
                tracing::debug!(error = %e, "TLS handshake");
            }
            Err(_) => count("late"),
        }
        None
    }

    /// A whole answer for a connection that gets no further than this.
    pub fn refusal(&self, refused: &Refused) -> Vec<u8> {
        let mut response = refused.answer();
        common(response.headers_mut(), self.services.clock.any_now_ms());
        let (head, body) = answer::encode(response, false, Then::Close);
        [head, body].concat()
    }

    /// A place among those that have not said who they are.
    pub fn unknown(&self, client: IpAddr) -> Result<Unknown, Refusal> {
        self.unknown_of(self.services.door.waits(client)?)
    }

    fn unknown_of(&self, place: Option<Place>) -> Result<Unknown, Refusal> {
        let permit = self.ungreeted.clone().try_acquire_owned().map_err(|_| Self::full())?;
        Ok(Unknown { _permit: permit, _place: place })
    }

    /// A connection that begins with the PROXY protocol, which is not spoken here: why nothing comes of it.
    pub fn prefaced(&self, peer: IpAddr, first: &[u8]) -> Option<Refused> {
        let sign = forwarded::preface(first)?;
        self.services.door.heed(peer, Some(sign));
        Some(Refused::bad_request(
            "the PROXY protocol is not spoken here: let the proxy set `X-Forwarded-For`, and name it in limits.trusted_proxies",
        ))
    }

    pub fn full() -> Refusal {
        metrics::counter!("natterjack_edge_connections_refused_total").increment(1);
        Refusal { retry_after_ms: Some(5_000), ..Refusal::unavailable("this edge takes no more connections") }
    }
}

/// A connection that has not said who it is. Its place is given back when this is dropped.
pub struct Unknown {
    _permit: OwnedSemaphorePermit,
    _place: Option<Place>,
}

/// Keeps the gauge of open connections, with the permit.
struct Counted(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Counted {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("natterjack_edge_connections").increment(1.0);
        Self(permit)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("natterjack_edge_connections").decrement(1.0);
    }
}
