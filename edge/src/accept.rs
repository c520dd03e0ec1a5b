//! Before step 2: connections. Each gets a task that reads its head once, then becomes a session or goes to hyper with its bytes:
//! hyper's buffers do not belong under 100,000 idle sockets.
//!
//! Bounded: connections at all, those that have not said who they are, and (`door`) those of one address. Over a limit: told so, and gone.
//! A TLS handshake (`tls`) belongs to what happens under these limits, and it and the head have one deadline together.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::BytesMut;
use hyper::{Request, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use natterjack_protocol::{Refusal, limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    door::{client, places::Place},
    http::extract::Caller,
    rewind::Rewind,
    session::{Services, Session, socket::Socket, ungreeted::Ungreeted},
    tls::{self, Accepted, Tls},
    upgrade::{self, Head},
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
    tls: Option<Arc<Tls>>,
    connections: Arc<Semaphore>,
    ungreeted: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
}

/// What the head of a connection made of it.
enum Kind {
    Session(Box<Session<Wire>>),
    Http(Rewind<Wire>),
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
            let permits = self.connections.clone().try_acquire_owned().ok().zip(self.ungreeted.clone().try_acquire_owned().ok());
            let Some((connection, ungreeted)) = permits else {
                metrics::counter!("natterjack_edge_connections_refused_total").increment(1);
                let refusal = Refusal { retry_after_ms: Some(5_000), ..Refusal::unavailable("this edge takes no more connections") };
                self.refuse(stream, refusal, &tasks);
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
        let last = if self.tls.is_some() { tls::ACCESS_DENIED.to_vec() } else { self.refusal(refusal.code.http_status(), &refusal) };
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
        // Boxed: what is needed until hello is gone while the session idles for hours.
        let kind = Box::pin(self.handshake(stream, peer, &mut place)).await;
        drop(ungreeted);
        match kind {
            Some(Kind::Session(session)) => session.run().await,
            Some(Kind::Http(stream)) => Box::pin(self.http(stream, peer)).await,
            None => {}
        }
    }

    async fn handshake(&self, stream: TcpStream, peer: IpAddr, place: &mut Option<Place>) -> Option<Kind> {
        let deadline = Instant::now() + self.services.times.handshake;
        let mut stream = self.wire(stream, deadline).await?;
        let mut bytes = BytesMut::with_capacity(1_024);
        let head = timeout_at(deadline, read_head(&mut stream, &mut bytes)).await.ok().flatten();
        let Some(head) = head else {
            metrics::counter!("natterjack_edge_half_heads_total").increment(1);
            return None;
        };
        match head {
            Head::Http => Some(Kind::Http(Rewind::new(bytes.freeze(), stream))),
            Head::Upgrade(_) if self.services.gate.now().draining => {
                let refusal = Refusal::unavailable("this edge is leaving: connect to another");
                self.answer(stream, 503, &refusal).await;
                None
            }
            Head::Upgrade(up) => {
                if self.services.door.trusts(peer) {
                    let forwarded = upgrade::forwarded(&bytes);
                    let client = self.services.door.client(peer, forwarded.iter().map(String::as_str));
                    match self.services.door.connects(client) {
                        Ok(taken) => *place = taken,
                        Err(refusal) => {
                            self.answer(stream, refusal.code.http_status(), &refusal).await;
                            return None;
                        }
                    }
                }
                stream.write_all(up.switching().as_bytes()).await.ok()?;
                stream.flush().await.ok()?;
                let rest = bytes.split_off(up.end).to_vec();
                drop(bytes);
                let socket = Socket::new(stream, rest, up.codec).await;
                let session = Ungreeted::new(self.services.clone(), socket).greeted().await?;
                Some(Kind::Session(Box::new(session)))
            }
            Head::Refused(refusal) | Head::Broken(refusal) => {
                self.answer(stream, refusal.code.http_status(), &refusal).await;
                None
            }
            Head::Partial => None,
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
                let refusal = Refusal::invalid("this port speaks TLS: use https:// or wss://");
                self.answer(Wire::Plain(stream), refusal.code.http_status(), &refusal).await;
            }
            Ok(Accepted::Failed(e)) => {
                count("failed");
                tracing::debug!(error = %e, "TLS handshake");
            }
            Err(_) => count("late"),
        }
        None
    }

    fn refusal(&self, status: u16, refusal: &Refusal) -> Vec<u8> {
        upgrade::refusal(status, refusal, self.services.clock.any_now_ms()).into_bytes()
    }

    async fn answer(&self, stream: Wire, status: u16, refusal: &Refusal) {
        farewell(stream, &self.refusal(status, refusal)).await;
    }

    async fn http(&self, stream: Rewind<Wire>, peer: IpAddr) {
        // A proxy may send requests of several clients over one connection.
        let service = service_fn(|mut request: Request<hyper::body::Incoming>| {
            let forwarded = request.headers().get_all(client::HEADER).iter().filter_map(|v| v.to_str().ok());
            let caller = Caller(self.services.door.client(peer, forwarded));
            request.extensions_mut().insert(caller);
            self.router.clone().oneshot(request.map(Body::new))
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            // Also how long a connection may idle between two requests.
            .header_read_timeout(self.services.times.heartbeat)
            .max_buf_size(limits::HEAD_BYTES * 2)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(served);
        let result = tokio::select! {
            result = served.as_mut() => result,
            () = self.draining.cancelled() => {
                // Finishes the request it is in.
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(e) = result {
            tracing::debug!(error = %e, "http connection");
        }
    }
}

/// The last that is said on a connection; a second at most.
async fn farewell(mut stream: Wire, last: &[u8]) {
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

/// None: the connection ended in the middle of its head.
async fn read_head(stream: &mut Wire, bytes: &mut BytesMut) -> Option<Head> {
    loop {
        // At most one byte over the limit, by which the judge knows.
        let room = (limits::HEAD_BYTES + 1).saturating_sub(bytes.len());
        if (&mut *stream).take(room as u64).read_buf(bytes).await.ok()? == 0 {
            return None;
        }
        match upgrade::judge(bytes) {
            Head::Partial => {}
            head => return Some(head),
        }
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
