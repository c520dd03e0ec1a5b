//! Reads and checks every key of `default.toml`. The only place that knows both the names of keys and their types.

mod urls;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use natterjack_edge::Limits;
use natterjack_nats::{NatsConfig, server_config::DiskSync};
use natterjack_persister::{
    directory::RegistrationRule,
    external::{External, KeySource},
    store::{
        accounts::PASSWORD,
        cql::{Consistency, CqlConfig},
    },
};
use natterjack_protocol::{
    Times, Token,
    internal::{
        claims::ISSUER,
        devices::{ClassPolicy, DevicePolicy, GivesWay},
    },
    limits::USER_DEVICES,
};
use natterjack_runtime::{
    config::{Errors, Layers, Loader},
    networks::Network,
    telemetry,
};

/// Annotated; printed by `natterjack config`.
pub const DEFAULT: &str = include_str!("../default.toml");

/// The same as in the file; a test compares the two.
pub const DEFAULT_FILTER: &str = "info,async_nats=warn,scylla=error";

/// Read by default, if it exists.
const FILE: &str = "natterjack.toml";

#[derive(Debug, Clone)]
pub struct Settings {
    pub process: ProcessSettings,
    pub log: telemetry::Config,
    pub admin: Option<SocketAddr>,
    pub nats: NatsConfig,
    pub times: Times,
    pub edge: EdgeSettings,
    pub limits: Limits,
    pub devices: DevicePolicy,
    /// The archive of the persister, unless it is on CQL servers.
    pub archive: PathBuf,
    pub cql: Option<CqlConfig>,
    pub registration: RegistrationRule,
    pub external: Option<External>,
    pub up: UpSettings,
}

#[derive(Debug, Clone)]
pub struct ProcessSettings {
    pub instance: Option<String>,
    /// None: chosen by the number of cores.
    pub threads: Option<usize>,
    pub drain: Duration,
}

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

#[derive(Debug, Clone)]
pub struct UpSettings {
    pub data: PathBuf,
    pub host: IpAddr,
    /// None: any free one.
    pub port: Option<u16>,
    pub nats_port: Option<u16>,
    pub sync: DiskSync,
    pub nats_server: Option<PathBuf>,
    pub state_file: Option<PathBuf>,
}

