//! Step 5, the repair: fetches what a chain lacks, in order, before anything that comes after it is shown.

use std::time::Duration;

use natterjack_nats::calls::history::between;
use natterjack_protocol::{Most, MsgId, Refusal, Thread, limits};
use tokio::time::{Instant, sleep};

use crate::{
    history::HistoryClient,
    live::event::{Gap, LiveEvent},
};

/// What is shown of a gap at once: the rest is fetched when this has gone out.
const PART: Most = Most { count: limits::OUTBOX_FRAMES / 4, bytes: limits::OUTBOX_BYTES / 4 };

/// Everything with `after < id <= upto`, oldest first, or a first part of it; gives up after `deadline`.
pub async fn fetch(history: &HistoryClient, gap: &Gap, deadline: Duration) -> Result<Vec<LiveEvent>, Refusal> {
    let end = Instant::now() + deadline;
    let thread: Thread = gap.thread.parse().map_err(|_| Refusal::invalid("a live message names no thread"))?;
    let mut found: Vec<LiveEvent> = Vec::new();
    let mut why = Refusal::unavailable("history does not reach that far yet");
    while Instant::now() < end {
        let after = found.last().map_or(gap.after, |e| e.id);
        if after >= gap.upto || PART.full(&found) {
            return Ok(found);
        }
        match events_between(history, &thread, after, gap.upto).await {
            Ok(events) if !events.is_empty() => {
                found.extend(events);
                continue;
            }
            // The log has it (its channel said so), so the answer came from somebody who is behind.
            Ok(_) => {}
            Err(refusal) => why = refusal,
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(why)
}

async fn events_between(
    history: &HistoryClient,
    thread: &Thread,
    after: MsgId,
    upto: MsgId,
) -> Result<Vec<LiveEvent>, Refusal> {
    let events = history.ask(between(thread.clone(), after, upto, limits::PAGE_MAX)).await?;
    Ok(events.into_iter().map(LiveEvent::fetched).collect())
}
