//! Do the roles move through the log, and is there a backup? Read from their positions and the end of the log, on any
//! machine.

use std::time::Duration;

use natterjack_nats::{KvBuckets, LastBackup, Layout, LeaderReader, Nats, Positions};
use natterjack_protocol::MsgId;

/// Positions are stored at most 1 s late, and one batch takes less.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const DAY: u64 = 24 * 3_600_000;

/// Each role that stores a position, with the partitions that do not move although there is more to read. Looks twice
/// if any is behind.
pub async fn check(nats: &Nats, layout: Layout) -> Vec<(&'static str, Result<String, String>)> {
    let mut found = Vec::new();
    for role in ["channel", "persister"] {
        found.push((role, standing(nats, layout, role).await));
    }
    found
}

async fn standing(nats: &Nats, layout: Layout, role: &str) -> Result<String, String> {
    let before = places(nats, layout, role).await?;
    if before.iter().any(Place::is_behind) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let now = places(nats, layout, role).await?;
    let still: Vec<String> = before.iter().zip(&now).filter_map(|(before, now)| still(role, before, now)).collect();
    if still.is_empty() { Ok("every partition moves or has read everything".into()) } else { Err(still.join("; ")) }
}

/// Where a role is in a partition, and where that ends.
#[derive(Debug, Clone, Copy)]
struct Place {
    generation: u32,
    p: u32,
    at: MsgId,
    end: MsgId,
}

impl Place {
    fn is_behind(&self) -> bool {
        self.at < self.end
    }
}

async fn places(nats: &Nats, layout: Layout, role: &str) -> Result<Vec<Place>, String> {
    let mut all = Vec::new();
    for l in layout.previous().into_iter().chain([layout]) {
        let (tail, positions) = (LeaderReader::new(nats, l), Positions::new(&KvBuckets::new(nats, l), role));
        for p in 0..l.partitions {
            let position = positions.load(p).await.map_err(|e| e.to_string())?.map_or(MsgId::NONE, |p| p.id);
            let bounds = tail.bounds(p).await.map_err(|e| e.to_string())?;
            let at = position.max(MsgId(bounds.first.0.saturating_sub(1)));
            all.push(Place { generation: l.generation, p, at, end: bounds.last });
        }
    }
    Ok(all)
}

/// Pure.
fn still(role: &str, before: &Place, now: &Place) -> Option<String> {
    (before.at == now.at && before.is_behind()).then(|| {
        format!(
            "partition {} of generation {} has been at {} for {} s or more and the log ends at {}: does a {role} run? \
             Its /health on admin.listen says what it waits for",
            now.p,
            now.generation,
            now.at,
            LOOK_AGAIN.as_secs(),
            now.end
        )
    })
}

/// No backup is no failure: there may be another tool.
pub async fn backup(nats: &Nats, layout: Layout, now_ms: u64) -> String {
    match KvBuckets::new(nats, layout).last_backup().load().await {
        Ok(begun) => age(begun.map(|LastBackup(at)| at), now_ms),
        Err(e) => e.to_string(),
    }
}

fn age(begun: Option<u64>, now_ms: u64) -> String {
    match begun.map(|at| now_ms.saturating_sub(at)) {
        None => "none with `natterjack backup`".into(),
        Some(ms) if ms > 7 * DAY => {
            format!("the last one is {} days old; take another with `natterjack backup FOLDER`", ms / DAY)
        }
        Some(ms) => format!("the last one was begun {} hours ago", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_is_named_with_what_to_do() {
        let place = |at, end| Place { generation: 2, p: 3, at: MsgId(at), end: MsgId(end) };
        let why = still("persister", &place(70, 80), &place(70, 90)).unwrap();
        for word in ["partition 3 of generation 2", "at 70", "ends at 90", "does a persister run", "/health"] {
            assert!(why.contains(word), "{word} is missing in: {why}");
        }
        assert_eq!(still("persister", &place(70, 80), &place(71, 90)), None, "it moves");
        assert_eq!(still("channel", &place(80, 80), &place(80, 90)), None, "a moment ago it had read everything");
    }

    #[test]
    fn the_age_of_a_backup_is_said_and_an_old_one_asks_for_another() {
        assert!(age(None, 5).contains("natterjack backup"));
        assert!(age(Some(0), 3 * 3_600_000).contains("3 hours"));
        assert!(age(Some(0), 9 * DAY).contains("9 days") && age(Some(0), 9 * DAY).contains("take another"));
    }
}
