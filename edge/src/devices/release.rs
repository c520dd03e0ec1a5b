//! Places are given back in the background: who has left waits for nothing.

use std::{
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use natterjack_protocol::{DeviceId, Token, UserId, limits};
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::Devices;

/// Releases that may wait: of all sessions of an edge, and of as many that came meanwhile. Beyond that one is dropped:
/// the place is then taken by whoever wants it, and shown as taken until then.
const WAITING: usize = 2 * limits::CONNECTIONS;
/// At once; each is a read and a write of the bucket, about 1 ms.
const TOGETHER: usize = 64;
/// Between attempts while the bucket does not answer, and how often.
const AGAIN: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 60;

pub(super) struct Release {
    pub user: UserId,
    pub device: DeviceId,
    pub session: Token,
    /// Of which it is known that they cannot write any more.
    pub settled: Vec<Token>,
}

pub(super) struct Releases {
    queue: mpsc::Sender<Release>,
    tasks: TaskTracker,
    _worker: AbortOnDropHandle<()>,
}

impl Releases {
    pub fn start(devices: Weak<Devices>) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        let tasks = TaskTracker::new();
        let worker = AbortOnDropHandle::new(tokio::spawn(work(devices, waiting, tasks.clone())));
        Self { queue, tasks, _worker: worker }
    }

    pub fn push(&self, release: Release) {
        if self.queue.try_send(release).is_err() {
            metrics::counter!(crate::metrics::RELEASES_DROPPED).increment(1);
        }
        metrics::gauge!(crate::metrics::RELEASES_WAITING).set((WAITING - self.queue.capacity()) as f64);
    }

    /// Beside the releases, and waited for with them.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub async fn finished(&self) {
        while self.queue.capacity() < WAITING {
            sleep(Duration::from_millis(10)).await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn work(devices: Weak<Devices>, mut waiting: mpsc::Receiver<Release>, tasks: TaskTracker) {
    let room = Arc::new(Semaphore::new(TOGETHER));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Some(release) = waiting.recv().await else { return };
        let devices = devices.clone();
        tasks.spawn(async move {
            let _permit = permit;
            for _ in 0..ATTEMPTS {
                let Some(devices) = devices.upgrade() else { return };
                match devices.release(&release).await {
                    Ok(()) => return,
                    Err(e) => tracing::debug!(user = %release.user, error = %e, "a session is not released yet"),
                }
                drop(devices);
                sleep(AGAIN).await;
            }
            metrics::counter!(crate::metrics::RELEASES_DROPPED).increment(1);
        });
    }
}
