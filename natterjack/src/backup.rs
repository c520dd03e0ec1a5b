//! `natterjack backup` and `natterjack restore`: finds the system that is meant and prints the result.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::Args;
use natterjack_nats::{Nats, NatsRole, server_config};
use natterjack_persister::{
    StoreConfig,
    backup::{self, Manifest, Origin, Source},
};
use tokio_util::sync::CancellationToken;

use crate::{roles, settings::Settings, up};

#[derive(Args)]
pub struct BackupArgs {
    /// Destination: a folder that is empty or does not exist yet.
    folder: PathBuf,
    /// Back up the `natterjack up` with this data folder [up.data]. Default: the one that runs in up.data, else the
    /// roles that nats.urls and persister.archive (or [cql]) name.
    #[arg(long, value_name = "FOLDER", conflicts_with = "roles")]
    pub data: Option<String>,
    /// Back up the roles that the configuration names, also if an `up` runs here.
    #[arg(long)]
    roles: bool,
    /// With the archive on CQL servers: a program that is run as `COMMAND FOLDER KEYSPACE` and copies a snapshot of
    /// every server into that folder.
    #[arg(long, value_name = "COMMAND")]
    snapshot: Option<PathBuf>,
}

#[derive(Args)]
pub struct RestoreArgs {
    /// A folder that `natterjack backup` has written.
    folder: PathBuf,
    /// Restore into the data folder of a `natterjack up` [up.data]. Default: up.data if the backup is of an `up`, else
    /// what nats.urls and persister.archive (or [cql]) name.
    #[arg(long, value_name = "FOLDER", conflicts_with = "roles")]
    pub data: Option<String>,
    /// Restore into what nats.urls and persister.archive (or [cql]) name.
    #[arg(long)]
    roles: bool,
}

#[expect(clippy::print_stdout, reason = "a report for people")]
pub async fn take(args: BackupArgs, mut settings: Settings) -> anyhow::Result<()> {
    let of_up = args.data.is_some() || (!args.roles && settings.cql.is_none() && up::runs_in(&settings.up.data));
    let source = match settings.cql.clone() {
        Some(cfg) if !of_up => {
            let Some(snapshot) = args.snapshot else {
                bail!(
                    "the archive is on CQL servers: --snapshot COMMAND has to name a program that copies a snapshot \
                     of them, for instance scripts/cql-snapshot.sh"
                );
            };
            Source::Cql { cfg: Box::new(cfg), snapshot }
        }
        _ if of_up => {
            let data = &settings.up.data;
            let url =
                up::nats_url(data).with_context(|| format!("no `natterjack up` has run in {}", data.display()))?;
            settings.nats.urls = vec![url];
            Source::Sqlite { path: up::archive_in(data), origin: Origin::Up }
        }
        _ => Source::Sqlite { path: settings.archive.clone(), origin: Origin::Sqlite },
    };
    // The persister's user reads the log and the keys; there is no user for backups alone.
    let nats = Nats::connect(&roles::nats(&settings, NatsRole::Persister), "backup")
        .await
        .context("a backup needs the running system")?;
    let manifest = backup::take(&nats, &source, &args.folder, env!("CARGO_PKG_VERSION")).await?;
    println!("backup in {}: {}", args.folder.display(), shown(&manifest));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a report for people")]
pub async fn restore(args: RestoreArgs, settings: Settings) -> anyhow::Result<()> {
    let manifest = backup::read(&args.folder)?;
    let into_up = args.data.is_some() || (!args.roles && manifest.origin == Origin::Up);
    let restored = if into_up {
        Box::pin(into_data(&args.folder, settings)).await?
    } else {
        let nats = Nats::connect(&roles::nats(&settings, NatsRole::Persister), "restore").await?;
        let store = roles::store(&settings);
        backup::restore(&nats, &settings.nats, &settings.times, &store, &args.folder).await?
    };
    println!(
        "restored {}: {}\nthe log goes on as generation {}; start everything now",
        args.folder.display(),
        shown(&restored.manifest),
        restored.layout.generation
    );
    Ok(())
}

/// With a nats-server as `up` starts it, until the restore is done.
async fn into_data(folder: &Path, mut settings: Settings) -> anyhow::Result<backup::Restored> {
    let data = up::DataFolder::open(&settings.up.data)?;
    let binary = up::nats_server::find(settings.up.nats_server.as_deref()).await?;
    let ports = up::nats_port_alone()?;
    settings.nats.urls = vec![format!("nats://127.0.0.1:{}", ports.nats)];
    settings.nats.default_max_bytes = Some(server_config::max_bytes_for(data.free_bytes()?, settings.nats.partitions));
    let (state, stop, unclean) =
        (Arc::new(up::StateFile::new(&settings, &ports)), CancellationToken::new(), up::Unclean::default());
    let server = up::nats_server::keep(binary, &data, &ports, settings.up.sync, state, unclean.clone(), stop.clone());
    let store = StoreConfig::Sqlite { path: data.archive() };
    let work = async {
        let nats = Nats::connect(&settings.nats, "restore").await?;
        Ok::<_, anyhow::Error>(backup::restore(&nats, &settings.nats, &settings.times, &store, folder).await?)
    };
    let work = async {
        let done = work.await;
        stop.cancel();
        Ok(done)
    };
    let ((), restored) = tokio::try_join!(server, work)?;
    unclean.check()?;
    restored
}

fn shown(m: &Manifest) -> String {
    let above: u64 = m.logs.iter().map(|l| l.entries).sum();
    let bytes: u64 = m.files.values().map(|f| f.bytes).sum();
    let holes = m.logs.iter().map(|l| l.holes.len()).sum::<usize>();
    let lost = if holes > 0 { format!(", {holes} holes in the log") } else { String::new() };
    format!(
        "generation {}, {} partitions, {} files of {} KB, {above} entries above the archive{lost}",
        m.generation,
        m.partitions,
        m.files.len(),
        bytes >> 10
    )
}
