//! A TCP proxy that breaks connections on purpose: stalls, one-way cuts, resets, an end after n bytes. There is no
//! netem here.

mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle, time::sleep};

use self::pump::serve;

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
