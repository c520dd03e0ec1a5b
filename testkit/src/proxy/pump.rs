//! The connections of a proxy: accepted, passed on in both directions, reset.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{Admitted, Control, Filter, Flow, Plain, Side};

/// The accept loop; aborting it ends every connection.
pub(super) async fn serve<F: Filter>(
    listen: SocketAddr,
    target: SocketAddr,
    control: Arc<Control>,
    filter: impl Fn() -> F + Send + 'static,
) -> AbortHandle {
    let listener = TcpListener::bind(listen).await.unwrap_or_else(|e| panic!("proxy on {listen}: {e}"));
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((client, _)) = accepted else { continue };
                    if *control.refuse.borrow() {
                        continue;
                    }
                    connections.spawn(connection(client, target, control.clone(), filter()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    task.abort_handle()
}

async fn connection<F: Filter>(mut client: TcpStream, target: SocketAddr, control: Arc<Control>, filter: F) {
    let slow = matches!(*control.flow(Side::FromServer).borrow(), Flow::Slow(_));
    let Ok(mut server) = connect(target, slow).await else { return };
    let _counted = Counted::new(&control.open);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut resets = control.resets.subscribe();
    let hard = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let forth = pump(from_client, to_server, &control, Side::FromClient, Plain);
        let back = pump(from_server, to_client, &control, Side::FromServer, filter);
        let both = async { tokio::try_join!(forth, back).map(|_| ()) };
        tokio::select! {
            ended = both => ended.is_err(),
            _ = resets.changed() => true,
        }
    };
    if hard {
        // Without lingering, closing sends RST.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

async fn connect(target: SocketAddr, slow: bool) -> std::io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if slow {
        socket.set_recv_buffer_size(32 * 1024)?;
    }
    socket.connect(target).await
}

/// Ends with the end of its direction, or asks for a reset.
async fn pump<F: Filter>(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    control: &Control,
    side: Side,
    filter: F,
) -> Result<(), Reset> {
    // What is on its way: enough that a delay is not a limit of the rate.
    let (hand_over, on_its_way) = mpsc::channel(64);
    tokio::join!(take(from, hand_over, control, side, filter), deliver(to, on_its_way)).1
}

struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    then_reset: bool,
}

async fn take<F: Filter>(
    mut from: ReadHalf<'_>,
    to: mpsc::Sender<Piece>,
    control: &Control,
    side: Side,
    mut filter: F,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = to.closed() => return,
        };
        let n = match read {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        let admitted = {
            let _counted = Counted::new(control.waits(side));
            control.admit(side, n).await
        };
        let (n, by, then_reset) = match admitted {
            Admitted::All(by) => (n, by, false),
            Admitted::None => continue,
            Admitted::ThenReset(left) => (left.min(n), Duration::ZERO, true),
        };
        let mut bytes = Vec::new();
        filter.pass(&buffer[..n], &mut bytes);
        if to.send(Piece { due: Instant::now() + by, bytes, then_reset }).await.is_err() || then_reset {
            return;
        }
    }
}

async fn deliver(mut to: WriteHalf<'_>, mut pieces: mpsc::Receiver<Piece>) -> Result<(), Reset> {
    while let Some(Piece { due, bytes, then_reset }) = pieces.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            break;
        }
        if then_reset {
            return Err(Reset);
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}

struct Reset;

/// One more for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
