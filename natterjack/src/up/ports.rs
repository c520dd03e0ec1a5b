//! Which ports `up` uses. A port that was asked for is used or is an error; otherwise the default if it is free, else
//! any free one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::bail;
use natterjack_runtime::admin;

use crate::settings::UpSettings;

const EDGE: u16 = 8080;
const NATS: u16 = 4222;
/// Only edges are reached from elsewhere.
const NATS_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub edges: [u16; 2],
    pub nats: u16,
    /// For operators: of this process, and of each edge.
    pub admin: Option<[SocketAddr; 3]>,
}

/// `operators`: `admin.listen`.
pub fn choose(up: &UpSettings, operators: Option<SocketAddr>) -> anyhow::Result<Ports> {
    let edges = match up.port {
        Some(p) => {
            for (port, what) in [(p, "--port"), (p + 1, "the second edge, next to --port")] {
                require(up.host, port, what)?;
            }
            [p, p + 1]
        }
        None if is_free(up.host, EDGE) && is_free(up.host, EDGE + 1) => [EDGE, EDGE + 1],
        None => {
            let [a, b] = any_free(up.host)?;
            [a, b]
        }
    };
    let nats = match up.nats_port {
        Some(p) => {
            require(NATS_HOST, p, "--nats-port")?;
            p
        }
        None if is_free(NATS_HOST, NATS) => NATS,
        None => {
            let [a] = any_free(NATS_HOST)?;
            a
        }
    };
    if edges.contains(&nats) {
        bail!("--port and --nats-port overlap: edges take {} and {}, nats-server {nats}", edges[0], edges[1]);
    }
    let admin = operators.map(|addr| three(addr, [edges[0], edges[1], nats])).transpose()?;
    Ok(Ports { edges, nats, admin })
}

/// Three consecutive ports, none of which is chosen already.
fn three(addr: SocketAddr, chosen: [u16; 3]) -> anyhow::Result<[SocketAddr; 3]> {
    let from = |first: u16| [0, 1, 2].map(|n| SocketAddr::new(addr.ip(), first.saturating_add(n)));
    if addr.port() != 0 {
        for (at, what) in from(addr.port()).into_iter().zip(["", ", the first edge's", ", the second edge's"]) {
            require(at.ip(), at.port(), &format!("admin.listen{what}"))?;
        }
        return Ok(from(addr.port()));
    }
    let usual = from(admin::PORT);
    if usual.iter().all(|at| !chosen.contains(&at.port()) && is_free(at.ip(), at.port())) {
        return Ok(usual);
    }
    Ok(any_free(addr.ip())?.map(|port| SocketAddr::new(addr.ip(), port)))
}

/// For a nats-server alone.
pub fn nats_port_alone() -> anyhow::Result<Ports> {
    let [nats] = any_free(NATS_HOST)?;
    Ok(Ports { edges: [0, 0], nats, admin: None })
}

fn bind(host: IpAddr, port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((host, port))
}

pub fn is_free(host: IpAddr, port: u16) -> bool {
    bind(host, port).is_ok()
}

fn require(host: IpAddr, port: u16, what: &str) -> anyhow::Result<()> {
    match bind(host, port) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("port {port} ({what}) is taken on {host}; give another one, or none to use any free port")
        }
        Err(e) => bail!("port {port} ({what}) cannot be used on {host}: {e}"),
    }
}

/// Bound at the same time, so that they differ; released just before the children bind them.
fn any_free<const N: usize>(host: IpAddr) -> std::io::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = bind(host, 0)?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use natterjack_nats::server_config::DiskSync;

    use super::*;

    fn up(port: Option<u16>) -> UpSettings {
        // An address of this test alone.
        let host = IpAddr::V4(Ipv4Addr::new(127, 77, 1, 1));
        UpSettings {
            data: "data".into(),
            host,
            port,
            nats_port: None,
            sync: DiskSync::Interval,
            nats_server: None,
            state_file: None,
        }
    }

    #[test]
    fn a_taken_port_is_an_error_only_if_it_was_asked_for() {
        let _taken = bind(up(None).host, EDGE + 1).unwrap();
        let why = choose(&up(Some(EDGE)), None).unwrap_err().to_string();
        assert!(why.contains("8081") && why.contains("taken"), "{why}");
        let chosen = choose(&up(None), None).unwrap();
        assert_ne!(chosen.edges[0], chosen.edges[1]);
        assert!(!chosen.edges.contains(&EDGE));
    }

    #[test]
    fn each_process_has_an_address_for_operators() {
        // An address of this test alone.
        let ip = IpAddr::V4(Ipv4Addr::new(127, 77, 1, 2));
        let at = |port| Some(SocketAddr::new(ip, port));
        let free = UpSettings { host: ip, ..up(None) };
        assert_eq!(choose(&free, None).unwrap().admin, None);
        assert_eq!(choose(&free, at(0)).unwrap().admin.map(|a| a.map(|a| a.port())), Some([9100, 9101, 9102]));
        assert_eq!(choose(&free, at(9500)).unwrap().admin.map(|a| a.map(|a| a.port())), Some([9500, 9501, 9502]));
        let _taken = bind(ip, 9101).unwrap();
        assert!(choose(&free, at(0)).unwrap().admin.is_some_and(|a| a.iter().all(|a| a.port() != 9101)));
        let why = choose(&free, at(9100)).unwrap_err().to_string();
        assert!(why.contains("9101") && why.contains("admin.listen") && why.contains("first edge"), "{why}");
    }
}
