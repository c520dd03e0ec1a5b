//! `[edge]`, `[limits]` and `[devices]`: the address that clients use, and what one user or address may do there.

use std::net::SocketAddr;

use natterjack_edge::Limits;
use natterjack_protocol::{
    Token,
    internal::devices::{ClassPolicy, DevicePolicy, GivesWay},
    limits::USER_DEVICES,
};
use natterjack_runtime::{config::Loader, networks::Network};

use super::{address, path, urls};

#[derive(Debug, Clone)]
pub struct EdgeSettings {
    pub id: Token,
    pub listen: SocketAddr,
    pub url: Option<String>,
    pub max_connections: usize,
    pub max_group_members: usize,
    /// None: plain.
    pub tls: Option<natterjack_edge::tls::Files>,
}

pub(super) fn edge(l: &mut Loader) -> EdgeSettings {
    let edge = EdgeSettings {
        id: l.checked("edge.id", |s: String| Token::parse(&s).map_err(|e| e.to_string())),
        listen: l.checked("edge.listen", |s: String| address(&s)),
        url: l.checked("edge.url", urls::edge_url),
        max_connections: l.get("edge.max_connections"),
        max_group_members: l.get("edge.max_group_members"),
        tls: tls(l),
    };
    if edge.tls.is_some() && edge.url.as_ref().is_some_and(|url| url.starts_with("ws://")) {
        l.refuse("edge.url", "must begin with wss://, because edge.tls.certificate is set");
    }
    edge
}

/// The files are checked where they are read: not every process with this configuration has them.
fn tls(l: &mut Loader) -> Option<natterjack_edge::tls::Files> {
    match (l.checked("edge.tls.certificate", path), l.checked("edge.tls.key", path)) {
        (Some(certificate), Some(key)) => Some(natterjack_edge::tls::Files { certificate, key }),
        (Some(_), None) => {
            l.refuse("edge.tls.key", "is missing: edge.tls.certificate is set");
            None
        }
        (None, Some(_)) => {
            l.refuse("edge.tls.certificate", "is missing: edge.tls.key is set");
            None
        }
        (None, None) => None,
    }
}

pub(super) fn limits(l: &mut Loader) -> Limits {
    let networks = |all: Vec<String>| all.iter().map(|n| n.parse::<Network>().map_err(|e| e.to_string())).collect();
    Limits {
        exempt: l.checked("limits.exempt", networks),
        trusted_proxies: l.checked("limits.trusted_proxies", networks),
        connections_per_address: l.get("limits.connections_per_address"),
        bytes_per_address: l.get("limits.bytes_per_address"),
        connects_per_address: l.get("limits.connects_per_address"),
        connects_per_user: l.get("limits.connects_per_user"),
        registers_per_address: l.get("limits.registers_per_address"),
        logins_per_address: l.get("limits.logins_per_address"),
        logins_per_name: l.get("limits.logins_per_name"),
        logins_per_name_anywhere: l.get("limits.logins_per_name_anywhere"),
        logins_per_device: l.get("limits.logins_per_device"),
        renewals_per_login: l.get("limits.renewals_per_login"),
        lookups_per_address: l.get("limits.lookups_per_address"),
        sends_per_user: l.get("limits.sends_per_user"),
        requests_per_user: l.get("limits.requests_per_user"),
    }
}

pub(super) fn devices(l: &mut Loader) -> DevicePolicy {
    let mut class = |count: &str, when_full: &str| ClassPolicy {
        count: l.checked(count, |n: usize| if n > 0 { Ok(n) } else { Err("at least 1".to_owned()) }),
        gives_way: l.checked(when_full, |s: String| {
            GivesWay::parse(&s).ok_or_else(|| GivesWay::ALL.map(|(_, name)| name).join(", "))
        }),
    };
    let policy = DevicePolicy {
        phone: class("devices.phone", "devices.phone_when_full"),
        tablet: class("devices.tablet", "devices.tablet_when_full"),
        desktop: class("devices.desktop", "devices.desktop_when_full"),
        web: class("devices.web", "devices.web_when_full"),
        other: class("devices.other", "devices.other_when_full"),
    };
    if policy.total() > USER_DEVICES {
        l.refuse(
            "devices.phone",
            format!("with the other classes {}, at most {USER_DEVICES} together", policy.total()),
        );
    }
    policy
}
