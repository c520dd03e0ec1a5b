//! `natterjack bench`: loads a running system from a separate process and measures it: rates, percentiles, and the CPU
//! time of each server process per delivery, from /proc.

mod alarm;
mod cold;
mod connection;
mod cpu;
mod groups;
mod idle;
mod pairs;
mod pin;
mod presence;
mod raw;
mod reading;
mod report;
mod system;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

use self::{report::LoadReport, system::System};

#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// State file of a running `natterjack up --state-file FILE`; without it one is started in a temporary folder.
    #[arg(long)]
    state: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// All servers on the first core and the load on the second, so that a rate is a rate per core. Not with --state.
    #[arg(long, conflicts_with = "state")]
    pin: bool,
    /// The load never sleeps. Otherwise a server's write to it may have to wake its core, which costs the server more
    /// than the write; remote clients are not woken by the server's CPU. One thread of load, so only with --pin.
    #[arg(long, requires = "pin")]
    busy: bool,
    /// Seconds each load runs.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[command(subcommand)]
    load: Option<BenchLoad>,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum BenchLoad {
    /// Connections that only hold their heartbeat.
    Idle {
        #[arg(long, default_value_t = 1_000)]
        connections: usize,
    },
    /// Pairs of users writing to each other, every message acknowledged by the log; then JetStream alone with the same
    /// load.
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
    /// Conversations waking up that nobody has touched since the system was started, 1,000 a second; then the same
    /// ones, warm.
    Cold {
        /// How many are made before.
        #[arg(long, default_value_t = 20_000)]
        threads: usize,
    },
    /// Users who watch each other while some of them change; then, with --kill, an edge that dies with its users.
    Presence {
        #[arg(long, default_value_t = 10_000)]
        users: usize,
        /// How many each of them watches, at most 500.
        #[arg(long, default_value_t = 200)]
        watched: usize,
        /// How many of 1,000 users change each second.
        #[arg(long, default_value_t = 10)]
        changing: usize,
        /// Kills the second edge with so many users on it.
        #[arg(long)]
        kill: Option<usize>,
    },
    /// What reading costs: a group whose members all read the same message at once; then users who start, each with the
    /// list of their threads.
    Reading {
        /// Of the group; 0: without this load.
        #[arg(long, default_value_t = 500)]
        members: usize,
        /// Messages that all of them read.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// Who start; 0: without this load.
        #[arg(long, default_value_t = 10_000)]
        users: usize,
        /// Of each of them.
        #[arg(long, default_value_t = 50)]
        threads: usize,
        /// Seconds within which they connect.
        #[arg(long, default_value_t = 10)]
        within: u64,
        /// Their devices are new: each gets the newest page of each thread before its list.
        #[arg(long)]
        fresh: bool,
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
        /// Members who write them.
        #[arg(long, default_value_t = 1)]
        writers: usize,
    },
}

impl BenchArgs {
    /// With a second thread one of them would sleep.
    pub fn one_thread(&self) -> bool {
        self.busy
    }
}

impl BenchLoad {
    /// What `make bench` runs when nothing else is asked for.
    fn all() -> Vec<Self> {
        vec![
            Self::Idle { connections: 5_000 },
            Self::Pairs { pairs: 100, window: 16, rate: None },
            Self::Pairs { pairs: 100, window: 16, rate: Some(1_000) },
            Self::Groups { groups: 10, members: 100, window: 4, writers: 1 },
            Self::Groups { groups: 10, members: 100, window: 4, writers: 4 },
            Self::Groups { groups: 10, members: 100, window: 1, writers: 1 },
            Self::Groups { groups: 100, members: 10, window: 4, writers: 1 },
            Self::Groups { groups: 2, members: 500, window: 4, writers: 1 },
            Self::Cold { threads: 20_000 },
        ]
    }
}

pub async fn run(args: BenchArgs) -> Result<()> {
    let mut system = System::open(args.state.as_deref(), args.pin).await?;
    let time = Duration::from_secs(args.seconds.max(1));
    let _awake = args.busy.then(|| {
        AbortOnDropHandle::new(tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        }))
    });
    let loads = args.load.map_or_else(BenchLoad::all, |load| vec![load]);
    let bar =
        ProgressBar::new(loads.len() as u64).with_style(ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}")?);
    let mut reports: Vec<LoadReport> = Vec::new();
    let mut failed = None;
    for load in loads {
        bar.set_message(format!("{load:?}"));
        match one(&mut system, &load, time).await {
            Ok(seen) => reports.extend(seen),
            // The other loads still run.
            Err(e) => failed = Some(e.context(format!("{load:?}"))),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    system.close().await;
    report::print(&reports, &system::machine(args.busy), args.json)?;
    failed.map_or(Ok(()), Err)
}

async fn one(system: &mut System, load: &BenchLoad, time: Duration) -> Result<Vec<LoadReport>> {
    Ok(match *load {
        BenchLoad::Idle { connections } => vec![idle::run(system, connections, time).await?],
        BenchLoad::Pairs { pairs, window, rate } => {
            vec![
                pairs::run(system, pairs, window, rate, time).await?,
                raw::run(system, pairs, window, rate, pairs::BODY, time).await?,
            ]
        }
        BenchLoad::Cold { threads } => cold::run(system, threads, time).await?,
        BenchLoad::Presence { users, watched, changing, kill } => {
            let mut reports = vec![presence::changes(system, users, watched, changing, time).await?];
            if let Some(users) = kill {
                reports.push(presence::edge_killed(system, users, watched).await?);
            }
            reports
        }
        BenchLoad::Reading { members, rounds, users, threads, within, fresh } => {
            let mut reports = Vec::new();
            if members > 0 {
                reports.push(reading::at_once(system, members, rounds).await?);
            }
            if users > 0 {
                reports.push(reading::starts::run(system, (users, threads), Duration::from_secs(within), fresh).await?);
            }
            reports
        }
        BenchLoad::Groups { groups, members, window, writers } => {
            vec![groups::run(system, (groups, members), window, writers, time).await?]
        }
    })
}
