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
    door::places::Place,
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
            let Some((connection, ungreeted)) = self.connections.clone().try_acquire_owned().ok().zip(self.ungreeted()) else {
                self.refuse(stream, Self::full(), &tasks);
                continue;
            };
            // Whoever comes through a proxy is known by the head only.
            let place = if self.services.door.trusts(peer) { Ok(None) } else { self.services.door.connects(peer) };
            let place = match place {
                Ok(place) => place,
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
                    () = front.connection(stream, peer, place, ungreeted) => {}
                }
            });
        }
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

    async fn connection(&self, stream: TcpStream, peer: IpAddr, mut place: Option<Place>, ungreeted: OwnedSemaphorePermit) {
        // Boxed: what requests and hello need is gone while the session idles for hours.
        let session = Box::pin(async {
            let deadline = Instant::now() + self.services.times.handshake;
            let stream = self.wire(stream, deadline).await?;
            Connection::new(self, stream, peer).serve(deadline, ungreeted, &mut place).await
        });
        if let Some(session) = session.await {
            session.run().await;
        }
    }

    /// Through the TLS handshake, if this edge speaks TLS. None: it came to nothing, and the connection is over.
    async fn wire(&self, stream: TcpStream, deadline: Instant) -> Option<Wire> {
        let Some(tls) = &self.tls else { return Some(Wire::Plain(stream)) };
        let count = |result: &'static str| metrics::counter!("natterjack_edge_tls_handshakes_total", "result" => result).increment(1);
        match timeout_at(deadline, tls.accept(stream)).await {
            Ok(Accepted::Secure(stream)) => {
                count("ok");
                return Some(Wire::Tls(stream));
            }
            Ok(Accepted::Plain(stream)) => {
                count("plain");
                let refused = Refused::bad_request("this port speaks TLS: use https:// or wss://");
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
    pub fn ungreeted(&self) -> Option<OwnedSemaphorePermit> {
        self.ungreeted.clone().try_acquire_owned().ok()
    }

    pub fn full() -> Refusal {
        metrics::counter!("natterjack_edge_connections_refused_total").increment(1);
        Refusal { retry_after_ms: Some(5_000), ..Refusal::unavailable("this edge takes no more connections") }
    }
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