impl Settings {
    /// `file` must exist if given; `flags` are dotted keys and values.
    pub fn load(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Result<Self, Errors> {
        let file = file.or_else(|| Some(PathBuf::from(FILE)).filter(|f| f.is_file()));
        // A variable that is not UTF-8 cannot be one of ours.
        let env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self::read(Layers { file, env, flags })
    }

    /// The defaults with these keys.
    #[cfg(test)]
    pub fn of(flags: &[(&str, &str)]) -> Result<Self, Errors> {
        Self::read(Layers {
            flags: flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Layers::default()
        })
    }

    fn read(layers: Layers) -> Result<Self, Errors> {
        let mut l = Loader::new(DEFAULT, layers);
        let external = external(&mut l);
        let settings = Self {
            process: ProcessSettings {
                instance: text(&mut l, "process.instance"),
                threads: l.checked("process.threads", |n: usize| {
                    if n <= 256 { Ok((n > 0).then_some(n)) } else { Err("at most 256".into()) }
                }),
                drain: Duration::from_secs(l.get("process.drain_seconds")),
            },
            log: telemetry::Config { format: l.get("log.format"), filter: l.get("log.filter") },
            admin: l.checked("admin.listen", |s: String| if s.is_empty() { Ok(None) } else { address(&s).map(Some) }),
            nats: nats(&mut l),
            times: times(&mut l),
            edge: edge(&mut l),
            limits: limits(&mut l),
            devices: devices(&mut l),
            archive: l.checked("persister.archive", |s: String| path(s)?.ok_or_else(|| "a file must be named".into())),
            cql: cql(&mut l),
            registration: registration(&mut l, external.is_some()),
            external,
            up: UpSettings {
                data: l.checked("up.data", |s: String| path(s)?.ok_or_else(|| "a folder must be named".into())),
                host: l.checked("up.host", |s: String| s.parse().map_err(|_| format!("{s:?} is not an IP address"))),
                // The second edge takes the next port.
                port: l
                    .checked("up.port", |n: u16| if n < u16::MAX { Ok(port(n)) } else { Err("at most 65534".into()) }),
                nats_port: port(l.get("up.nats_port")),
                sync: l.checked("up.sync", |s: String| match s.as_str() {
                    "interval" => Ok(DiskSync::Interval),
                    "always" => Ok(DiskSync::Always),
                    _ => Err(format!("{s:?} is neither \"interval\" nor \"always\"")),
                }),
                nats_server: l.checked("up.nats_server", path),
                state_file: l.checked("up.state_file", path),
            },
        };
        if settings.admin.is_some_and(|admin| admin.port() != 0 && admin == settings.edge.listen) {
            l.refuse(
                "admin.listen",
                "is the same as edge.listen, which clients use: operators need an address of their own",
            );
        }
        l.finish(settings)
    }
}

fn edge(l: &mut Loader) -> EdgeSettings {
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

fn nats(l: &mut Loader) -> NatsConfig {
    let cfg = NatsConfig {
        urls: l.checked(
            "nats.urls",
            |urls: Vec<String>| if urls.is_empty() { Err("at least one URL".to_owned()) } else { Ok(urls) },
        ),
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
        replicas: l.checked(
            "nats.replicas",
            |n: usize| if matches!(n, 1 | 3 | 5) { Ok(n) } else { Err("1, 3 or 5".to_owned()) },
        ),
        partitions: l.checked("nats.partitions", |n: u32| {
            if (1..=1024).contains(&n) { Ok(n) } else { Err("1 to 1024".to_owned()) }
        }),
        kv_shards: l.checked("nats.kv_shards", |n: u32| {
            if (1..=1024).contains(&n) { Ok(n) } else { Err("1 to 1024".to_owned()) }
        }),
        max_bytes: l.checked("nats.max_bytes", |n: i64| {
            if n >= 0 { Ok((n > 0).then_some(n)) } else { Err("0 or more".to_owned()) }
        }),
        ..NatsConfig::default()
    };
    match (&cfg.tls.certificate, &cfg.tls.key) {
        (Some(_), None) => l.refuse("nats.tls.key", "is missing: nats.tls.certificate is set"),
        (None, Some(_)) => l.refuse("nats.tls.certificate", "is missing: nats.tls.key is set"),
        _ => {}
    }
    let ways = [cfg.user.is_some(), cfg.token.is_some(), cfg.nkey.is_some(), cfg.creds.is_some()];
    if ways.into_iter().filter(|set| *set).count() > 1 {
        l.refuse(
            "nats.user",
            "only one of nats.user, nats.token, nats.nkey and nats.creds may be set: a connection logs in with one of \
             them",
        );
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
        replication: l
            .checked("cql.replication", |n: u32| if (1..=9).contains(&n) { Ok(n) } else { Err("1 to 9".to_owned()) }),
        consistency: l.checked("cql.consistency", |s: String| {
            Consistency::parse(&s).ok_or("local_quorum, quorum or one".to_owned())
        }),
        local_dc: text(l, "cql.local_dc"),
        ..CqlConfig::default()
    };
    (!cfg.contact_points.is_empty()).then_some(cfg)
}

fn registration(l: &mut Loader, external: bool) -> RegistrationRule {
    l.checked("accounts.registration", |s: String| match s.as_str() {
        "" if external => Ok(RegistrationRule::Closed),
        "" | "open" => Ok(RegistrationRule::Open),
        "invite" => Ok(RegistrationRule::Invite),
        "closed" => Ok(RegistrationRule::Closed),
        _ => Err(format!("{s:?} is none of \"open\", \"invite\" and \"closed\"")),
    })
}

/// None: no issuer is named.
fn external(l: &mut Loader) -> Option<External> {
    let issuer = l.checked("external.issuer", |s: String| {
        // Reserved: the issuers of our own accounts.
        if [PASSWORD, ISSUER].contains(&s.as_str()) { Err(format!("{s:?} is reserved by Natterjack")) } else { Ok(s) }
    });
    let audience: String = l.get("external.audience");
    let url = l.checked("external.jwks_url", urls::keys_url);
    let file = l.checked("external.jwks_file", path);
    let subject_claim =
        l.checked(
            "external.subject_claim",
            |s: String| if s.is_empty() { Err("a claim must be named".to_owned()) } else { Ok(s) },
        );
    let name_claim = text(l, "external.name_claim");
    if issuer.is_empty() {
        if !audience.is_empty() || url.is_some() || file.is_some() {
            l.refuse("external.issuer", "is missing: other keys of [external] are set");
        }
        return None;
    }
    if audience.is_empty() {
        l.refuse("external.audience", "is missing: without it tokens for other applications would be accepted");
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
        l.refuse(
            "times.log_max_age_hours",
            format!("must be at least {least} seconds: twice the log's duplicate window"),
        );
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

fn devices(l: &mut Loader) -> DevicePolicy {
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

#[cfg(test)]
mod tests;
