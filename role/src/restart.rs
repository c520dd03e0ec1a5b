//! One partition's task, begun again whenever it ends before it was asked to. The health says why, also between the
//! attempts.

use std::{convert::Infallible, future::pending, ops::RangeInclusive, sync::Arc, time::Duration};

use natterjack_nats::ReadError;
use natterjack_protocol::MsgId;
use natterjack_runtime::health::{Reader, Trouble};
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::PartitionError;

/// Before the next attempt; twice as long after each failure in a row.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(30);
/// A task that ran for so long failed for another reason than the one before it.
const STEADY: Duration = Duration::from_secs(60);

/// Which partition, for logs and metrics.
#[derive(Debug, Clone, Copy)]
pub struct Of {
    pub role: &'static str,
    pub generation: u32,
    pub p: u32,
}

/// Until `stop`. `attempt` runs as a task of its own, so that a panic ends nothing else. `lost_end` is called when the
/// log does not have what was read of it, and may be dropped.
pub async fn keep<F, L>(
    of: Of,
    reader: &Reader,
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> F,
    mut lost_end: impl FnMut(MsgId, Arc<Trouble>) -> L,
) where
    F: Future<Output = Result<(), PartitionError>> + Send + 'static,
    L: Future<Output = ()>,
{
    let (trouble, mut pause) = (Arc::new(reader.trouble()), *PAUSE.start());
    while !stop.is_cancelled() {
        let began = Instant::now();
        let task = AbortOnDropHandle::new(tokio::spawn(attempt()));
        // Not at once: a task that fails over and over is not well in between.
        let recovered = async {
            sleep(pause).await;
            trouble.is(None);
            pending::<Infallible>().await
        };
        let ended = tokio::select! {
            ended = task => ended,
            never = recovered => match never {},
        };
        if began.elapsed() > STEADY {
            pause = *PAUSE.start();
        }
        let failed = match ended {
            Ok(Ok(())) => None,
            Ok(Err(PartitionError::Log(ReadError::LostEnd { read, .. }))) => {
                let _ = stop.run_until_cancelled(lost_end(read, trouble.clone())).await;
                None
            }
            Ok(Err(e)) => Some(e.to_string()),
            Err(e) => Some(format!("its task panicked: {e}")),
        };
        let Some(why) = failed else {
            let _ = stop.run_until_cancelled(sleep(*PAUSE.start())).await;
            continue;
        };
        metrics::counter!(crate::metrics::RESTARTS, "role" => of.role).increment(1);
        let Of { role, generation, p } = of;
        tracing::error!(
            role,
            generation,
            partition = p,
            error = why,
            again_after_ms = pause.as_millis() as u64,
            "a partition's task failed"
        );
        trouble.is(Some(format!("begins again after: {why}")));
        let _ = stop.run_until_cancelled(sleep(pause)).await;
        pause = (pause * 2).min(*PAUSE.end());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use natterjack_runtime::{
        Health,
        health::{Readers, State},
    };

    use super::*;

    const OF: Of = Of { role: "test", generation: 1, p: 0 };

    /// Runs `keep` over attempts that end as `each` says, by their number from 0; the seconds at which each began, and
    /// at which the health said something else.
    async fn run_for<F>(seconds: u64, each: impl Fn(usize) -> F) -> (Vec<f64>, Vec<(f64, bool)>)
    where
        F: Future<Output = Result<(), PartitionError>> + Send + 'static,
    {
        let (health, begun) = (Health::new(), Arc::new(Mutex::new(Vec::new())));
        let readers = Readers::new(&health);
        let reader = readers.open("r".into());
        reader.end(0);
        let start = Instant::now();
        let attempt = || {
            let mut begun = begun.lock().unwrap();
            begun.push((start.elapsed().as_secs_f64() * 10.0).round() / 10.0);
            each(begun.len() - 1)
        };
        let mut said = Vec::new();
        let look = async {
            loop {
                let well = health.report().parts["r"] == State::Ok;
                if said.last().is_none_or(|(_, last)| *last != well) {
                    said.push(((start.elapsed().as_millis() / 100) as f64 / 10.0, well));
                }
                reader.end(0);
                sleep(Duration::from_millis(100)).await;
            }
        };
        let stop = CancellationToken::new();
        tokio::select! {
            () = keep(OF, &reader, &stop, attempt, |_, _| async {}) => {}
            () = look => {}
            () = sleep(Duration::from_secs(seconds)) => {}
        }
        let begun = begun.lock().unwrap().clone();
        (begun, said)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_it_is_not_ready_before_an_attempt_has_lasted() {
        let (begun, said) = run_for(60, |n| async move {
            match n {
                0 => Err(PartitionError::Failed("first".into())),
                1 => panic!("second"),
                2 => Err(PartitionError::Failed("third".into())),
                _ => pending().await,
            }
        })
        .await;
        assert_eq!(begun, [0.0, 0.5, 1.5, 3.5]);
        let (changes, last) = (said.len(), said.last().copied().unwrap());
        assert!(changes <= 3 && last.1, "{said:?}");
        assert!((7.4..=7.7).contains(&last.0), "as long after the last start as the pause would be: {said:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ran_well_for_long_begins_again_soon() {
        let (begun, _) = run_for(200, |n| async move {
            if n > 3 {
                sleep(Duration::from_secs(61)).await;
            }
            Err(PartitionError::Failed("again".into()))
        })
        .await;
        assert_eq!(begun, [0.0, 0.5, 1.5, 3.5, 7.5, 69.0, 130.5, 192.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_without_an_error_is_no_trouble() {
        let (begun, said) = run_for(3, |_| async { Ok(()) }).await;
        assert!((6..=7).contains(&begun.len()), "{begun:?}");
        assert_eq!(said, [(0.0, true)]);
    }
}
