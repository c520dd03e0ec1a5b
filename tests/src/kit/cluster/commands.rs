//! What an operator runs on a cluster: `provision`, `doctor` and other commands, each to its end.

use std::time::Duration;

use natterjack_nats::NatsRole;
use natterjack_testkit::{eventually_within, programs};

use super::Cluster;

impl Cluster {
    /// Three servers elect their leaders first; until then they refuse.
    pub(super) async fn provision(&self) {
        eventually_within("streams and buckets are made", Duration::from_secs(60), async || {
            self.run_provision(&[]).await
        })
        .await;
    }

    /// `natterjack provision --partitions N`, once; what it says if it fails.
    pub async fn switch(&self, partitions: u32) -> Result<(), String> {
        self.run_provision(&["--partitions".to_owned(), partitions.to_string()]).await
    }

    /// `natterjack provision --new-generation`, once; what it says if it fails.
    pub async fn new_generation(&self) -> Result<(), String> {
        self.run_provision(&["--new-generation".to_owned()]).await
    }

    /// What `natterjack doctor` says, and whether it is content.
    pub async fn doctor(&self) -> (String, bool) {
        let settings =
            self.settings(NatsRole::Doctor, 0).into_iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]);
        let mut command = tokio::process::Command::new(programs::natterjack());
        command.env("NATTERJACK_NATS_SERVER", programs::nats_server());
        let out = command.arg("doctor").args(settings).output().await.unwrap();
        (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.success())
    }

    async fn run_provision(&self, own: &[String]) -> Result<(), String> {
        self.run_as(NatsRole::Provision, "provision", own).await.map(drop)
    }

    /// A command of an operator, to its end: what it says, or what it says if it fails.
    pub async fn run(&self, command: &str, args: &[String]) -> Result<String, String> {
        self.run_as(NatsRole::Persister, command, args).await
    }

    async fn run_as(&self, role: NatsRole, command: &str, args: &[String]) -> Result<String, String> {
        let mut settings = self.settings(role, 0);
        settings.push(("persister.archive".into(), self.archive().display().to_string()));
        let settings = settings.into_iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]);
        let mut process = tokio::process::Command::new(programs::natterjack());
        let out = process
            .arg(command)
            .args(args)
            .args(settings)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| e.to_string())?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() { Ok(said(&out.stdout)) } else { Err(said(&out.stderr)) }
    }

    /// What a command of that role is told, as `--set`.
    pub fn command_line(&self, role: NatsRole) -> Vec<String> {
        self.settings(role, 0).into_iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]).collect()
    }
}
