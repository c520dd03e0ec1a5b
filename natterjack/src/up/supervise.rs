//! Keeps one child process running: restarts it when it dies, stops it with SIGTERM, then SIGKILL.

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::backoff::RestartBackoff;

/// Our processes handle signals well before this.
const STARTING: Duration = Duration::from_secs(2);

/// Children that did not stop in order. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Unclean(Arc<Mutex<Vec<String>>>);

impl Unclean {
    fn note(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// An error that names them, if there are any.
    pub fn check(&self) -> anyhow::Result<()> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() { Ok(()) } else { bail!("the stop was not clean: {}", all.join("; ")) }
    }
}

pub struct Supervised<'a> {
    /// In logs and errors.
    pub name: String,
    pub command: Box<dyn FnMut() -> Command + Send + 'a>,
    /// Gets each new process id.
    pub started: Box<dyn FnMut(u32) + Send + 'a>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    pub unclean: Unclean,
}

impl Supervised<'_> {
    /// Returns after `stop`, when the child is gone; or when it could not be started the first time.
    /// If this is dropped, the child is killed.
    pub async fn keep(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = RestartBackoff::default();
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
                            tracing::warn!(
                                child = self.name, how, lived_ms = began.elapsed().as_millis(),
                                "a child process ended; starting it again"
                            );
                        }
                        () = stop.cancelled() => return self.end(child, began.elapsed()).await,
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
        let child =
            (self.command)().kill_on_drop(true).spawn().with_context(|| format!("cannot start {}", self.name))?;
        if let Some(pid) = child.id() {
            (self.started)(pid);
        }
        Ok(child)
    }

    async fn end(&self, mut child: Child, age: Duration) -> anyhow::Result<()> {
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // Fails only if it has ended in this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(self.grace, child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            // It did not handle signals yet, so it had begun nothing.
            Ok(Ok(status)) if age < STARTING && status.signal() == Some(Signal::TERM.as_raw()) => {}
            Ok(Ok(status)) => self.unclean.note(format!("{} ended with {status}", self.name)),
            Ok(Err(e)) => return Err(e).with_context(|| format!("waiting for {}", self.name)),
            Err(_) => {
                tracing::warn!(
                    child = self.name,
                    grace_s = self.grace.as_secs(),
                    "a child process did not stop in time; killing it"
                );
                self.unclean.note(format!(
                    "{} did not end within {} s and was killed",
                    self.name,
                    self.grace.as_secs()
                ));
                child.kill().await.with_context(|| format!("killing {}", self.name))?;
            }
        }
        Ok(())
    }
}

/// A command whose process gets `signal` when this one dies, however that happens, where the system has a tool for it;
/// `unsafe` is forbidden here, so this cannot be asked of the kernel directly. In a process group of its own: a Ctrl-C
/// in the terminal is for `up`, which then ends its children in order.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `trap`: what the child does with SIGTERM.
    async fn stopped(trap: &str) -> anyhow::Result<()> {
        let (unclean, stop, dir) = (Unclean::default(), CancellationToken::new(), tempfile::tempdir()?);
        let set = dir.path().join("set");
        let script = format!("trap '{trap}' TERM; : > {}; while :; do sleep 0.05; done", set.display());
        let child = Supervised {
            name: "toad".into(),
            command: Box::new(move || {
                let mut c = Command::new("sh");
                c.args(["-c", script.as_str()]);
                c
            }),
            started: Box::new(|_| ()),
            grace: Duration::from_secs(1),
            unclean: unclean.clone(),
        };
        let ask = async {
            while !set.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        };
        tokio::join!(child.keep(stop.clone()), ask).0?;
        unclean.check()
    }

    #[tokio::test]
    async fn a_stop_is_clean_only_if_every_child_ended_in_order() {
        stopped("exit 0").await.unwrap();
        let killed = stopped("").await.unwrap_err().to_string();
        assert!(killed.contains("toad did not end within 1 s") && killed.contains("not clean"), "{killed}");
        let failed = stopped("exit 3").await.unwrap_err().to_string();
        assert!(failed.contains("toad ended with") && failed.contains('3'), "{failed}");
        stopped("-").await.unwrap();
    }
}
