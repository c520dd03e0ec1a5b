//! How a process ends: softly at first (drain what is in flight), hard when that takes too long or is asked for twice.

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Lives as long as the process; its task ends with it.
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    deadline: Duration,
    watcher: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
pub struct LifecycleOptions {
    /// From the soft stop to the hard one.
    pub drain: Duration,
    /// End, at once, when standard input closes: for children, so that they do not outlive whoever started them.
    pub die_with_parent: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    #[error("not everything had drained in time")]
    TimedOut,
}

enum Cause {
    Signal(&'static str),
    ParentGone,
}

impl Lifecycle {
    /// Takes SIGTERM and SIGINT from here on. Must be called within a runtime.
    pub fn install(options: LifecycleOptions) -> std::io::Result<Self> {
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let parent = options.die_with_parent.then(watch_stdin);
        let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
        let watcher = tokio::spawn(watch(term, int, parent, soft.clone(), hard.clone(), options.drain));
        Ok(Self { soft, hard, deadline: options.drain, watcher })
    }

    /// Cancelled when the process should drain and end.
    pub fn stop(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Runs `work` to its end, or drops it when the drain deadline or a second signal comes first.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            // Work that ended in the same moment has ended well.
            biased;
            done = work => Ok(done),
            () = self.hard.cancelled() => {
                tracing::warn!(deadline_s = self.deadline.as_secs(), "ending hard");
                Err(Stopped::TimedOut)
            }
        }
    }
}

impl Drop for Lifecycle {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn watch(
    mut term: Signal,
    mut int: Signal,
    mut parent: Option<mpsc::Receiver<()>>,
    soft: CancellationToken,
    hard: CancellationToken,
    drain: Duration,
) {
    match next(&mut term, &mut int, &mut parent, &soft).await {
        Some(Cause::ParentGone) => {
            tracing::warn!("the parent process is gone; ending");
            soft.cancel();
            hard.cancel();
            return;
        }
        Some(Cause::Signal(name)) => {
            tracing::info!(signal = name, drain_s = drain.as_secs(), "draining; a second signal ends at once")
        }
        None => {}
    }
    soft.cancel();
    // Whichever comes first, the end is the same: a second signal, the parent's end, or the deadline.
    let never = CancellationToken::new();
    let _ = tokio::time::timeout(drain, next(&mut term, &mut int, &mut parent, &never)).await;
    hard.cancel();
}

/// Waits for a signal, the end of the parent, or (None) a stop that came from inside. May be dropped at any time.
async fn next(
    term: &mut Signal,
    int: &mut Signal,
    parent: &mut Option<mpsc::Receiver<()>>,
    soft: &CancellationToken,
) -> Option<Cause> {
    let parent_gone = async {
        match parent {
            // The sender is dropped when standard input has ended.
            Some(p) => drop(p.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = term.recv() => Some(Cause::Signal("SIGTERM")),
        _ = int.recv() => Some(Cause::Signal("SIGINT")),
        () = parent_gone => Some(Cause::ParentGone),
        () = soft.cancelled() => None,
    }
}

/// A plain thread, because reading standard input blocks and tokio's own reader would hold up the end of the runtime.
/// It ends with standard input, or with the process.
fn watch_stdin() -> mpsc::Receiver<()> {
    let (tx, rx) = mpsc::channel(1);
    std::thread::spawn(move || {
        let _ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(tx);
    });
    rx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_soft_stop_turns_hard_at_the_deadline() {
        let l =
            Lifecycle::install(LifecycleOptions { drain: Duration::from_secs(20), die_with_parent: false }).unwrap();
        l.stop().cancel();
        let began = tokio::time::Instant::now();
        assert_eq!(l.run(std::future::pending::<()>()).await, Err(Stopped::TimedOut));
        assert_eq!(began.elapsed().as_secs(), 20);
    }

    #[tokio::test]
    async fn what_has_drained_ends_well() {
        let l =
            Lifecycle::install(LifecycleOptions { drain: Duration::from_secs(20), die_with_parent: false }).unwrap();
        let stop = l.stop();
        stop.cancel();
        assert_eq!(
            l.run(async {
                stop.cancelled().await;
                7
            })
            .await,
            Ok(7)
        );
    }
}
