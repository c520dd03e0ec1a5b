//! Every key of `default.toml`, read and checked. The only place that knows both the names of keys and the types behind them.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use natterjack_edge::Limits;
use natterjack_nats::{NatsConfig, server::Sync};
use natterjack_persister::{
    external::{External, KeySource},
    store::{
        accounts::PASSWORD,
        cql::{Consistency, CqlConfig},
    },
};
use natterjack_protocol::{Times, Token, client::address::Reach, internal::claims::ISSUER};
use natterjack_runtime::{
    config::{Errors, Layers, Loader},
    networks::Network,
    telemetry,
};

/// Annotated; printed by `natterjack config`.
pub const DEFAULT: &str = include_str!("../default.toml");

/// As in the file; a test holds them together.
pub const DEFAULT_FILTER: &str = "info,async_nats=warn,scylla=error";

/// Read without being asked for, if it is there.
const FILE: &str = "natterjack.toml";

#[derive(Debug, Clone)]
pub struct Settings {
    pub process: Process,
    pub log: telemetry::Config,
    pub admin: Option<SocketAddr>,
    pub nats: NatsConfig,
    pub times: Times,
    pub edge: Edge,
    pub limits: Limits,
    /// The archive of the persister, if it is not on servers.
    pub archive: PathBuf,
    pub cql: Option<CqlConfig>,
    pub external: Option<External>,
    pub up: Up,
}

#[derive(Debug, Clone)]
pub struct Process {
    pub instance: Option<String>,
    /// None: chosen by the number of cores.
    pub threads: Option<usize>,
    pub drain: Duration,
}

#[derive(Debug, Clone)]
pub struct Edge {
    pub id: Token,
    pub listen: SocketAddr,
    pub url: Option<String>,
    pub max_connections: usize,
    pub max_group_members: usize,
    /// None: plain.
    pub tls: Option<natterjack_edge::tls::Files>,
}

#[derive(Debug, Clone)]
pub struct Up {
    pub data: PathBuf,
    pub host: std::net::IpAddr,
    /// None: nobody asked for one.
    pub port: Option<u16>,
    pub nats_port: Option<u16>,
    pub sync: Sync,
    pub nats_server: Option<PathBuf>,
    pub state_file: Option<PathBuf>,
}

impl Settings {
    /// `file` must exist if given; `flags` are dotted keys and values.
    pub fn load(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Result<Self, Errors> {
        let file = file.or_else(|| Some(PathBuf::from(FILE)).filter(|f| f.is_file()));
        // A variable that is not UTF-8 cannot be one of ours.
        let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self::read(Layers { file, env, flags })
    }

    /// The defaults with these keys.
    #[cfg(test)]
    pub fn of(flags: &[(&str, &str)]) -> Result<Self, Errors> {
        Self::read(Layers { flags: flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), ..Layers::default() })
    }

    fn read(layers: Layers) -> Result<Self, Errors> {
        let mut l = Loader::new(DEFAULT, layers);
        let settings = Self {
            process: Process {
                instance: text(&mut l, "process.instance"),
                threads: l
                    .checked("process.threads", |n: usize| if n <= 256 { Ok((n > 0).then_some(n)) } else { Err("at most 256".into()) }),
                drain: Duration::from_secs(l.get("process.drain_seconds")),
            },
            log: telemetry::Config { format: l.get("log.format"), filter: l.get("log.filter") },
            admin: l.checked("admin.listen", |s: String| if s.is_empty() { Ok(None) } else { address(&s).map(Some) }),
            nats: nats(&mut l),
            times: times(&mut l),
            edge: edge(&mut l),
            limits: limits(&mut l),
            archive: l.checked("persister.archive", |s: String| path(s)?.ok_or_else(|| "a file must be named".into())),
            cql: cql(&mut l),
            external: external(&mut l),
            up: Up {
                data: l.checked("up.data", |s: String| path(s)?.ok_or_else(|| "a folder must be named".into())),
                host: l.checked("up.host", |s: String| s.parse().map_err(|_| format!("{s:?} is not an IP address"))),
                // The second edge takes the next port.
                port: l.checked("up.port", |n: u16| if n < u16::MAX { Ok(port(n)) } else { Err("at most 65534".into()) }),
                nats_port: port(l.get("up.nats_port")),
                sync: l.checked("up.sync", |s: String| match s.as_str() {
                    "interval" => Ok(Sync::Interval),
                    "always" => Ok(Sync::Always),
                    _ => Err(format!("{s:?} is neither \"interval\" nor \"always\"")),
                }),
                nats_server: l.checked("up.nats_server", path),
                state_file: l.checked("up.state_file", path),
            },
        };
        if settings.admin.is_some_and(|admin| admin.port() != 0 && admin == settings.edge.listen) {
            l.refuse("admin.listen", "is edge.listen, where clients come: what is for operators needs an address of its own");
        }
        l.finish(settings)
    }
}

