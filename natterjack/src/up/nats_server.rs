//! nats-server for `up`: finds it, checks its version, writes its configuration, keeps it running.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use natterjack_nats::server_config::{DiskSync, single_config};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{
    data::DataFolder,
    ports::Ports,
    state::StateFile,
    supervise::{Supervised, Unclean, bound_to_us},
};

/// First version with Batch Direct Get over several subjects, per-message TTLs and the API level that provisioning
/// needs.
pub const AT_LEAST: (u32, u32) = (2, 14);
/// Closing files takes milliseconds; more only if the disk is slow.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct NatsServer {
    pub path: PathBuf,
    pub version: String,
}

/// The one named, else the first one that is new enough: on PATH, beside our own binary, fetched by `make`.
pub async fn find(named: Option<&Path>) -> anyhow::Result<NatsServer> {
    if let Some(path) =
        named.map(Path::to_owned).or_else(|| std::env::var_os("NATTERJACK_NATS_SERVER").map(PathBuf::from))
    {
        return check(&path).await;
    }
    let mut too_old = None;
    for path in candidates() {
        if path.is_file() {
            match check(&path).await {
                Ok(server) => return Ok(server),
                Err(e) => too_old = too_old.or(Some(e)),
            }
        }
    }
    let (major, minor) = AT_LEAST;
    Err(too_old.unwrap_or_else(|| {
        anyhow::anyhow!(
            "no nats-server found; put version {major}.{minor} or newer on PATH, or run `make nats-server`, or set \
             NATTERJACK_NATS_SERVER"
        )
    }))
}

fn candidates() -> Vec<PathBuf> {
    let on_path = std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect::<Vec<_>>()).unwrap_or_default();
    let beside = std::env::current_exe().ok();
    // `target/release/natterjack` in a workspace: three folders up is `.cache/bin`.
    let around = beside
        .iter()
        .flat_map(|b| b.ancestors().skip(1).take(4))
        .flat_map(|dir| [dir.to_owned(), dir.join(".cache/bin")]);
    on_path.into_iter().chain(around).map(|dir| dir.join("nats-server")).collect()
}

async fn check(path: &Path) -> anyhow::Result<NatsServer> {
    let shown = path.display();
    let out = Command::new(path)
        .arg("--version")
        .output()
        .await
        .with_context(|| format!("cannot run {shown} (nats-server)"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let Some(version) = version(&text) else {
        bail!("{shown} does not look like nats-server: its --version says {:?}", text.trim())
    };
    let (major, minor) = AT_LEAST;
    if numbers(&version) < Some(AT_LEAST) {
        bail!(
            "{shown} is version {version}, too old: natterjack needs nats-server {major}.{minor} or newer (`make \
             nats-server` fetches one)"
        );
    }
    Ok(NatsServer { path: path.to_owned(), version })
}

fn version(text: &str) -> Option<String> {
    text.trim().strip_prefix("nats-server: v").map(str::to_owned)
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub async fn keep(
    server: NatsServer,
    data: &DataFolder,
    ports: &Ports,
    sync: DiskSync,
    state: Arc<StateFile>,
    unclean: Unclean,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (config, log) = (data.nats_config(), data.nats_log());
    let log_settings =
        format!("log_file: {:?}\nlogfile_size_limit: 10MB\nlogfile_max_num: 3\n", log.display().to_string());
    std::fs::create_dir_all(data.nats()).context("cannot create the folder of the log")?;
    std::fs::write(&config, single_config(&data.nats(), "127.0.0.1", ports.nats, sync) + &log_settings)
        .with_context(|| format!("cannot write {}", config.display()))?;
    tracing::info!(version = server.version, port = ports.nats, "starting nats-server");
    Supervised {
        name: "nats-server".into(),
        command: Box::new(move || {
            // SIGTERM, not SIGKILL: it closes its files, and its data was safe before.
            let mut c = bound_to_us(&server.path, "TERM");
            c.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            c
        }),
        started: Box::new(move |pid| state.nats_is(pid)),
        grace: GRACE,
        unclean,
    }
    .keep(stop)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("nats-server: v2.15.1\n").as_deref(), Some("2.15.1"));
        assert!(numbers("2.9.25") < Some(AT_LEAST));
        assert!(numbers("2.14.0") >= Some(AT_LEAST));
        assert!(numbers("2.15.0-preview.1") >= Some(AT_LEAST));
    }

    #[tokio::test]
    async fn what_is_too_old_or_something_else_is_said_clearly() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let fake = |text: &str| {
            let path = dir.path().join("nats-server");
            std::fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let old = find(Some(&fake("nats-server: v2.9.25"))).await.unwrap_err().to_string();
        assert!(old.contains("2.9.25") && old.contains("too old") && old.contains("2.14"), "{old}");
        let other = find(Some(&fake("hello"))).await.unwrap_err().to_string();
        assert!(other.contains("does not look like"), "{other}");
    }
}
