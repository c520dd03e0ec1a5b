//! A server that does not answer is asked again until it does.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Both, CqlConfig};
use crate::store::ArchiveError;

const RECONNECT: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(2);

pub(super) async fn keep_connecting(
    cfg: CqlConfig,
    db: Arc<OnceLock<Both>>,
    why_not: Arc<Mutex<String>>,
    first: oneshot::Sender<Result<(), ArchiveError>>,
) {
    let mut pause = *RECONNECT.start();
    let mut first = Some(first);
    loop {
        let connected = Box::pin(Both::connect(&cfg)).await;
        let told = match connected {
            Ok(both) => {
                if first.is_none() {
                    tracing::info!("the archive answers");
                }
                // Only this task sets it.
                let _ = db.set(both);
                Ok(())
            }
            Err(e) => {
                *why_not.lock() = e.to_string();
                Err(e)
            }
        };
        let done = told.is_ok();
        if let Some(first) = first.take() {
            // Nobody listens any more when it took long.
            let _ = first.send(told);
        }
        if done {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(*RECONNECT.end());
    }
}