fn edge(l: &mut Loader) -> Edge {
    let edge = Edge {
        id: l.checked("edge.id", |s: String| Token::parse(&s).map_err(|e| e.to_string())),
        listen: l.checked("edge.listen", |s: String| address(&s)),
        url: l.checked("edge.url", url),
        max_connections: l.get("edge.max_connections"),
        max_group_members: l.get("edge.max_group_members"),
        tls: tls(l),
    };
    if edge.tls.is_some() && edge.url.as_ref().is_some_and(|url| url.starts_with("ws://")) {
        l.refuse("edge.url", "must begin with wss://, because edge.tls.certificate is set");
    }
    edge
}

/// Whether the files are good shows where they are read: not every process that has this configuration has them.
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

fn nats(l: &mut Loader) -> NatsConfig {
    let cfg = NatsConfig {
        urls: l.checked("nats.urls", |urls: Vec<String>| if urls.is_empty() { Err("at least one URL".to_owned()) } else { Ok(urls) }),
        user: text(l, "nats.user"),
        password: text(l, "nats.password"),
        token: text(l, "nats.token"),
        nkey: l.checked("nats.nkey", path),
        creds: l.checked("nats.creds", path),
        tls: natterjack_nats::TlsFiles {
            ca: l.checked("nats.tls.ca", path),
            certificate: l.checked("nats.tls.certificate", path),
            key: l.checked("nats.tls.key", path),
            required: l.get("nats.tls.required"),
            first: l.get("nats.tls.first"),
        },
        name: l.get("nats.name"),
        connect_deadline_ms: l.get("nats.connect_deadline_ms"),
        replicas: l.checked("nats.replicas", |n: usize| if matches!(n, 1 | 3 | 5) { Ok(n) } else { Err("1, 3 or 5".to_owned()) }),
        partitions: l.checked("nats.partitions", |n: u32| if (1..=1024).contains(&n) { Ok(n) } else { Err("1 to 1024".to_owned()) }),
        kv_shards: l.checked("nats.kv_shards", |n: u32| if (1..=1024).contains(&n) { Ok(n) } else { Err("1 to 1024".to_owned()) }),
        max_bytes: l.checked("nats.max_bytes", |n: i64| if n >= 0 { Ok((n > 0).then_some(n)) } else { Err("0 or more".to_owned()) }),
        ..NatsConfig::default()
    };
    match (&cfg.tls.certificate, &cfg.tls.key) {
        (Some(_), None) => l.refuse("nats.tls.key", "is missing: nats.tls.certificate is set"),
        (None, Some(_)) => l.refuse("nats.tls.certificate", "is missing: nats.tls.key is set"),
        _ => {}
    }
    let ways = [cfg.user.is_some(), cfg.token.is_some(), cfg.nkey.is_some(), cfg.creds.is_some()];
    if ways.into_iter().filter(|set| *set).count() > 1 {
        l.refuse("nats.user", "one of nats.user, nats.token, nats.nkey and nats.creds may be set: a connection logs in with one of them");
    }
    cfg
}

/// None: no servers are named.
fn cql(l: &mut Loader) -> Option<CqlConfig> {
    let cfg = CqlConfig {
        contact_points: l.get("cql.contact_points"),
        keyspace: l.checked("cql.keyspace", |s: String| {
            let plain = !s.is_empty() && s.len() <= 48 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if plain { Ok(s) } else { Err("1 to 48 letters, digits and _".to_owned()) }
        }),
        user: text(l, "cql.user"),
        password: text(l, "cql.password"),
        replication: l.checked("cql.replication", |n: u32| if (1..=9).contains(&n) { Ok(n) } else { Err("1 to 9".to_owned()) }),
        consistency: l.checked("cql.consistency", |s: String| Consistency::parse(&s).ok_or("local_quorum, quorum or one".to_owned())),
        local_dc: text(l, "cql.local_dc"),
        ..CqlConfig::default()
    };
    (!cfg.contact_points.is_empty()).then_some(cfg)
}

