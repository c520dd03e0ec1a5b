//! Making a connection: TCP, INFO, TLS if it is asked for, CONNECT, and the first PONG (a refused login shows itself
//! there).

use std::{io, time::Duration};

use async_nats::ServerAddr;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::{
    parser::{self, Op, Parsed},
    stream::Stream,
};
use crate::{
    config::{NatsConfig, TlsFiles},
    wire::{
        client::NatsConnectError,
        login::{self, NatsLogin},
        tls,
    },
};

/// For one server to take a connection, where others are left to try.
pub(crate) const QUICK: Duration = Duration::from_secs(1);
pub(crate) const PATIENT: Duration = Duration::from_secs(3);
pub(super) const READ_BUFFER: usize = 64 << 10;

/// What it takes to be let in, out of the configuration.
#[derive(Clone)]
pub(crate) struct LinkAccess {
    name: String,
    login: NatsLogin,
    tls: TlsFiles,
    tls_required: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NatsAddress {
    pub(crate) address: String,
    /// What its certificate must be for.
    host: String,
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
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Info {
    tls_required: bool,
    tls_available: bool,
    nonce: String,
    pub(super) connect_urls: Vec<String>,
    /// Lame duck: this server is about to leave.
    pub(super) ldm: bool,
}

impl Info {
    pub(super) fn parse(json: &[u8]) -> Self {
        // What we cannot read has nothing that we need.
        serde_json::from_slice(json).unwrap_or_default()
    }
}

pub(crate) struct Link {
    pub(crate) stream: Stream,
    pub(crate) input: BytesMut,
    pub(super) info: Info,
}

impl LinkAccess {
    /// As the server lists the connection.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn new(cfg: &NatsConfig, name: &str) -> Result<Self, NatsConnectError> {
        let (login, tls_required) = (NatsLogin::new(cfg)?, tls::required(cfg));
        Ok(Self { name: format!("{} {name}", cfg.name), login, tls: cfg.tls.clone(), tls_required })
    }
}

impl From<&ServerAddr> for NatsAddress {
    fn from(addr: &ServerAddr) -> Self {
        Self { address: join(addr.host(), addr.port()), host: addr.host().to_owned() }
    }
}

/// The servers of the configuration.
pub(crate) fn servers(cfg: &NatsConfig) -> Result<Vec<NatsAddress>, NatsConnectError> {
    Ok(login::addresses(cfg)?.iter().map(NatsAddress::from).collect())
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Adds what a server says about its cluster.
pub(super) fn learn(known: &mut Vec<NatsAddress>, named: &[String]) {
    // A cluster of more nodes than this does not exist; a sick INFO must not grow us.
    const MOST: usize = 64;
    for server in named.iter().filter_map(|url| url.parse::<ServerAddr>().ok()) {
        let server = NatsAddress::from(&server);
        if !server.host.is_empty() && known.len() < MOST && !known.iter().any(|s| s.address == server.address) {
            known.push(server);
        }
    }
}

pub(crate) async fn open(server: NatsAddress, access: LinkAccess, limit: Duration) -> Result<Link, NatsConnectError> {
    let urls = server.address.clone();
    let failed = match tokio::time::timeout(limit, handshake(&server, &access)).await {
        Ok(Ok(link)) => return Ok(link),
        Ok(Err(failed)) => failed,
        Err(_) => Failed::Io(io::Error::other("no answer in time")),
    };
    Err(match failed {
        Failed::Io(e) => match tls::explained(&e, &server.host) {
            Some(reason) => NatsConnectError::Tls { urls, reason },
            None => NatsConnectError::Unreachable { urls, reason: e.to_string() },
        },
        Failed::Said(said) if said.to_ascii_lowercase().contains("auth") => {
            NatsConnectError::Refused { urls, reason: format!("{said}; {}", access.login.advice()) }
        }
        Failed::Said(reason) => NatsConnectError::Unreachable { urls, reason },
        Failed::Tls(reason) => NatsConnectError::Tls { urls, reason },
        Failed::Config(why) => NatsConnectError::Config(why),
    })
}

enum Failed {
    Io(io::Error),
    Said(String),
    Tls(String),
    Config(String),
}

impl From<io::Error> for Failed {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

async fn handshake(server: &NatsAddress, access: &LinkAccess) -> Result<Link, Failed> {
    let tcp = TcpStream::connect(&server.address).await?;
    tcp.set_nodelay(true)?;
    let (mut stream, mut input) = (Stream::Plain(tcp), BytesMut::with_capacity(READ_BUFFER));
    if access.tls.first {
        stream = secure(stream, access, server).await?;
    }
    let info = loop {
        match parser::parse(&input, 0).map_err(|e| Failed::Said(e.to_string()))? {
            Parsed::Op(Op::Info(range), next) => {
                let info = Info::parse(&input[range]);
                input.advance(next);
                break info;
            }
            Parsed::Op(Op::Err(range), _) => return Err(said(&input[range])),
            Parsed::Op(_, next) => input.advance(next),
            Parsed::More(_) if stream.read(&mut input).await? == 0 => {
                let hint = if access.tls_required {
                    " before it said anything; if it has `handshake_first`, set nats.tls.first"
                } else {
                    ""
                };
                return Err(Failed::Said(format!("the server closed the connection{hint}")));
            }
            Parsed::More(_) => {}
        }
    };
    if !access.tls.first && (access.tls_required || info.tls_required) {
        if !info.tls_required && !info.tls_available {
            return Err(Failed::Tls(
                "it speaks no TLS, which nats.tls (or a tls:// in nats.urls) asks for; give that server a \
                 certificate, or unset these"
                    .into(),
            ));
        }
        // Whatever came before the handshake, nobody vouches for it.
        input.clear();
        stream = secure(stream, access, server).await?;
    }
    stream.write_all(&greeting(access, &info)?).await?;
    loop {
        match parser::parse(&input, 0).map_err(|e| Failed::Said(e.to_string()))? {
            Parsed::More(_) if stream.read(&mut input).await? == 0 => {
                return Err(Failed::Said("the server closed the connection".into()));
            }
            Parsed::More(_) => {}
            Parsed::Op(op, next) => {
                match op {
                    Op::Err(range) => return Err(said(&input[range])),
                    Op::Ping => stream.write_all(b"PONG\r\n").await?,
                    Op::Pong => {
                        input.advance(next);
                        return Ok(Link { stream, input, info });
                    }
                    Op::Info(_) | Op::Ok | Op::Msg { .. } => {}
                }
                input.advance(next);
            }
        }
    }
}

fn said(text: &[u8]) -> Failed {
    Failed::Said(String::from_utf8_lossy(text).trim().to_owned())
}

async fn secure(stream: Stream, access: &LinkAccess, server: &NatsAddress) -> Result<Stream, Failed> {
    let files = access.tls.clone();
    // Up to a hundred files, where the machine's authorities are believed.
    let connector = tokio::task::spawn_blocking(move || tls::connector(&files)).await;
    let connector = connector.map_err(|e| Failed::Config(e.to_string()))?.map_err(Failed::Config)?;
    Ok(stream.secure(&connector, &server.host).await?)
}

fn greeting(access: &LinkAccess, info: &Info) -> Result<Vec<u8>, Failed> {
    let auth = access.login.answer(&info.nonce).map_err(Failed::Config)?;
    let connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required: access.tls_required,
        name: &access.name,
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        echo: true,
        headers: true,
        no_responders: true,
        user: auth.username,
        pass: auth.password,
        auth_token: auth.token,
        jwt: auth.jwt,
        nkey: auth.nkey,
        sig: auth.signature.map(|s| BASE64_URL_SAFE_NO_PAD.encode(s)),
    };
    let json = serde_json::to_string(&connect).expect("plain values");
    Ok(format!("CONNECT {json}\r\nPING\r\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(urls: &[&str]) -> Vec<NatsAddress> {
        servers(&NatsConfig { urls: urls.iter().map(|u| (*u).to_owned()).collect(), ..NatsConfig::default() }).unwrap()
    }

    #[test]
    fn addresses_and_the_names_their_certificates_are_for() {
        let list = with(&["nats://u:p@h1:4333", "127.0.0.1:1", "tls://[::1]"]);
        assert_eq!((list[0].address.as_str(), list[0].host.as_str()), ("h1:4333", "h1"));
        assert_eq!(list[1].address, "127.0.0.1:1");
        assert_eq!((list[2].address.as_str(), list[2].host.as_str()), ("[::1]:4222", "::1"));
    }

    #[test]
    fn a_cluster_is_learnt_once() {
        let mut known = with(&["nats://u:p@a:1"]);
        learn(&mut known, &["a:1".into(), "b:1".into(), "b:1".into(), "".into()]);
        assert_eq!(known.iter().map(|s| s.address.as_str()).collect::<Vec<_>>(), ["a:1", "b:1"]);
        assert_eq!(known[1].host, "b");
    }
}
