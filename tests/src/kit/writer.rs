//! Who writes: a burst of sends on one socket, and a device that sends until each has an id.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use natterjack_protocol::{
    Cid, MsgId, Refusal, Retry, Thread,
    client::{
        close::{self, Back},
        frame::{ClientFrame, Hello, SendMessage, ServerFrame},
    },
    codec::Codec,
};
use natterjack_testkit::within;
use tokio::time::sleep;

use super::{RawWs, Received, User};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// What became of sends in flight.
#[derive(Debug, Default)]
pub struct Answers {
    pub sent: HashMap<Cid, MsgId>,
    pub refused: HashMap<Cid, Refusal>,
    pub closed: Option<u16>,
}

/// Writes all of them at once; then waits until each has its answer, or the socket is gone.
pub async fn send_all(ws: &mut RawWs, sends: &[(Thread, Cid, String)]) -> Answers {
    let mut answers = Answers::default();
    let mut before: HashMap<&Thread, Cid> = HashMap::new();
    for (thread, cid, text) in sends {
        let frame = ClientFrame::Send(SendMessage {
            r: ws.request(),
            cid: *cid,
            thread: thread.clone(),
            kind: natterjack_protocol::Kind::Text,
            body: natterjack_protocol::Body::text(text.clone()),
            behind: before.insert(thread, *cid),
        });
        if ws.try_send_bytes(&frame.encode(ws.codec())).await.is_err() {
            break;
        }
    }
    while answers.sent.len() + answers.refused.len() < sends.len() {
        match ws.next_within(Duration::from_secs(40)).await {
            Received::Frame(ServerFrame::Sent { cid, id, .. }) => drop(answers.sent.insert(cid, id)),
            Received::Frame(ServerFrame::Error { refusal, .. }) => {
                if let Some(cid) = refusal.cid {
                    answers.refused.insert(cid, refusal);
                }
            }
            Received::Closed(code, _) => {
                answers.closed = Some(code);
                break;
            }
            _ => {}
        }
    }
    answers
}

/// Every send until it has an id, over as many tries (and sockets) as it takes; the same cids in the same order each
/// time.
pub async fn send_until_sent(
    edges: &[SocketAddr],
    user: &User,
    codec: Codec,
    sends: &[(Thread, Cid, String)],
) -> HashMap<Cid, MsgId> {
    Writer::new(edges.to_vec(), user, codec).send(sends).await
}

/// One device that writes. When its socket is closed with leave to come back, it goes on through the next of its edges.
pub struct Writer {
    edges: Vec<SocketAddr>,
    user: User,
    codec: Codec,
    turn: usize,
    socket: Option<RawWs>,
}

impl Writer {
    pub fn new(edges: Vec<SocketAddr>, user: &User, codec: Codec) -> Self {
        Self { edges, user: user.clone(), codec, turn: 0, socket: None }
    }

    /// Each until it has an id: the same cids in the same order each time.
    pub async fn send(&mut self, sends: &[(Thread, Cid, String)]) -> HashMap<Cid, MsgId> {
        within("every send has an id", Duration::from_secs(40), self.send_all_of(sends)).await
    }

    async fn send_all_of(&mut self, sends: &[(Thread, Cid, String)]) -> HashMap<Cid, MsgId> {
        let mut ids = HashMap::new();
        while ids.len() < sends.len() {
            if self.socket.is_none() {
                self.turn += 1;
                let edge = self.edges[(self.turn - 1) % self.edges.len()];
                self.socket = connect(edge, &self.user, self.codec, BTreeMap::new()).await;
            }
            let Some(ws) = self.socket.as_mut() else {
                // As a client does it between two tries.
                sleep(PAUSE).await;
                continue;
            };
            let left: Vec<_> = sends.iter().filter(|(_, cid, _)| !ids.contains_key(cid)).cloned().collect();
            let answers = send_all(ws, &left).await;
            for refusal in answers.refused.values() {
                assert_eq!(refusal.code.retry(), Retry::Later, "refused for good: {refusal:?}");
            }
            ids.extend(answers.sent);
            if let Some(code) = answers.closed {
                assert_may_come_back(code);
                self.socket = None;
            }
            if ids.len() < sends.len() {
                // As a client does it between two tries.
                sleep(PAUSE).await;
            }
        }
        ids
    }
}

/// The close codes of a fault: the edge lost its place, or cannot attach anybody while there is no leader.
pub fn assert_may_come_back(code: u16) {
    assert!(matches!(close::back(code), Back::Now | Back::Backoff), "closed for good: {code}");
}

/// A socket on which hello was said; nothing was read yet. None: nobody there.
pub async fn connect(edge: SocketAddr, user: &User, codec: Codec, cursors: BTreeMap<Thread, MsgId>) -> Option<RawWs> {
    let mut ws = RawWs::try_connect(edge, codec.subprotocol()).await.ok()?;
    let hello = Hello { cursors, ..Hello::new(user.tokens.access.clone(), user.tokens.device.clone()) };
    ws.try_send_bytes(&ClientFrame::Hello(hello).encode(codec)).await.ok()?;
    Some(ws)
}