/// None: no issuer is named.
fn external(l: &mut Loader) -> Option<External> {
    let issuer = l.checked("external.issuer", |s: String| {
        // The names under which our own accounts stand beside it.
        if [PASSWORD, ISSUER].contains(&s.as_str()) { Err(format!("{s:?} is taken by Natterjack itself")) } else { Ok(s) }
    });
    let audience: String = l.get("external.audience");
    let url = l.checked("external.jwks_url", keys_url);
    let file = l.checked("external.jwks_file", path);
    let subject_claim =
        l.checked("external.subject_claim", |s: String| if s.is_empty() { Err("a claim must be named".to_owned()) } else { Ok(s) });
    let name_claim = text(l, "external.name_claim");
    if issuer.is_empty() {
        if !audience.is_empty() || url.is_some() || file.is_some() {
            l.refuse("external.issuer", "is missing: other keys of [external] are set");
        }
        return None;
    }
    if audience.is_empty() {
        l.refuse("external.audience", "is missing: without it tokens for other applications would be taken");
    }
    let keys = match (url, file) {
        (Some(url), None) => KeySource::Url(url),
        (None, Some(file)) => KeySource::File(file),
        _ => {
            l.refuse("external.jwks_url", "one of external.jwks_url and external.jwks_file must be set");
            return None;
        }
    };
    Some(External { issuer, audience, keys, subject_claim, name_claim })
}

