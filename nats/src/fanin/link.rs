//! Making a connection: TCP, INFO, CONNECT, and the first PONG (a refused login shows itself there).

use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::parser::{self, Op, Parsed};
use crate::{config::NatsConfig, connect::ConnectError};

/// For one server to take a connection, where others are left to try.
pub(super) const QUICK: Duration = Duration::from_secs(1);
pub(super) const PATIENT: Duration = Duration::from_secs(3);
pub(super) const READ_BUFFER: usize = 64 << 10;

/// What it takes to log in, out of the configuration.
#[derive(Clone)]
pub(super) struct Login {
    name: String,
    user: Option<String>,
    password: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub address: String,
    user: Option<String>,
    password: Option<String>,
}

#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'a str,
    version: &'a str,
    protocol: u8,
    echo: bool,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    pub tls_required: bool,
    pub connect_urls: Vec<String>,
    /// Lame duck: this server is about to leave.
    pub ldm: bool,
}

impl Info {
    pub(super) fn parse(json: &[u8]) -> Self {
        // What we cannot read has nothing that we need.
        serde_json::from_slice(json).unwrap_or_default()
    }
}

pub(super) struct Link {
    pub stream: TcpStream,
    pub input: BytesMut,
    pub info: Info,
}

impl Login {
    pub(super) fn new(cfg: &NatsConfig, name: &str) -> Result<Self, ConnectError> {
        if cfg.creds.is_some() {
            return Err(ConnectError::Config(
                "the fan-in reader logs in with user and password; a credentials file is not supported here".into(),
            ));
        }
        Ok(Self { name: format!("{} {name}", cfg.name), user: cfg.user.clone(), password: cfg.password.clone() })
    }
}

/// The servers of the configuration; refuses what is not plain TCP.
pub(super) fn servers(cfg: &NatsConfig) -> Result<Vec<Server>, ConnectError> {
    if cfg.urls.is_empty() {
        return Err(ConnectError::Config("nats.urls is empty".into()));
    }
    cfg.urls
        .iter()
        .map(|url| {
            let shown = crate::connect::shown(std::slice::from_ref(url));
            let addr: async_nats::ServerAddr =
                url.parse().map_err(|e| ConnectError::Config(format!("`{shown}` is not a server address: {e}")))?;
            if addr.tls_required() || !matches!(addr.scheme(), "nats") {
                return Err(ConnectError::TlsUnsupported(shown));
            }
            let (user, password) = (addr.username().map(str::to_owned), addr.password().map(str::to_owned));
            Ok(Server { address: join(addr.host(), addr.port()), user, password })
        })
        .collect()
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Adds what a server says about its cluster; they share the login of the server that named them.
pub(super) fn learn(known: &mut Vec<Server>, named: &[String], by: &Server) {
    // A cluster of more nodes than this does not exist; a sick INFO must not grow us.
    const MOST: usize = 64;
    for address in named {
        if known.len() < MOST && !known.iter().any(|s| s.address == *address) {
            known.push(Server { address: address.clone(), ..by.clone() });
        }
    }
}

pub(super) async fn open(server: Server, login: Login, limit: Duration) -> Result<Link, ConnectError> {
    let address = server.address.clone();
    let unreachable = |reason: String| ConnectError::Unreachable { urls: address.clone(), reason };
    match tokio::time::timeout(limit, handshake(&server, &login)).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(Failed::Io(e))) => Err(unreachable(e.to_string())),
        Ok(Err(Failed::Said(reason))) if reason.to_ascii_lowercase().contains("auth") => {
            Err(ConnectError::Refused { urls: address.clone(), reason })
        }
        Ok(Err(Failed::Said(reason))) => Err(unreachable(reason)),
        Ok(Err(Failed::Tls)) => Err(ConnectError::TlsUnsupported(address.clone())),
        Err(_) => Err(unreachable("no answer in time".into())),
    }
}

enum Failed {
    Io(std::io::Error),
    Said(String),
    Tls,
}

impl From<std::io::Error> for Failed {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

async fn handshake(server: &Server, login: &Login) -> Result<Link, Failed> {
    let mut stream = TcpStream::connect(&server.address).await?;
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(READ_BUFFER);
    let mut known: Option<Info> = None;
    loop {
        match parser::parse(&input, 0).map_err(|e| Failed::Said(e.to_string()))? {
            Parsed::More(_) => {
                if stream.read_buf(&mut input).await? == 0 {
                    return Err(Failed::Said("the server closed the connection".into()));
                }
            }
            Parsed::Op(op, next) => {
                match op {
                    Op::Info(range) if known.is_none() => {
                        let info = Info::parse(&input[range]);
                        if info.tls_required {
                            return Err(Failed::Tls);
                        }
                        known = Some(info);
                        stream.write_all(&greeting(server, login)).await?;
                    }
                    Op::Err(range) => return Err(Failed::Said(String::from_utf8_lossy(&input[range]).trim().to_owned())),
                    Op::Ping => stream.write_all(b"PONG\r\n").await?,
                    Op::Pong => {
                        input.advance(next);
                        return Ok(Link { stream, input, info: known.unwrap_or_default() });
                    }
                    Op::Info(_) | Op::Ok | Op::Msg { .. } => {}
                }
                input.advance(next);
            }
        }
    }
}

fn greeting(server: &Server, login: &Login) -> Vec<u8> {
    let connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required: false,
        name: &login.name,
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        echo: true,
        headers: true,
        no_responders: true,
        user: login.user.as_deref().or(server.user.as_deref()),
        pass: login.password.as_deref().or(server.password.as_deref()),
    };
    let json = serde_json::to_string(&connect).expect("plain values");
    format!("CONNECT {json}\r\nPING\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(urls: &[&str]) -> Result<Vec<Server>, ConnectError> {
        servers(&NatsConfig { urls: urls.iter().map(|u| (*u).to_owned()).collect(), ..NatsConfig::default() })
    }

    #[test]
    fn addresses() {
        let list = with(&["nats://u:p@h1:4333", "127.0.0.1:1"]).unwrap();
        assert_eq!((list[0].address.as_str(), list[0].user.as_deref()), ("h1:4333", Some("u")));
        assert_eq!(list[1].address, "127.0.0.1:1");
        assert!(matches!(with(&["tls://secret@h:1"]), Err(ConnectError::TlsUnsupported(s)) if s == "h:1"));
        assert!(matches!(with(&[]), Err(ConnectError::Config(_))));
    }

    #[test]
    fn a_cluster_is_learnt_once() {
        let mut known = with(&["nats://u:p@a:1"]).unwrap();
        let by = known[0].clone();
        learn(&mut known, &["a:1".into(), "b:1".into(), "b:1".into()], &by);
        assert_eq!(known.iter().map(|s| s.address.as_str()).collect::<Vec<_>>(), ["a:1", "b:1"]);
        assert_eq!(known[1].user.as_deref(), Some("u"));
    }
}
