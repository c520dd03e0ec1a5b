//! `natterjack doctor`: checks what Natterjack needs to run here and how a running system is; each failure says what to
//! do.

mod address;
mod losses;
mod moving;
mod nats;
mod operators;
mod presence;
mod proxies;
mod resources;

use std::{path::Path, time::Instant};

use natterjack_nats::{KvBuckets, Layout, LeaderReader, LogUsage, Nats, NatsConfig, NatsRole, server_time};
use natterjack_persister::store::Cql;
use natterjack_runtime::{Resources, clock::wall_ms, resources::free_bytes};

use crate::{
    roles,
    settings::Settings,
    up::{is_free, nats_server},
};

/// True if nothing failed.
#[expect(clippy::print_stdout, reason = "a report for people")]
pub async fn run(settings: &Settings, role: Option<NatsRole>) -> bool {
    let mut all_well = true;
    let mut say = |what: &str, found: Result<String, String>| {
        match &found {
            Ok(how) => println!("ok    {what}: {how}"),
            Err(why) => println!("FAIL  {what}: {why}"),
        }
        all_well &= found.is_ok();
    };
    println!("natterjack {}", env!("CARGO_PKG_VERSION"));
    say(
        "nats-server",
        nats_server::find(settings.up.nats_server.as_deref())
            .await
            .map(|s| format!("{} at {}", s.version, s.path.display()))
            .map_err(|e| format!("{e:#}")),
    );
    let has = Resources::now();
    say("connections", resources::connections(settings.edge.max_connections, &has));
    say("open files", resources::files(settings.nats.partitions, &has));
    say("memory", resources::memory(&has));
    say("threads", resources::threads(&has));
    say("disk", disk(&settings.up.data));
    // In use is no failure: the port may be ours.
    let port = settings.up.port.unwrap_or(8080);
    for p in [port, port.saturating_add(1)] {
        let state = if is_free(settings.up.host, p) {
            "free"
        } else {
            "in use; `up` takes a free one unless --port asks for it"
        };
        say(&format!("port {p}"), Ok(state.into()));
    }
    say("address", address::of_clients(settings));
    say("proxies", proxies::configured(settings));
    say("operators", operators::address(settings));
    if let Some(files) = &settings.edge.tls {
        let found = natterjack_edge::tls::check(files).map_err(|e| e.to_string());
        say("certificate", found.map(|()| format!("{} and its key fit", files.certificate.display())));
    }
    if let Some(cfg) = &settings.cql {
        let keyspace = &cfg.keyspace;
        let found = match Cql::schema_version(cfg).await {
            Ok(Some((there, ours))) if there == ours => Ok(format!("keyspace {keyspace} with schema {there}")),
            Ok(Some((there, ours))) if there > ours => {
                Err(format!("keyspace {keyspace} has schema {there}, this build knows {ours}: use the newer build"))
            }
            Ok(_) => {
                Err(format!("keyspace {keyspace} does not exist or is of an older build; run `natterjack provision`"))
            }
            Err(e) => Err(format!("{e}; check cql.contact_points, and cql.user and cql.password")),
        };
        say("archive", found);
    }
    let cfg = as_role(settings, role);
    match nats::servers(&cfg).await {
        Err(away) => println!("--    NATS: {away} (fine if nothing is running)"),
        Ok(found) => {
            let lets_us_in = found.iter().any(|(_, found)| found.is_ok());
            for (server, found) in found {
                say(&server, found);
            }
            if lets_us_in {
                say("permissions", nats::permissions(&cfg).await);
                for (what, found) in log(&cfg).await {
                    say(what, found);
                }
            }
        }
    }
    all_well
}

/// The connection of that role, by default of the role whose name is the user's.
fn as_role(settings: &Settings, role: Option<NatsRole>) -> NatsConfig {
    let named = || NatsRole::ALL.into_iter().find(|r| settings.nats.user.as_deref() == Some(r.name()));
    NatsConfig { connect_deadline_ms: 2_000, ..roles::nats(settings, role.or_else(named).unwrap_or(NatsRole::Doctor)) }
}

