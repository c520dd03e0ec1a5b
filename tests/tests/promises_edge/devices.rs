//! Phones that say hello by hand, how that ends, and what stands of them in KV.

use std::time::Duration;

use natterjack_nats::{KvBuckets, Layout};
use natterjack_protocol::{
    client::frame::{ClientFrame, DeviceClass, Displaced, Hello, ServerFrame},
    codec::Codec,
    internal::devices::UserDevices,
};
use natterjack_tests::kit::{Cluster, RawWs, Received, User};
use tokio::time::Instant;

/// A lease, its last question, and what a loaded machine adds.
const LEASE: Duration = Duration::from_secs(20);

pub fn phone(user: &User, session: Option<&str>) -> Hello {
    let hello = Hello::new(user.tokens.access.clone(), user.tokens.device.clone());
    let name = format!("phone {}", user.tokens.device);
    Hello { class: DeviceClass::Phone, name: Some(name), session: session.map(|s| s.parse().unwrap()), ..hello }
}

/// How a hello ended.
pub enum Greeted {
    In(Box<RawWs>),
    Displaced(Displaced, u16),
    Closed(u16),
}

impl Greeted {
    pub fn inside(self) -> RawWs {
        match self {
            Self::In(ws) => *ws,
            Self::Displaced(by, code) => panic!("displaced by {by:?}, closed with {code}"),
            Self::Closed(code) => panic!("closed with {code}"),
        }
    }
}

pub async fn say(cluster: &Cluster, edge: usize, hello: Hello) -> Greeted {
    let mut ws = RawWs::connect(cluster.edge_addr(edge), Codec::Json).await;
    ws.send(&ClientFrame::Hello(hello)).await;
    let mut by = None;
    loop {
        match ws.next_within(LEASE).await {
            Received::Frame(ServerFrame::Welcome(w)) => {
                ws.welcome = Some(w);
                return Greeted::In(Box::new(ws));
            }
            Received::Frame(ServerFrame::Displaced(displaced)) => by = Some(displaced),
            Received::Closed(code, _) => return by.map_or(Greeted::Closed(code), |by| Greeted::Displaced(by, code)),
            _ => {}
        }
    }
}

pub fn session(ws: &RawWs) -> String {
    ws.welcome.as_ref().unwrap().session.to_string()
}

/// Is it told within this time that it has to go? Then by whom.
pub async fn told(ws: &mut RawWs, within: Duration) -> Option<Displaced> {
    let end = Instant::now() + within;
    let mut by = None;
    while let Ok(next) = tokio::time::timeout_at(end, ws.next_within(LEASE)).await {
        match next {
            Received::Frame(ServerFrame::Displaced(displaced)) => by = Some(displaced),
            Received::Closed(code, _) => {
                assert_eq!(code, 4011);
                return by;
            }
            _ => {}
        }
    }
    assert_eq!(by, None, "told, and not closed");
    None
}

pub async fn buckets(cluster: &Cluster) -> KvBuckets {
    let nats = cluster.connect_nats().await;
    KvBuckets::new(&nats, Layout::load(&nats).await.unwrap())
}

/// What stands under a user's key, and how often it was written, as far as a revision tells.
pub async fn stored(buckets: &KvBuckets, user: &User) -> (UserDevices, u64) {
    buckets.devices(user.id()).load_with_revision().await.unwrap().unwrap_or_default()
}
