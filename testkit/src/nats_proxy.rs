//! A proxy that understands what nats-server says, so that chosen messages can be lost on their way to an edge.

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::proxy::{Filter, Proxy};

type Lose = Arc<dyn Fn(&str, &[u8]) -> bool + Send + Sync>;

#[derive(Clone, Default)]
struct Rules {
    lose: Arc<RwLock<Option<Lose>>>,
    lost: Arc<AtomicUsize>,
}

/// Between one edge and its nats-server, for every connection of that edge.
pub struct NatsProxy {
    proxy: Proxy,
    rules: Rules,
}

impl NatsProxy {
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Self {
        let rules = Rules::default();
        let for_filter = rules.clone();
        let proxy = Proxy::with(listen, target, move || Messages { rules: for_filter.clone(), held: Vec::new() }).await;
        Self { proxy, rules }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.addr())
    }

    /// Loses every message (subject, payload) that `lose` picks, until told otherwise. The rest arrives as if nothing
    /// had been there.
    pub fn drop_live(&self, lose: impl Fn(&str, &[u8]) -> bool + Send + Sync + 'static) {
        *self.rules.lose.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(lose));
    }

    pub fn drop_nothing(&self) {
        *self.rules.lose.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many were lost so far.
    pub fn lost(&self) -> usize {
        self.rules.lost.load(Ordering::SeqCst)
    }
}

impl Deref for NatsProxy {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

/// Cuts the server's words into lines and messages; passes on whole ones only.
struct Messages {
    rules: Rules,
    held: Vec<u8>,
}

impl Filter for Messages {
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(word) = next_word(&self.held[at..]) {
            let raw = &self.held[at..at + word.len];
            match word.what {
                What::Message { subject, payload } if self.loses(subject, payload) => {
                    self.rules.lost.fetch_add(1, Ordering::SeqCst);
                }
                What::Info(json) => out.extend_from_slice(&without_other_servers(json)),
                What::Message { .. } | What::Other => out.extend_from_slice(raw),
            }
            at += word.len;
        }
        self.held.drain(..at);
    }
}

impl Messages {
    fn loses(&self, subject: &str, payload: &[u8]) -> bool {
        let lose = self.rules.lose.read().unwrap_or_else(PoisonError::into_inner).clone();
        lose.is_some_and(|lose| lose(subject, payload))
    }
}

struct Word<'a> {
    what: What<'a>,
    len: usize,
}

enum What<'a> {
    /// MSG or HMSG; the payload of the latter without its headers.
    Message {
        subject: &'a str,
        payload: &'a [u8],
    },
    Info(&'a [u8]),
    Other,
}

/// None: not complete yet.
fn next_word(bytes: &[u8]) -> Option<Word<'_>> {
    let end = bytes.windows(2).position(|w| w == b"\r\n")?;
    let (line, after) = (&bytes[..end], end + 2);
    let text = std::str::from_utf8(line).unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    let numbers = |words: Vec<&str>, n: usize| -> Vec<usize> {
        words[words.len().saturating_sub(n)..].iter().map(|w| w.parse().expect("a length in a MSG line")).collect()
    };
    let (subject, headers, total) = match words.next() {
        Some("MSG") => {
            let rest: Vec<&str> = words.collect();
            (rest[0], 0, numbers(rest.clone(), 1)[0])
        }
        Some("HMSG") => {
            let rest: Vec<&str> = words.collect();
            let n = numbers(rest.clone(), 2);
            (rest[0], n[0], n[1])
        }
        Some("INFO") => return Some(Word { what: What::Info(&line[4..]), len: after }),
        _ => return Some(Word { what: What::Other, len: after }),
    };
    let payload = bytes.get(after..after + total)?;
    let len = after + total + 2;
    (bytes.len() >= len).then_some(Word { what: What::Message { subject, payload: &payload[headers..] }, len })
}

/// A client that learnt the other servers' addresses would go around this proxy after a reconnect.
fn without_other_servers(json: &[u8]) -> Vec<u8> {
    let mut info: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).expect("INFO carries JSON");
    info.remove("connect_urls");
    let mut line = b"INFO ".to_vec();
    line.extend(serde_json::to_vec(&info).unwrap());
    line.extend_from_slice(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loses_exactly_what_was_picked_however_the_bytes_arrive() {
        let stream: &[u8] = b"INFO {\"server_id\":\"x\",\"connect_urls\":[\"a:1\"]} \r\nPING\r\n\
            MSG live.user.a.e 1 5\r\nhe\r\nl\r\nMSG live.user.b.e 2 _INBOX.x 3\r\nabc\r\nHMSG live.user.a.e 1 12 \
            15\r\nNATS/1.0\r\n\r\nxyz\r\n+OK\r\n";
        let wanted: &[u8] = b"INFO {\"server_id\":\"x\"}\r\nPING\r\nMSG live.user.a.e 1 5\r\nhe\r\nl\r\nHMSG \
                              live.user.a.e 1 12 15\r\nNATS/1.0\r\n\r\nxyz\r\n+OK\r\n";
        for step in [1, 2, 7, stream.len()] {
            let rules = Rules::default();
            *rules.lose.write().unwrap() =
                Some(Arc::new(|subject, payload| subject == "live.user.b.e" && payload == b"abc"));
            let mut filter = Messages { rules: rules.clone(), held: Vec::new() };
            let mut out = Vec::new();
            for part in stream.chunks(step) {
                filter.pass(part, &mut out);
            }
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(wanted), "in steps of {step}");
            assert_eq!(rules.lost.load(Ordering::SeqCst), 1);
        }
    }
}