async fn log(cfg: &NatsConfig) -> Vec<(&'static str, Result<String, String>)> {
    let nats = match Nats::connect(cfg, "doctor").await {
        Ok(nats) => nats,
        Err(e) => return vec![("NATS", Err(e.to_string()))],
    };
    let carries = ("NATS", nats.carries_all().map(|bytes| format!("carries {bytes} bytes")));
    match Layout::load(&nats).await {
        Err(e) => vec![carries, ("log", Err(format!("{e}; run `natterjack provision`")))],
        Ok(layout) => {
            let room = LogUsage::of(&nats, &layout).await.map_err(|e| e.to_string());
            let room = room.and_then(|room| room.map_or_else(|| Ok("no limit of bytes".into()), |r| r.check()));
            let mut found =
                vec![carries, ("log", generations(layout)), ("room", room), ("clocks", clocks(&nats, layout).await)];
            found.push(("log's end", losses::ends(&nats, layout).await));
            let unknown = || "unknown: no persister answers".to_owned();
            found.push(("losses", Ok(losses::losses(&nats).await.unwrap_or_else(unknown))));
            found.extend(moving::check(&nats, layout).await);
            // Other roles may not ask.
            if matches!(cfg.role, Some(NatsRole::Edge | NatsRole::Doctor)) {
                found.push(("presence", presence::spoken_for(&nats, layout).await));
            }
            found.push(("backup", Ok(moving::backup(&nats, layout, wall_ms()).await)));
            // Other roles may not read the edges' leases.
            if matches!(cfg.role, Some(NatsRole::Edge | NatsRole::Doctor)) {
                let met = proxies::met(&KvBuckets::new(&nats, layout)).await.map_err(|e| e.to_string());
                found.push(("proxies met", met.and_then(|met| proxies::said(&met))));
            }
            found
        }
    }
}

fn generations(layout: Layout) -> Result<String, String> {
    let Layout { generation, partitions, former, next, .. } = layout;
    let now = format!("generation {generation}, {partitions} partitions");
    match (next, former) {
        (Some(next), _) => Err(format!(
            "{now}; a switch to {} partitions is not finished: run `natterjack provision`",
            next.partitions
        )),
        (None, Some(f)) => Ok(format!("{now} (before: generation {}, {} partitions)", f.generation, f.partitions)),
        (None, None) => Ok(now),
    }
}

fn disk(data: &Path) -> Result<String, String> {
    // The folder may not be there yet; its nearest ancestor is on the same disk.
    let there = data.ancestors().find(|p| p.exists()).filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = free_bytes(there).map_err(|e| e.to_string())? >> 20;
    let text = format!("{free} MB free for {}", data.display());
    if free < 1024 { Err(format!("{text}; the log and the archive need at least 1 GB")) } else { Ok(text) }
}

/// This machine's clock and those of the leaders of the log, compared with the server's time that all roles use.
async fn clocks(nats: &Nats, layout: Layout) -> Result<String, String> {
    let (server, asked) = (server_time::ask(nats).await.map_err(|e| e.to_string())?, Instant::now());
    let ahead = |ms: u64| {
        ms.cast_signed() - server.cast_signed() - i64::try_from(asked.elapsed().as_millis()).unwrap_or(i64::MAX)
    };
    let mut all = vec![("this machine's clock".to_owned(), ahead(wall_ms()))];
    let tail = LeaderReader::new(nats, layout);
    for p in 0..layout.partitions {
        let bounds = tail.bounds(p).await.map_err(|e| e.to_string())?;
        all.push((format!("the clock of the nats-server that leads partition {p} of the log"), ahead(bounds.ts_ms)));
    }
    let wrong: Vec<String> = all
        .iter()
        .filter(|(_, ms)| ms.unsigned_abs() > server_time::APART_MS)
        .map(|(whose, ms)| server_time::apart(whose, *ms))
        .collect();
    if wrong.is_empty() {
        let most = all.iter().map(|(_, ms)| ms.unsigned_abs()).max().unwrap_or(0);
        return Ok(format!("this machine and every nats-server that leads the log are within {most} ms of each other"));
    }
    Err(format!(
        "{}; messages may be refused because their timestamp is ahead: run a time service (chrony, ntpd) on every \
         machine",
        wrong.join("; ")
    ))
}
