//! Is the log whole: does it have what was read of it, and was everything archived before it aged out?

use std::time::Duration;

use natterjack_nats::{KvBuckets, Layout, LeaderReader, LostEnds, Nats, Position, Positions, subjects};
use natterjack_protocol::internal::rpc::{LossesRequest, LostIds};

use crate::utc::utc;

const ASKED: Duration = Duration::from_secs(3);
/// Losses that are named one by one.
const NAMED: usize = 5;

/// Does any partition end before what a role has read of it?
pub async fn ends(nats: &Nats, layout: Layout) -> Result<String, String> {
    let (tail, buckets) = (LeaderReader::new(nats, layout), KvBuckets::new(nats, layout));
    let mut lost = Vec::new();
    for p in 0..layout.partitions {
        for role in ["channel", "persister"] {
            let Some(read) = Positions::new(&buckets, role).load(p).await.map_err(|e| e.to_string())? else { continue };
            // By its id alone: doctor's user may not read entries.
            let read = Position { ts: 0, ..read };
            if tail.lost_its_end(p, read).await.map_err(|e| e.to_string())? {
                lost.push(format!("partition {p} ends before {}, which {role} has read", read.id));
            }
        }
    }
    if !lost.is_empty() {
        return Err(format!(
            "the log lost its end or is an older copy, and would assign ids again: {}; start channel and persister, \
             which begin a new generation, or run `natterjack provision --new-generation`",
            lost.join(", ")
        ));
    }
    let mut before = Vec::new();
    if let Some(former) = layout.previous() {
        let notes = LostEnds::new(nats, former);
        for p in 0..former.partitions {
            before.extend(notes.of(p).await.map_err(|e| e.to_string())?.map(|_| p.to_string()));
        }
    }
    Ok(match before.as_slice() {
        [] => "every partition has what was read of it".into(),
        lost => format!(
            "every partition has what was read of it; the earlier generation {} may have lost its end in partition \
             {}: entries that were not archived may be lost",
            layout.generation - 1,
            lost.join(", ")
        ),
    })
}

/// Ranges that were lost before they were archived, in words. None: no persister answers.
pub async fn losses(nats: &Nats) -> Option<String> {
    let lost: Vec<LostIds> = nats.request(subjects::LOSSES, &LossesRequest, ASKED).await.ok()?;
    Some(words(&lost))
}

fn words(lost: &[LostIds]) -> String {
    if lost.is_empty() {
        return "nothing was lost before it was archived".into();
    }
    let one = |l: &LostIds| {
        let (since, until) = (utc(l.since), utc(l.until));
        format!(
            "generation {} partition {} from {} to {} (between {since} and {until})",
            l.generation, l.partition, l.first, l.last
        )
    };
    let named: Vec<String> = lost.iter().rev().take(NAMED).map(one).collect();
    format!(
        "messages may be lost for ever in {} part(s) of the log, and readers are told where: {}{}; let the log keep \
         more (`times.log_max_age_hours`, `nats.max_bytes`), and find out why the archive was away or the log lost \
         its end",
        lost.len(),
        named.join("; "),
        if lost.len() > NAMED { "; and earlier ones" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::MsgId;

    use super::*;

    #[test]
    fn losses_are_said_in_words() {
        assert_eq!(words(&[]), "nothing was lost before it was archived");
        let one = |partition| LostIds {
            generation: 3,
            partition,
            first: MsgId(10),
            last: MsgId(27),
            since: 1_795_000_000_000,
            until: 1_795_000_060_000,
        };
        let said = words(&[one(1)]);
        for word in [
            "generation 3 partition 1 from 10 to 27",
            "2026",
            "readers are told",
            "times.log_max_age_hours",
            "archive was away",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(words(&(0..9).map(one).collect::<Vec<_>>()).contains("9 part(s)"));
    }
}
