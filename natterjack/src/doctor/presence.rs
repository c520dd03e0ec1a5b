//! Does somebody say who is here, of every shard of users?

use std::time::Duration;

use natterjack_nats::{Layout, Nats, subjects};
use natterjack_protocol::internal::presence::{PresenceAnswer, PresenceRequest};

const ANSWER: Duration = Duration::from_secs(2);

pub async fn spoken_for(nats: &Nats, layout: Layout) -> Result<String, String> {
    let mut silent = Vec::new();
    for shard in 0..layout.kv_shards {
        let request = PresenceRequest { users: Vec::new() };
        if nats.request::<_, PresenceAnswer>(&subjects::presence_service(shard), &request, ANSWER).await.is_err() {
            silent.push(shard.to_string());
        }
    }
    said(layout.kv_shards, &silent)
}

/// Pure.
fn said(shards: u32, silent: &[String]) -> Result<String, String> {
    if silent.is_empty() {
        return Ok(format!("somebody speaks of each of {shards} shards"));
    }
    if silent.len() == shards as usize {
        // There may be an installation that wants none.
        return Ok("nobody answers: everybody is shown as unknown until a `natterjack presence` runs".into());
    }
    Err(format!(
        "nobody speaks of the shards {} of {shards}, whose users are shown as unknown: look at the log of `natterjack \
         presence`",
        silent.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_that_are_silent_are_named_and_all_of_them_are_no_failure() {
        assert!(said(2, &[]).unwrap().contains("each of 2"));
        assert!(said(2, &["0".into(), "1".into()]).unwrap().contains("natterjack presence"));
        let why = said(3, &["1".into()]).unwrap_err();
        assert!(why.contains("shards 1 of 3") && why.contains("unknown"), "{why}");
    }
}
