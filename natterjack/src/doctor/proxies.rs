//! Is there a proxy in front of the edges that is not configured? Then limits by address count all clients as one, or
//! none at all.

use std::{net::IpAddr, time::Duration};

use futures_util::StreamExt;
use natterjack_nats::{KvBuckets, KvError};
use natterjack_protocol::client::address::Reach;
use natterjack_runtime::networks::any_contains;

use crate::settings::Settings;

/// The entries of the bucket come at once.
const SILENCE: Duration = Duration::from_millis(500);

/// From the configuration alone: clients from outside reach an edge that listens on loopback only through a proxy on
/// this machine.
pub fn configured(s: &Settings) -> Result<String, String> {
    let trusted = s.limits.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let here = s.edge.listen.ip();
    let outside = s.edge.url.as_deref().filter(|url| is_elsewhere(url));
    match outside {
        Some(url) if here.is_loopback() && !any_contains(&s.limits.trusted_proxies, here) => Err(format!(
            "clients connect to {url} and the edge listens on {here}, so a proxy on this machine is between them and \
             its address counts for \
             all of them{}; name it in limits.trusted_proxies (`[\"{here}\"]`) and let it set X-Forwarded-For",
            if any_contains(&s.limits.exempt, here) { ", and is exempt from every limit" } else { "" }
        )),
        _ if trusted.is_empty() => Ok("none is trusted".into()),
        _ => Ok(format!("trusted: {trusted}")),
    }
}

/// True for another machine, or a name that others can resolve.
fn is_elsewhere(url: &str) -> bool {
    let host = reqwest::Url::parse(url).ok().and_then(|u| Reach::of_host(u.host_str()?));
    host.is_some_and(|reach| reach > Reach::Loopback)
}

/// Untrusted proxies that the running edges have seen.
pub async fn met(buckets: &KvBuckets) -> Result<Vec<(String, IpAddr)>, KvError> {
    let mut leases = buckets.edges().watch().await?;
    let mut met = Vec::new();
    while let Ok(Some(lease)) = tokio::time::timeout(SILENCE, leases.next()).await {
        met.retain(|(id, _)| *id != lease.name);
        met.extend(lease.value.and_then(|edge| edge.unheeded).map(|peer| (lease.name, peer)));
    }
    Ok(met)
}

pub fn said(met: &[(String, IpAddr)]) -> Result<String, String> {
    match met {
        [] => Ok("no edge has seen an untrusted one".into()),
        all => Err(all
            .iter()
            .map(|(edge, peer)| {
                format!(
                    "edge {edge} got forwarding headers from {peer}, which is not in limits.trusted_proxies: all \
                     clients behind it count as {peer}. \
                     If it is your proxy, add it there; if you do not know it, the headers are forged"
                )
            })
            .collect::<Vec<_>>()
            .join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Result<String, String> {
        configured(&Settings::of(set).unwrap())
    }

    #[test]
    fn a_proxy_on_the_same_machine_has_to_be_named() {
        let outside = ("edge.url", "wss://chat.example.org");
        let said = of(&[outside, ("edge.listen", "127.0.0.1:8080")]).unwrap_err();
        assert!(
            said.contains("limits.trusted_proxies") && said.contains("127.0.0.1") && said.contains("exempt"),
            "{said}"
        );
        assert!(of(&[outside, ("edge.listen", "[::1]:8080")]).is_err());
        assert!(!of(&[outside, ("limits.exempt", "10.0.0.0/8")]).unwrap_err().contains("exempt"));
        assert!(of(&[outside, ("limits.trusted_proxies", "127.0.0.1")]).is_ok_and(|s| s.contains("127.0.0.1")));
        assert!(of(&[outside, ("edge.listen", "0.0.0.0:8080")]).is_ok(), "clients may come by themselves");
        for near in ["", "ws://127.0.0.1:8080", "ws://localhost:8080", "ws://[::1]:8080"] {
            assert!(of(&[("edge.url", near)]).is_ok(), "{near}");
        }
    }

    #[test]
    fn what_an_edge_has_met_is_said_with_what_to_do() {
        assert!(said(&[]).is_ok());
        let met =
            [("edge-1".to_owned(), "127.0.0.1".parse().unwrap()), ("edge-2".to_owned(), "10.0.0.7".parse().unwrap())];
        let said = said(&met).unwrap_err();
        for word in ["edge-1", "127.0.0.1", "edge-2", "10.0.0.7", "limits.trusted_proxies", "forged"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
