//! What a connection runs over: TCP, or TLS on it. One type, so that everything behind `accept` exists once.

use tokio::{io::DuplexStream, net::TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// Left: plain. TLS is boxed, so that a plain connection does not pay for its size. A pipe in memory is what a client
/// speaks over in tests of loops without sockets.
pub type Wire = Either<TcpStream, Either<Box<TlsStream<TcpStream>>, DuplexStream>>;

/// When it is dropped, nothing that was written and not taken is kept for the other side.
pub fn reset_at_close(wire: &Wire) {
    let tcp = match wire {
        Either::Left(tcp) => tcp,
        Either::Right(Either::Left(tls)) => tls.get_ref().0,
        Either::Right(Either::Right(_)) => return,
    };
    // Fails on a socket that is gone already.
    let _ = tcp.set_zero_linger();
}