/// Who answers here says who may log in as whom.
fn keys_url(s: String) -> Result<Option<String>, String> {
    if s.is_empty() {
        return Ok(None);
    }
    let url = reqwest::Url::parse(&s).map_err(|e| format!("is not a URL: {e}"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(Some(s)),
        "http" if here => Ok(Some(s)),
        _ => {
            Err("must begin with https://, or with http:// on this machine: whoever could change the answer could log in as anybody"
                .to_owned())
        }
    }
}

fn times(l: &mut Loader) -> Times {
    let positive = |n: u32| if n > 0 { Ok(n) } else { Err("at least 1".to_owned()) };
    let divisor = l.checked("times.divisor", positive);
    let age = |hours: f64| Duration::try_from_secs_f64(hours * 3600.0).map_err(|e| e.to_string());
    let (log_max_age, minutes, days) = (
        l.checked("times.log_max_age_hours", age),
        l.checked("times.access_token_minutes", positive),
        l.checked("times.refresh_token_days", positive),
    );
    let seconds = |s: f64| match Duration::try_from_secs_f64(s) {
        Ok(d) if !d.is_zero() => Ok(d),
        _ => Err("must be more than 0".to_owned()),
    };
    let times = Times {
        handshake: l.checked("edge.handshake_seconds", seconds),
        head: l.checked("edge.head_seconds", seconds),
        body: l.checked("edge.body_seconds", seconds),
        http_idle: l.checked("edge.idle_seconds", seconds),
        stall: l.checked("edge.stall_seconds", seconds),
        drain: Duration::from_secs(l.get("process.drain_seconds")),
        log_max_age,
        storage_margin: Times::default().storage_margin.min(log_max_age / 3),
        access_token: Duration::from_secs(u64::from(minutes) * 60),
        refresh_token: Duration::from_secs(u64::from(days) * 24 * 3600),
        ..Times::scaled(divisor)
    };
    if times.log_max_age < 2 * times.dedupe_window {
        let least = 2 * times.dedupe_window.as_secs();
        l.refuse("times.log_max_age_hours", format!("must be at least {least} seconds: twice the log's duplicate window"));
    }
    times
}

fn limits(l: &mut Loader) -> Limits {
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

fn text(l: &mut Loader, key: &str) -> Option<String> {
    Some(l.get::<String>(key)).filter(|s| !s.is_empty())
}

fn path(s: String) -> Result<Option<PathBuf>, String> {
    Ok((!s.is_empty()).then(|| PathBuf::from(s)))
}

fn port(n: u16) -> Option<u16> {
    (n != 0).then_some(n)
}

fn address(s: &str) -> Result<SocketAddr, String> {
    s.parse().map_err(|_| format!("{s:?} is not an address such as 127.0.0.1:8080"))
}

fn url(s: String) -> Result<Option<String>, String> {
    if s.is_empty() {
        return Ok(None);
    }
    let url = reqwest::Url::parse(&s).map_err(|e| format!("{s:?} is not a URL such as wss://edge1.example.org: {e}"))?;
    let host = url.host_str().unwrap_or_default();
    let at = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    if !matches!(url.scheme(), "ws" | "wss") {
        return Err(format!("{s:?} begins neither with ws:// nor with wss://"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || s.contains('@') {
        return Err(format!(
            "must be scheme, host and port alone: {}://{at}; clients put paths of their own behind it (`/v1/ws`)",
            url.scheme()
        ));
    }
    match Reach::of_host(host) {
        None | Some(Reach::Nowhere) => Err(format!(
            "{host} is an address to listen on, none that anybody can go to; leave it empty, and clients are told the one they came by"
        )),
        Some(_) => Ok(Some(format!("{}://{at}", url.scheme()))),
    }
}

#[cfg(test)]
mod tests {
    use natterjack_runtime::config::sections;

    use super::*;

    fn with(flags: &[(&str, &str)]) -> Result<Settings, Errors> {
        Settings::of(flags)
    }

    #[test]
    fn the_default_file_is_a_good_configuration() {
        let s = with(&[]).unwrap();
        assert_eq!(s.times, Times::default());
        assert_eq!(s.up.port, None);
        assert_eq!(s.log.filter, DEFAULT_FILTER);
    }

    /// A key that nobody reads would be a promise that nothing keeps.
    #[test]
    fn every_key_of_the_default_file_is_read() {
        for section in sections(DEFAULT) {
            for e in section.entries {
                let key = format!("{}.{}", section.name, e.key);
                let read = include_str!("settings.rs").matches(&format!("\"{key}\"")).count();
                assert!(read > 0, "{key} is in default.toml and nothing reads it");
            }
        }
    }

    #[test]
    fn the_archive_is_a_file_until_servers_are_named() {
        assert_eq!(with(&[]).unwrap().cql, None);
        let cql = with(&[("cql.contact_points", "a:9042, b:9042"), ("cql.user", "n"), ("cql.consistency", "one")]).unwrap().cql.unwrap();
        assert_eq!((cql.contact_points.len(), cql.user.as_deref(), cql.consistency), (2, Some("n"), Consistency::One));
        assert!(with(&[("cql.keyspace", "a-b")]).is_err());
    }

    #[test]
    fn one_login_to_nats_and_a_certificate_with_its_key() {
        let nats = with(&[("nats.nkey", "seed"), ("nats.tls.ca", "ca.pem"), ("nats.tls.first", "true")]).unwrap().nats;
        assert_eq!((nats.nkey, nats.tls.ca, nats.tls.first), (Some("seed".into()), Some("ca.pem".into()), true));
        let text = with(&[("nats.user", "a"), ("nats.creds", "b"), ("nats.tls.certificate", "c")]).unwrap_err().to_string();
        assert!(text.contains("nats.tls.key: is missing") && text.contains("nats.user: one of"), "{text}");
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        assert_eq!(with(&[]).unwrap().edge.tls, None);
        let (certificate, key) = (("edge.tls.certificate", "c.pem"), ("edge.tls.key", "k.pem"));
        let files = with(&[certificate, key, ("edge.url", "wss://h")]).unwrap().edge.tls.unwrap();
        assert_eq!((files.certificate, files.key), ("c.pem".into(), "k.pem".into()));
        for (flags, missing) in [(vec![certificate], "edge.tls.key"), (vec![key], "edge.tls.certificate")] {
            let text = with(&flags).unwrap_err().to_string();
            assert!(text.contains(&format!("{missing}: is missing")), "{text}");
        }
        assert!(with(&[certificate, key, ("edge.url", "ws://h")]).unwrap_err().to_string().contains("wss://"));
    }

    #[test]
    fn the_address_for_clients_is_one_that_clients_can_use() {
        let url = |url: &str| with(&[("edge.url", url)]).map(|s| s.edge.url).map_err(|e| e.to_string());
        for (given, taken) in [
            ("", None),
            ("wss://edge1.example.org", Some("wss://edge1.example.org")),
            ("WSS://Edge1.Example.org:443/", Some("wss://edge1.example.org")),
            ("ws://192.168.1.5:8080", Some("ws://192.168.1.5:8080")),
            ("ws://[fd00::5]:8080/", Some("ws://[fd00::5]:8080")),
            ("ws://127.0.0.1:8080", Some("ws://127.0.0.1:8080")),
        ] {
            assert_eq!(url(given).unwrap().as_deref(), taken, "{given}");
        }
        for (given, word) in [
            ("wss://chat.example.org/app", "wss://chat.example.org;"),
            ("wss://chat.example.org/v1/ws", "/v1/ws"),
            ("wss://chat.example.org?x=1", "alone"),
            ("wss://chat.example.org#x", "alone"),
            ("wss://me@chat.example.org", "alone"),
            ("https://chat.example.org", "ws://"),
            ("chat.example.org", "not a URL"),
            ("ws://0.0.0.0:8080", "listen"),
            ("ws://[::]:8080", "listen"),
            ("ws://0:8080", "listen"),
            ("ws://", "not a URL"),
        ] {
            let why = url(given).unwrap_err();
            assert!(why.contains("edge.url") && why.contains(word), "{given}: {why}");
        }
    }

    #[test]
    fn an_external_issuer_is_whole_or_not_there() {
        assert_eq!(with(&[]).unwrap().external, None);
        let (issuer, audience) = (("external.issuer", "https://login"), ("external.audience", "chat"));
        let (url, file) = (("external.jwks_url", "https://login/keys"), ("external.jwks_file", "keys.json"));
        let external = with(&[issuer, audience, url]).unwrap().external.unwrap();
        assert_eq!((external.keys, external.subject_claim.as_str()), (KeySource::Url("https://login/keys".into()), "sub"));
        assert!(matches!(with(&[issuer, audience, file]).unwrap().external.unwrap().keys, KeySource::File(_)));
        for here in ["http://127.0.0.1:8080/keys", "http://localhost/keys", "http://[::1]/keys"] {
            assert!(with(&[issuer, audience, ("external.jwks_url", here)]).unwrap().external.is_some(), "{here}");
        }
        for (flags, wrong) in [
            (vec![issuer, url], "external.audience"),
            (vec![issuer, audience], "external.jwks_url"),
            (vec![issuer, audience, url, file], "external.jwks_url"),
            (vec![audience, url], "external.issuer"),
            (vec![("external.issuer", "password"), audience, url], "external.issuer"),
            (vec![issuer, audience, ("external.jwks_url", "ftp://x")], "external.jwks_url"),
            (vec![issuer, audience, ("external.jwks_url", "http://login/keys")], "https://"),
            (vec![issuer, audience, ("external.jwks_url", "http://127.0.0.1@login/keys")], "https://"),
            (vec![issuer, audience, ("external.jwks_url", "login/keys")], "external.jwks_url"),
            (vec![issuer, audience, url, ("external.subject_claim", "")], "external.subject_claim"),
        ] {
            let text = with(&flags).unwrap_err().to_string();
            assert!(text.contains(wrong), "{text}");
        }
    }

    #[test]
    fn operators_and_clients_have_different_addresses() {
        assert_eq!(with(&[]).unwrap().admin, Some(([127, 0, 0, 1], 0).into()));
        assert_eq!(with(&[("admin.listen", "")]).unwrap().admin, None);
        let why = with(&[("admin.listen", "127.0.0.1:8080")]).unwrap_err().to_string();
        assert!(why.contains("admin.listen") && why.contains("edge.listen"), "{why}");
    }

    #[test]
    fn all_errors_at_once() {
        let text = with(&[
            ("edge.id", "a.b"),
            ("edge.listen", "here"),
            ("nats.replicas", "2"),
            ("up.sync", "often"),
            ("times.divisor", "0"),
            ("edge.idle_seconds", "0"),
            ("edge.stall_seconds", "-1"),
            ("limits.exempt", "10.0.0.1/8"),
        ])
        .unwrap_err()
        .to_string();
        for key in [
            "edge.id",
            "edge.listen",
            "nats.replicas",
            "up.sync",
            "times.divisor",
            "edge.idle_seconds",
            "edge.stall_seconds",
            "limits.exempt",
        ] {
            assert!(text.contains(key), "{key} is missing in {text}");
        }
    }
}
