//! For `natterjack doctor`: may this user do what its role does? Every permission is tried, with nothing that anybody
//! would keep: the wildcards stand for a word that nobody is called, and what could be stored says that it is meant
//! for a stream that does not exist.

use std::time::Duration;

use crate::{
    config::NatsConfig,
    nats_role::NatsRole,
    permissions::Permissions,
    wire::{
        client::NatsConnectError,
        raw::{
            link::{self, LinkAccess},
            parser::{self, Op, Parsed},
        },
    },
};

const LIMIT: Duration = Duration::from_secs(5);
const NOBODY: &str = "natterjack-doctor";

/// What is missing: server, and what it says. Each is asked, because each has a configuration of its own; those that
/// are not there are passed over, unless nobody is.
pub async fn missing(cfg: &NatsConfig, role: NatsRole) -> Result<Vec<String>, NatsConnectError> {
    let (access, wanted) = (LinkAccess::new(cfg, "doctor permissions")?, role.permissions(cfg.kv_shards.max(1)));
    let (mut found, mut asked, mut last) = (Vec::new(), false, None);
    for server in link::servers(cfg)? {
        let urls = server.address.clone();
        match link::open(server, access.clone(), link::PATIENT).await {
            Ok(link) => {
                let answered =
                    tokio::time::timeout(LIMIT, ask(link, &wanted)).await.unwrap_or(Err("no answer in time".into()));
                let said = answered.map_err(|reason| NatsConnectError::Unreachable { urls: urls.clone(), reason })?;
                found.extend(said.into_iter().map(|said| format!("{urls}: {said}")));
                asked = true;
            }
            Err(e) => last = Some(e),
        }
    }
    last.filter(|_| !asked).map_or(Ok(found), Err)
}

async fn ask(mut link: link::Link, wanted: &Permissions) -> Result<Vec<String>, String> {
    let io = |e: std::io::Error| e.to_string();
    link.stream.write_all(&questions(wanted)).await.map_err(io)?;
    let mut missing = Vec::new();
    loop {
        match parser::parse(&link.input, 0).map_err(|e| e.to_string())? {
            Parsed::More(_) if link.stream.read(&mut link.input).await.map_err(io)? == 0 => {
                return Err("the server closed the connection".into());
            }
            Parsed::More(_) => {}
            Parsed::Op(op, next) => {
                match op {
                    Op::Err(range) => {
                        missing.push(String::from_utf8_lossy(&link.input[range]).trim().replace(NOBODY, "*"));
                    }
                    Op::Pong => return Ok(missing),
                    _ => {}
                }
                let _ = link.input.split_to(next);
            }
        }
    }
}

fn questions(wanted: &Permissions) -> Vec<u8> {
    const HEADER: &str = "NATS/1.0\r\nNats-Expected-Stream: natterjack-doctor\r\n\r\n";
    let mut out = String::new();
    for (sid, pattern) in (1..).zip(&wanted.subscribe) {
        out.push_str(&format!("SUB {pattern} {sid}\r\nUNSUB {sid}\r\n"));
    }
    for pattern in &wanted.publish {
        let subject =
            pattern.split('.').map(|t| if t == "*" || t == ">" { NOBODY } else { t }).collect::<Vec<_>>().join(".");
        out.push_str(&format!("HPUB {subject} {0} {0}\r\n{HEADER}\r\n", HEADER.len()));
    }
    out.push_str("PING\r\n");
    out.into_bytes()
}
