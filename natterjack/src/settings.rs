//! Reads and checks every key of `default.toml`. The only place that knows both the names of keys and their types.

mod edge;
mod nats;
mod persister;
mod urls;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use natterjack_edge::Limits;
use natterjack_nats::{NatsConfig, server_config::DiskSync};
use natterjack_persister::{directory::RegistrationRule, external::External, store::cql::CqlConfig};
use natterjack_protocol::{Times, internal::devices::DevicePolicy};
use natterjack_runtime::{
    config::{Errors, Layers, Loader},
    telemetry,
};

pub use self::edge::EdgeSettings;

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
    pub name_hold: Duration,
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
        let external = persister::external(&mut l);
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
            nats: nats::nats(&mut l),
            times: times(&mut l),
            edge: edge::edge(&mut l),
            limits: edge::limits(&mut l),
            devices: edge::devices(&mut l),
            archive: l.checked("persister.archive", |s: String| path(s)?.ok_or_else(|| "a file must be named".into())),
            cql: persister::cql(&mut l),
            registration: persister::registration(&mut l, external.is_some()),
            name_hold: l.checked("accounts.name_hold_days", persister::days),
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
