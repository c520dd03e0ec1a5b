//! A TCP proxy that breaks connections on purpose: stalls, one-way cuts, resets, an end after n bytes. There is no
//! netem here.

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
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Pass,
    /// They arrive so much later: a slow server or a long way.
    Late(Duration),
    /// So many bytes a second of each connection: a slow line. Connections made while it is set have small buffers,
    /// too, so that whoever writes notices it.
    Slow(usize),
    /// They wait, as behind a dead link; a later `Pass` lets them through.
    Stall,
    /// They vanish, and the connection stays open: what a half-open connection looks like.
    Discard,
    /// After this many more bytes (of all connections together) every connection is reset.
    ResetAfter(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From whoever connected to the proxy.
    FromClient,
    FromServer,
}

/// Accepts until dropped.
pub struct Proxy {
    addr: SocketAddr,
    control: Arc<Control>,
    accepting: AbortHandle,
}

pub(super) struct Control {
    from_client: watch::Sender<Flow>,
    from_server: watch::Sender<Flow>,
    refuse: watch::Sender<bool>,
    resets: watch::Sender<u64>,
    open: AtomicUsize,
    waiting: [AtomicUsize; 2],
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            from_client: watch::Sender::new(Flow::Pass),
            from_server: watch::Sender::new(Flow::Pass),
            refuse: watch::Sender::new(false),
            resets: watch::Sender::new(0),
            open: AtomicUsize::new(0),
            waiting: Default::default(),
        }
    }

    fn flow(&self, side: Side) -> &watch::Sender<Flow> {
        match side {
            Side::FromClient => &self.from_client,
            Side::FromServer => &self.from_server,
        }
    }

    pub(super) fn set(&self, side: Side, flow: Flow) {
        self.flow(side).send_replace(flow);
    }

    pub(super) fn refuse(&self, on: bool) {
        self.refuse.send_replace(on);
    }

    pub(super) fn reset(&self) {
        self.resets.send_modify(|n| *n += 1);
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn waits(&self, side: Side) -> &AtomicUsize {
        &self.waiting[side as usize]
    }

    pub(crate) fn waiting(&self, side: Side) -> usize {
        self.waits(side).load(Ordering::SeqCst)
    }

    /// Waits until `bytes` may go on; gives how many of them.
    async fn admit(&self, side: Side, bytes: usize) -> Admitted {
        let mut flow = self.flow(side).subscribe();
        loop {
            let now = *flow.borrow_and_update();
            match now {
                Flow::Pass => return Admitted::All(Duration::ZERO),
                Flow::Slow(rate) => {
                    // As long as so many bytes take on such a line.
                    sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
                    return Admitted::All(Duration::ZERO);
                }
                Flow::Late(by) => return Admitted::All(by),
                Flow::Discard => return Admitted::None,
                Flow::Stall => {}
                Flow::ResetAfter(left) if bytes < left => {
                    self.flow(side).send_replace(Flow::ResetAfter(left - bytes));
                    return Admitted::All(Duration::ZERO);
                }
                Flow::ResetAfter(left) => return Admitted::ThenReset(left),
            }
            if flow.changed().await.is_err() {
                return Admitted::None;
            }
        }
    }
}

enum Admitted {
    All(Duration),
    None,
    ThenReset(usize),
}

/// What is done with the bytes of a connection on their way; the plain proxy passes them on as they are.
pub(super) trait Filter: Send + 'static {
    /// What goes on of `bytes`, now or with a later call.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>);
}

pub(super) struct Plain;

impl Filter for Plain {
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(bytes);
    }
}

impl Proxy {
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Self {
        Self::with(listen, target, || Plain).await
    }

    /// A filter for what the server says on each connection.
    pub(super) async fn with<F: Filter>(
        listen: SocketAddr,
        target: SocketAddr,
        filter: impl Fn() -> F + Send + 'static,
    ) -> Self {
        let control = Arc::new(Control::new());
        let accepting = serve(listen, target, control.clone(), filter).await;
        Self { addr: listen, control, accepting }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// For clients, in front of an edge.
    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    /// For every connection, those to come too.
    pub fn set(&self, side: Side, flow: Flow) {
        self.control.set(side, flow);
    }

    pub fn stall(&self) {
        self.set(Side::FromClient, Flow::Stall);
        self.set(Side::FromServer, Flow::Stall);
    }

    pub fn pass(&self) {
        self.set(Side::FromClient, Flow::Pass);
        self.set(Side::FromServer, Flow::Pass);
    }

    /// Closes each new connection at once while this is on.
    pub fn refuse(&self, on: bool) {
        self.control.refuse(on);
    }

    /// RST to both ends of every connection; new ones are taken.
    pub fn reset(&self) {
        self.control.reset();
    }

    /// Connections now.
    pub fn open(&self) -> usize {
        self.control.open()
    }

    /// Pieces of connections that a stall holds back.
    pub fn waiting(&self, side: Side) -> usize {
        self.control.waiting(side)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

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
