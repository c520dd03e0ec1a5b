//! The command line: flags are the last layer of the configuration, so each one is the name of a key.

use std::{io::IsTerminal, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use natterjack_bench::BenchArgs;
use natterjack_chat::ChatArgs;
use natterjack_nats::NatsRole;

use crate::{backup, user::UserArgs};

/// Natterjack, a chat backend: WebSocket edges, one NATS cluster as the log, an archive.
#[derive(Parser)]
#[command(version, about, max_term_width = 120)]
pub struct Cli {
    /// A configuration file (default: ./natterjack.toml if there is one). `natterjack config` prints one to start from.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any key of the configuration, for instance `--set nats.replicas=3`.
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Exit when standard input closes: a child process given this does not outlive its parent.
    #[arg(long, global = true)]
    pub die_with_parent: bool,
    #[command(subcommand)]
    pub command: CliCommand,
}

#[derive(Subcommand)]
pub enum CliCommand {
    /// Run everything on this machine: nats-server, channel, persister, presence and two edges. Data in one folder.
    Up(UpArgs),
    /// Create or verify streams, buckets and the schema of the archive. Once per installation, before the other
    /// processes.
    Provision(ProvisionArgs),
    /// Run an edge: WebSocket and HTTP for clients.
    Edge(EdgeArgs),
    /// Run a channel: reads the log in order and publishes events on live subjects.
    Channel,
    /// Run a persister: archives the log; answers history and directory.
    Persister(PersisterArgs),
    /// Run a presence: says who is here, and ends the sessions of edges that are gone.
    Presence,
    /// Chat from a terminal or a script.
    Chat(ChatArgs),
    /// Measure a running system, or one started for the measurement.
    Bench(BenchArgs),
    /// Copy a running system into a folder: the archive, the entries of the log that are not in it yet, and the keys.
    Backup(backup::BackupArgs),
    /// Restore a backup into an empty system. The log continues in a new generation.
    Restore(backup::RestoreArgs),
    /// List, show, log out, disable, rename and delete accounts, set passwords, make invites.
    User(UserArgs),
    /// Check what Natterjack needs to run here, and how a running system is.
    Doctor(DoctorArgs),
    /// Print the annotated default configuration.
    Config(ConfigArgs),
}

#[derive(Args)]
pub struct UpArgs {
    /// Folder for all data [up.data].
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    /// Port of the first edge, the second takes the next [up.port].
    #[arg(long)]
    port: Option<u16>,
    /// Port of nats-server [up.nats_port].
    #[arg(long)]
    nats_port: Option<u16>,
    /// Address of the edges [up.host].
    #[arg(long)]
    host: Option<String>,
    /// When the log goes to disk: `interval` (every 100 ms) or `always` (before each acknowledgement) [up.sync].
    #[arg(long)]
    sync: Option<String>,
    /// File that is kept up to date with URLs and process ids, in JSON [up.state_file].
    #[arg(long, value_name = "FILE")]
    state_file: Option<String>,
}

#[derive(Args)]
pub struct EdgeArgs {
    /// [edge.id]
    #[arg(long)]
    id: Option<String>,
    /// [edge.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address that clients are told to connect to [edge.url].
    #[arg(long)]
    url: Option<String>,
}

#[derive(Args)]
pub struct PersisterArgs {
    /// The archive, one SQLite file [persister.archive].
    #[arg(long, value_name = "FILE")]
    archive: Option<String>,
}

#[derive(Args)]
pub struct ProvisionArgs {
    /// Change the number of partitions of the log, also while everything runs: a new generation of streams is created,
    /// the old one is closed, all roles move to the new one, sessions resume.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: Option<u32>,
    /// Continue the log in a new generation whose ids are above all earlier ones, also while everything runs: after a
    /// loss of power or of a disk, or when the log's folder was restored from an older copy.
    #[arg(long, conflicts_with = "partitions")]
    pub new_generation: bool,
    /// Only print what each role's user may do on NATS, for the configuration of nats-server.
    #[arg(long, conflicts_with_all = ["partitions", "new_generation", "forget_reader"])]
    pub print_permissions: bool,
    /// Stop waiting for a role that reads the log and was stopped for good: a new generation begins without it.
    #[arg(long, value_name = "ROLE")]
    pub forget_reader: Option<String>,
}

#[derive(Args)]
pub struct DoctorArgs {
    /// Check the configuration and the permissions of this role: edge, channel, persister, presence or provision.
    /// Default: the role whose name is `nats.user`, or else only what `doctor` itself needs.
    #[arg(long, value_parser = role)]
    pub role: Option<NatsRole>,
}

fn role(name: &str) -> Result<NatsRole, String> {
    NatsRole::ALL
        .into_iter()
        .find(|r| r.name() == name)
        .ok_or_else(|| "edge, channel, persister, presence, provision or doctor".into())
}

#[derive(Args)]
pub struct ConfigArgs {
    /// As Markdown, the page docs/configuration.md.
    #[arg(long)]
    pub markdown: bool,
}

impl CliCommand {
    /// For people at a terminal: by default only warnings and errors are logged.
    pub fn is_for_people(&self) -> bool {
        matches!(
            self,
            Self::Chat(_) | Self::Bench(_) | Self::Doctor(_) | Self::Backup(_) | Self::Restore(_) | Self::User(_)
        )
    }

    /// It fills the terminal that standard error is, too.
    pub fn draws_on_stderr(&self) -> bool {
        matches!(self, Self::Chat(args) if args.is_full_screen()) && std::io::stderr().is_terminal()
    }
}

impl Cli {
    /// The flags as dotted keys and values; `--set` comes last, so it wins.
    pub fn keys(&self) -> Vec<(String, String)> {
        let of_command: Vec<(&str, Option<String>)> = match &self.command {
            CliCommand::Up(a) => vec![
                ("up.data", a.data.clone()),
                ("up.port", a.port.map(|p| p.to_string())),
                ("up.nats_port", a.nats_port.map(|p| p.to_string())),
                ("up.host", a.host.clone()),
                ("up.sync", a.sync.clone()),
                ("up.state_file", a.state_file.clone()),
            ],
            CliCommand::Edge(a) => {
                vec![("edge.id", a.id.clone()), ("edge.listen", a.listen.clone()), ("edge.url", a.url.clone())]
            }
            CliCommand::Persister(a) => vec![("persister.archive", a.archive.clone())],
            CliCommand::Backup(a) => vec![("up.data", a.data.clone())],
            CliCommand::User(a) => vec![("up.data", a.data.clone())],
            CliCommand::Restore(a) => vec![("up.data", a.data.clone())],
            CliCommand::Provision(_)
            | CliCommand::Channel
            | CliCommand::Presence
            | CliCommand::Chat(_)
            | CliCommand::Bench(_)
            | CliCommand::Doctor(_)
            | CliCommand::Config(_) => {
                vec![]
            }
        };
        of_command
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .chain(self.set.iter().cloned())
            .collect()
    }
}

fn key_value(s: &str) -> Result<(String, String), String> {
    match s.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be SECTION.KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_keys_and_set_wins() {
        let cli = Cli::parse_from(["natterjack", "up", "--port", "9000", "--set", "up.port=9001"]);
        assert_eq!(cli.keys(), [("up.port".to_owned(), "9000".to_owned()), ("up.port".to_owned(), "9001".to_owned())]);
    }
}
