//! Leaving without being noticed: tell clients in jittered waves to connect elsewhere first, finish what they have
//! sent, refuse what comes as long as it comes, then go.

use std::time::Duration;

use natterjack_protocol::{
    Times,
    client::{close, frame::ServerFrame},
};
use rand::seq::SliceRandom;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::{edges::KnownEdges, server::shutdown::ShutdownPhases, sessions::Sessions, status::StatusWatch};

/// Parts of the whole time: waves begin over the first quarter, each has another quarter to go, sends have the third.
/// The fourth is for those who have not finished by then, for a load balancer that has not noticed, and for the
/// answers to what it still sends.
const PARTS: u32 = 4;
/// Sessions told at once: the others' handshakes of one wave take well under a second.
const WAVE: usize = 500;
/// Whatever chooses among edges has noticed that this one leaves when nothing but its health checks has come for so
/// long. A connection that finds nobody is refused at once, and tried elsewhere; so this spares attempts and is no
/// promise.
const QUIET: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(20);

/// Returns when all sessions have gone and nobody comes any more, at the latest when 85 % of `times.drain` are over.
pub async fn drain(
    sessions: &Sessions,
    status: &StatusWatch,
    edges: &KnownEdges,
    leaving: &ShutdownPhases,
    times: &Times,
) {
    let start = Instant::now();
    status.change(|c| c.draining = true);
    let mut all = sessions.all();
    all.shuffle(&mut rand::rng());
    tracing::info!(sessions = all.len(), "draining");
    let part = times.drain / PARTS;
    let waves = all.len().div_ceil(WAVE).max(1) as u32;
    let step = part / waves;
    let mut told = Vec::new();
    for (n, wave) in all.chunks(WAVE).enumerate() {
        // With nowhere to go there is nothing to wait for.
        let after = if edges.has_others() { part } else { Duration::ZERO };
        for session in wave {
            session.frame(&ServerFrame::Draining {
                after_ms: after.as_millis() as u64,
                edges: edges.others(&session.came),
            });
        }
        told.push((Instant::now() + after, wave));
        if n + 1 < waves as usize {
            sleep(step.mul_f64(rand::random_range(0.5..1.0))).await;
        }
    }
    for (at, wave) in told {
        tokio::select! {
            () = sleep_until(at) => {}
            () = gone(sessions) => break,
        }
        for session in wave {
            session.outbox.leave();
        }
    }
    // Sessions that greeted just before draining was set are in no wave.
    for session in sessions.all() {
        session.outbox.leave();
    }
    let last = start + times.drain.mul_f64(0.75);
    tokio::select! {
        () = sleep_until(last) => {
            tracing::warn!(sessions = sessions.len(), "not all sessions have finished their requests in time");
            for session in sessions.all() {
                session.outbox.close(close::DRAINING);
            }
            sleep(times.drain.mul_f64(0.05)).await;
        }
        () = gone(sessions) => {}
    }
    let _ = timeout_at(start + times.drain.mul_f64(0.85), leaving.quiet(QUIET)).await;
}

async fn gone(sessions: &Sessions) {
    while !sessions.is_empty() {
        sleep(LOOK).await;
    }
}
