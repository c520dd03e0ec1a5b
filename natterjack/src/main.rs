//! The one binary. This file is the checklist of every process: parse, configure, set up telemetry, build, run, drain.

mod backup;
mod cli;
mod doctor;
mod roles;
mod settings;
mod up;
mod user;
mod utc;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use cli::{Cli, CliCommand};
use natterjack_nats::Nats;
use natterjack_persister::store::Cql;
use natterjack_runtime::{Resources, config, telemetry, telemetry::Metrics};
use roles::ServerRole;
use settings::Settings;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Standard error may be a log file by now; one line with every cause suits both.
            eprintln!("natterjack: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    if let CliCommand::Config(args) = &cli.command {
        print_config(args.markdown);
        return Ok(());
    }
    let mut settings = Settings::load(cli.config.clone(), cli.keys())?;
    if cli.command.is_for_people() && settings.log.filter == settings::DEFAULT_FILTER {
        settings.log.filter = "warn".into();
    }
    if cli.command.draws_on_stderr() {
        // A log line would destroy the screen; `2>FILE` gets the log.
        settings.log.filter = "off".into();
    }
    let metrics = telemetry::init(&settings.log)?;
    // Before anything is opened or started: children take over what is raised here.
    if let Some((from, to)) = Resources::raise() {
        tracing::info!("{to} files may be open at once, raised from {from}");
    }
    let (workers, blocking) = Resources::now().for_runtime(threads(&cli.command, &settings));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(blocking)
        .thread_name("natterjack")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(Box::pin(async {
        tokio::select! {
            ended = run(cli, settings, metrics.clone()) => ended,
            () = metrics.clone().upkeep() => Ok(()),
        }
    }));
    // What still blocks (a database call, say) was given its time by the drain.
    runtime.shutdown_background();
    ended
}

async fn run(cli: Cli, settings: Settings, metrics: Metrics) -> anyhow::Result<()> {
    let with_parent = cli.die_with_parent;
    match cli.command {
        CliCommand::Up(_) => {
            up::run(settings, up::Forward { config: cli.config, set: cli.set }, with_parent, metrics).await
        }
        CliCommand::Edge(_) => roles::serve(ServerRole::Edge, settings, with_parent, metrics).await,
        CliCommand::Channel => roles::serve(ServerRole::Channel, settings, with_parent, metrics).await,
        CliCommand::Presence => roles::serve(ServerRole::Presence, settings, with_parent, metrics).await,
        CliCommand::Persister(_) => roles::serve(ServerRole::Persister, settings, with_parent, metrics).await,
        CliCommand::Provision(args) if args.print_permissions => {
            print_permissions(&settings);
            Ok(())
        }
        CliCommand::Provision(args) => provision(&settings, &args).await,
        CliCommand::Chat(args) => Box::pin(natterjack_chat::run(args)).await,
        CliCommand::Bench(args) => Box::pin(natterjack_bench::run(args)).await,
        CliCommand::Backup(args) => Box::pin(backup::take(args, settings)).await,
        CliCommand::User(args) => Box::pin(user::run(args, settings)).await,
        CliCommand::Restore(args) => Box::pin(backup::restore(args, settings)).await,
        CliCommand::Doctor(args) => {
            if !doctor::run(&settings, args.role).await {
                bail!("natterjack cannot run here until what failed above is fixed");
            }
            Ok(())
        }
        // Needs neither settings nor a runtime, and has been printed.
        CliCommand::Config(_) => Ok(()),
    }
}

async fn provision(settings: &Settings, args: &cli::ProvisionArgs) -> anyhow::Result<()> {
    let cfg = roles::nats(settings, natterjack_nats::NatsRole::Provision);
    let nats = Nats::connect(&cfg, "provision").await?;
    if let Some(role) = &args.forget_reader {
        let readers = natterjack_nats::LogReaders::new(&nats);
        if !readers.forget(role).await? {
            let all: Vec<String> = readers.all().await?.into_iter().collect();
            bail!(
                "{role} cannot be forgotten: the log is read by {}, and channel and persister always count",
                all.join(", ")
            );
        }
    }
    let mut layout = match args.partitions {
        Some(n) => natterjack_nats::switch(&nats, &cfg, &settings.times, n).await?,
        None => natterjack_nats::provision(&nats, &cfg, &settings.times).await?,
    };
    if args.new_generation {
        layout = natterjack_nats::renew(&nats, layout.generation, natterjack_nats::IdFloor::default()).await?;
    }
    tracing::info!(
        generation = layout.generation,
        partitions = layout.partitions,
        kv_shards = layout.kv_shards,
        "provisioned"
    );
    if let Some(cql) = &settings.cql {
        Cql::connect(cql).await.context("the archive")?;
        tracing::info!(keyspace = cql.keyspace, "the schema of the archive is up to date");
    }
    Ok(())
}

/// An edge uses every core; the rest waits for disk and network most of the time.
fn threads(command: &CliCommand, settings: &Settings) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    settings.process.threads.unwrap_or(match command {
        CliCommand::Edge(_) => cores,
        CliCommand::Bench(args) if args.one_thread() => 1,
        _ => cores.min(4),
    })
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn print_permissions(settings: &Settings) {
    print!("{}", natterjack_nats::permissions::nats_server(settings.nats.kv_shards));
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn print_config(markdown: bool) {
    if markdown {
        print!("{}", config::markdown(settings::DEFAULT));
    } else {
        print!("{}", settings::DEFAULT);
    }
}
