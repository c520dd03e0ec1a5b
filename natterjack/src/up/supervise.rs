//! Keeps one child process running: starts it again when it dies, ends it in good order when told to.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;

pub struct Supervised<'a> {
    /// In logs and errors.
    pub name: String,
    pub command: Box<dyn FnMut() -> Command + Send + 'a>,
    /// Gets each new process id.
    pub started: Box<dyn FnMut(u32) + Send + 'a>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
}

impl Supervised<'_> {
    /// Returns after `stop`, when the child is gone; or when it could not be started the first time.
    /// If this is dropped, the child is killed.
    pub async fn keep(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        let mut first = true;
        while !stop.is_cancelled() {
            let began = Instant::now();
            match self.spawn() {
                Ok(mut child) => {
                    // Taken out, because `wait` would close it, and some children end when it closes.
                    let _stdin = child.stdin.take();
                    tokio::select! {
                        ended = child.wait() => {
                            let how = ended.map_or_else(|e| e.to_string(), |s| s.to_string());
                            tracing::warn!(child = self.name, how, lived_ms = began.elapsed().as_millis(), "a child process ended; starting it again");
                        }
                        () = stop.cancelled() => return self.end(child).await,
                    }
                }
                Err(e) if first => return Err(e),
                Err(e) => tracing::error!(child = self.name, error = format!("{e:#}"), "cannot start a child process"),
            }
            first = false;
            tokio::select! {
                () = tokio::time::sleep(backoff.after(began.elapsed())) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    fn spawn(&mut self) -> anyhow::Result<Child> {
        let child = (self.command)().kill_on_drop(true).spawn().with_context(|| format!("cannot start {}", self.name))?;
        if let Some(pid) = child.id() {
            (self.started)(pid);
        }
        Ok(child)
    }

    async fn end(&self, mut child: Child) -> anyhow::Result<()> {
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // Fails only if it has ended in this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(self.grace, child.wait()).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(e).with_context(|| format!("waiting for {}", self.name)),
            Err(_) => {
                tracing::warn!(child = self.name, grace_s = self.grace.as_secs(), "did not end in time; killing it");
                child.kill().await.with_context(|| format!("killing {}", self.name))?;
            }
        }
        Ok(())
    }
}

/// A command whose process gets `signal` when this one dies, however that happens, where the system has a tool for it;
/// `unsafe` is forbidden here, so this cannot be asked of the kernel directly. In a process group of its own: a Ctrl-C in the terminal is
/// for `up`, which then ends its children in order.
pub fn bound_to_us(program: &Path, signal: &str) -> Command {
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().map(Path::new).find(|p| p.exists());
    let mut command = match setpriv {
        Some(setpriv) => {
            let mut c = Command::new(setpriv);
            c.args(["--pdeathsig", signal, "--"]).arg(program);
            c
        }
        None => Command::new(program),
    };
    command.process_group(0);
    command
}
