//! `natterjack bench`: load on a running system, from a process of its own. Figures are what was seen: rates, percentiles,
//! and the CPU time of each server process per delivery, from /proc.

mod connection;
mod cpu;
mod groups;
mod idle;
mod pairs;
mod report;
mod system;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use self::{report::Report, system::System};

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// State file of a running `natterjack up --state-file FILE`; without it a system of its own is started in a temporary folder.
    #[arg(long)]
    state: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Seconds each load runs.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[command(subcommand)]
    load: Option<Load>,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum Load {
    /// Connections that only hold their heartbeat.
    Idle {
        #[arg(long, default_value_t = 1_000)]
        connections: usize,
    },
    /// Pairs of users writing to each other, every message acknowledged by the log.
    Pairs {
        #[arg(long, default_value_t = 100)]
        pairs: usize,
        /// Unacknowledged sends of each pair.
        #[arg(long, default_value_t = 16)]
        window: usize,
        /// Sends per second of all pairs together instead of as fast as the window lets them.
        #[arg(long)]
        rate: Option<u64>,
    },
    /// Groups whose members are all online.
    Groups {
        #[arg(long, default_value_t = 10)]
        groups: usize,
        #[arg(long, default_value_t = 100)]
        members: usize,
        /// Messages in flight in each group.
        #[arg(long, default_value_t = 4)]
        window: usize,
    },
}

impl Load {
    /// The short form that `make bench` runs when nothing else is asked for.
    fn all() -> Vec<Self> {
        vec![
            Self::Idle { connections: 1_000 },
            Self::Pairs { pairs: 100, window: 16, rate: None },
            Self::Pairs { pairs: 100, window: 16, rate: Some(1_000) },
            Self::Groups { groups: 10, members: 100, window: 4 },
            Self::Groups { groups: 10, members: 100, window: 1 },
        ]
    }
}

pub async fn run(args: Args) -> Result<()> {
    let system = System::open(args.state.as_deref()).await?;
    let time = Duration::from_secs(args.seconds.max(1));
    let loads = args.load.map_or_else(Load::all, |load| vec![load]);
    let bar = ProgressBar::new(loads.len() as u64).with_style(ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}")?);
    let mut reports: Vec<Report> = Vec::new();
    for load in loads {
        bar.set_message(format!("{load:?}"));
        reports.push(match load {
            Load::Idle { connections } => idle::run(&system, connections, time).await?,
            Load::Pairs { pairs, window, rate } => pairs::run(&system, pairs, window, rate, time).await?,
            Load::Groups { groups, members, window } => groups::run(&system, groups, members, window, time).await?,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    system.close().await;
    report::print(&reports, &system::machine(), args.json)
}
