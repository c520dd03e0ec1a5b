//! Which ports `up` takes: what was asked for or nothing, otherwise the usual ones if they are free, else any free ones.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use anyhow::bail;

use crate::settings::Up;

const EDGE: u16 = 8080;
const NATS: u16 = 4222;
/// Only edges are reached from elsewhere.
const NATS_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub edges: [u16; 2],
    pub nats: u16,
}

pub fn choose(up: &Up) -> anyhow::Result<Ports> {
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
    Ok(Ports { edges, nats })
}

/// For a nats-server alone.
pub fn nats_port_alone() -> anyhow::Result<Ports> {
    let [nats] = any_free(NATS_HOST)?;
    Ok(Ports { edges: [0, 0], nats })
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
            bail!("port {port} ({what}) is taken on {host}; give another one, or none to let free ones be chosen")
        }
        Err(e) => bail!("port {port} ({what}) cannot be used on {host}: {e}"),
    }
}

/// Held together, so that they differ; let go just before the children take them.
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
    use natterjack_nats::server::Sync;

    use super::*;

    fn up(port: Option<u16>) -> Up {
        // An address of this test alone.
        let host = IpAddr::V4(Ipv4Addr::new(127, 77, 1, 1));
        Up { data: "data".into(), host, port, nats_port: None, sync: Sync::Interval, nats_server: None, state_file: None }
    }

    #[test]
    fn a_taken_port_is_an_error_only_if_it_was_asked_for() {
        let _taken = bind(up(None).host, EDGE + 1).unwrap();
        let why = choose(&up(Some(EDGE))).unwrap_err().to_string();
        assert!(why.contains("8081") && why.contains("taken"), "{why}");
        let chosen = choose(&up(None)).unwrap();
        assert_ne!(chosen.edges[0], chosen.edges[1]);
        assert!(!chosen.edges.contains(&EDGE));
    }
}
