//! Connections that are refused before their first request: each is told why, in the cheapest way that its peer can
//! read.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Response;
use natterjack_protocol::Refusal;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::Acceptor;
use crate::{
    admission::forwarded,
    http::refused::{Refused, common},
    server::{
        answer::{self, AfterAnswer, farewell},
        capacity::Capacity,
        tls,
    },
    wire::Wire,
};

impl Acceptor {
    /// Nobody is waited for. Over TLS the reason would cost a handshake, the very thing there is too much of: an alert
    /// has to do.
    pub(super) fn refuse(self: &Arc<Self>, stream: TcpStream, refusal: Refusal, tasks: &TaskTracker) {
        let last = self.last_words(refusal);
        match self.farewells.clone().try_acquire_owned() {
            Ok(permit) => {
                tasks.spawn(async move {
                    let _permit = permit;
                    farewell(Wire::Left(stream), &last).await;
                });
            }
            Err(_) => say_at_once(stream, &last),
        }
    }

    fn last_words(&self, refusal: Refusal) -> Vec<u8> {
        if self.tls.is_some() { tls::ACCESS_DENIED.to_vec() } else { self.refusal(&refusal.into(), false) }
    }

    /// There are no open files left, which only others of this process or machine can bring about: the reserve is
    /// ours. The one that was kept for this is given for the connection that waits, and taken back. False: it was no
    /// matter of files.
    pub(super) fn refuse_without_a_file(&self, listener: &TcpListener) -> bool {
        let mut kept = self.spare.lock();
        if kept.take().is_none() {
            *kept = spare();
            return false;
        }
        let waiting = listener.accept().now_or_never();
        let refused = matches!(waiting, Some(Ok(_)));
        if let Some(Ok((stream, _))) = waiting {
            say_at_once(stream, &self.last_words(self.full()));
        }
        *kept = spare();
        refused
    }

    /// A whole answer for a connection that gets no further than this. `bare`: to HEAD.
    pub fn refusal(&self, refused: &Refused, bare: bool) -> Vec<u8> {
        let (head, body) = answer::encode(self.refused(refused), bare, AfterAnswer::Close);
        [head, body].concat()
    }

    pub fn refused(&self, refused: &Refused) -> Response<Bytes> {
        let mut response = refused.answer();
        common(response.headers_mut(), self.services.clock.any_now_ms());
        response
    }

    /// A connection that begins with the PROXY protocol, which is not spoken here: why nothing comes of it.
    pub fn prefaced(&self, peer: IpAddr, first: &[u8]) -> Option<Refused> {
        let sign = forwarded::preface(first)?;
        self.services.limiter.heed(peer, Some(sign));
        Some(Refused::bad_request(
            "the PROXY protocol is not spoken here: let the proxy set `X-Forwarded-For`, and name it in \
             limits.trusted_proxies",
        ))
    }

    pub fn full(&self) -> Refusal {
        metrics::counter!(crate::metrics::CONNECTIONS_REFUSED).increment(1);
        if let Some(times) = self.full.lock().due(Instant::now()) {
            let Capacity { connections, limit, .. } = self.capacity;
            tracing::warn!(
                times,
                connections,
                ?limit,
                "this edge takes no more connections: {}",
                self.capacity.advice()
            );
        }
        Refusal { retry_after_ms: Some(5_000), ..Refusal::unavailable("this edge takes no more connections") }
    }
}

pub(super) fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Into the empty buffer of a new socket. What it has said already is read, because closing over it would reset the
/// connection before the answer is read.
fn say_at_once(stream: TcpStream, last: &[u8]) {
    let Ok(mut stream) = stream.into_std() else { return };
    let _ = stream.write(last);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 4_096]);
}
