//! The two edges of `up`: processes of their own from this same binary, each started again on its port when it dies.

use std::{net::IpAddr, process::Stdio, sync::Arc, time::Duration};

use anyhow::Context;
use natterjack_protocol::client::address::Reach;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{
    Forward,
    ports::Ports,
    state::StateFile,
    supervise::{Supervised, Unclean},
};
use crate::settings::Settings;

const EXIT: Duration = Duration::from_secs(3);

/// Addresses of the edges from this machine. What clients are told is decided by the edges: `edge.url`, or the address
/// they used.
pub fn urls(settings: &Settings, ports: &Ports) -> [String; 2] {
    at(reachable(settings.up.host), settings, ports)
}

/// The same from another machine, if the edges listen for others and this machine has a route to any.
pub fn from_elsewhere(settings: &Settings, ports: &Ports) -> Option<[String; 2]> {
    // The source address of a packet to another network; none is sent. Both targets are of the ranges for
    // documentation.
    let (any, elsewhere) = match settings.up.host {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(elsewhere).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (Reach::of(ip) == Reach::Wide).then(|| at(ip, settings, ports))
}

fn at(ip: IpAddr, settings: &Settings, ports: &Ports) -> [String; 2] {
    let scheme = if settings.edge.tls.is_some() { "wss" } else { "ws" };
    ports.edges.map(|port| format!("{scheme}://{}", std::net::SocketAddr::new(ip, port)))
}

fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(a) if a.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(a) if a.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        other => other,
    }
}

pub async fn keep(
    settings: &Settings,
    forward: &Forward,
    ports: &Ports,
    state: Arc<StateFile>,
    unclean: Unclean,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // The file this process was started from, also after a new build has replaced it.
    let binary = std::env::current_exe().context("finding our own binary")?;
    let one = |index: usize| {
        let (binary, state) = (binary.clone(), state.clone());
        let args = arguments(settings, forward, ports, index);
        Supervised {
            name: format!("edge {}", index + 1),
            command: Box::new(move || {
                let mut c = Command::new(&binary);
                // glibc keeps a heap per thread; two are enough for what an edge allocates, and cost less memory.
                c.args(&args).env("MALLOC_ARENA_MAX", "2").stdin(Stdio::piped()).process_group(0);
                c
            }),
            started: Box::new(move |pid| state.edge_is(index, pid)),
            // The drain has its own bound; then a moment to exit.
            grace: settings.process.drain + EXIT,
            unclean: unclean.clone(),
        }
        .keep(stop.clone())
    };
    tokio::try_join!(one(0), one(1)).map(|_| ())
}

fn arguments(settings: &Settings, forward: &Forward, ports: &Ports, index: usize) -> Vec<String> {
    let mut args = vec!["edge".to_owned(), "--die-with-parent".to_owned()];
    if let Some(file) = &forward.config {
        args.extend(["--config".into(), file.display().to_string()]);
    }
    let ours = [
        ("edge.id", format!("edge-{}", index + 1)),
        ("edge.listen", std::net::SocketAddr::new(settings.up.host, ports.edges[index]).to_string()),
        ("nats.urls", settings.nats.urls.join(",")),
        ("admin.listen", ports.admin.map(|a| a[index + 1].to_string()).unwrap_or_default()),
        ("process.drain_seconds", settings.process.drain.as_secs().to_string()),
    ];
    let theirs = forward.set.iter().map(|(k, v)| (k.as_str(), v.clone()));
    args.extend(theirs.chain(ours).flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]));
    args
}

/// Returns when both answer that they are ready.
pub async fn ready(settings: &Settings, ports: &Ports) -> reqwest::Result<()> {
    // Our own children, addressed by IP: their certificate names what clients use.
    let http = reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build()?;
    for url in urls(settings, ports) {
        let url = format!("{}/ready", url.replacen("ws", "http", 1));
        while !answers(&http, &url).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn answers(http: &reqwest::Client, url: &str) -> bool {
    http.get(url).timeout(Duration::from_secs(1)).send().await.is_ok_and(|r| r.status().is_success())
}
