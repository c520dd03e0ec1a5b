//! Waiting for what the SDK tells.

use std::time::Duration;

use natterjack_client::{ClientEvent, Events};
use natterjack_testkit::within;

/// The next event that `wanted` takes; others are passed over.
pub async fn next_event<T>(
    events: &mut Events,
    what: &str,
    limit: Duration,
    mut wanted: impl FnMut(ClientEvent) -> Option<T>,
) -> T {
    within(what, limit, async {
        loop {
            let event = events.next().await.unwrap_or_else(|| panic!("the client ended while waiting for: {what}"));
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    })
    .await
}

/// The next message of any thread.
pub async fn next_message(events: &mut Events, limit: Duration) -> natterjack_protocol::Event {
    next_event(events, "a message", limit, |e| match e {
        ClientEvent::Message(m) => Some(m),
        _ => None,
    })
    .await
}

/// The next `n` messages of kinds people write; control entries (a thread was started, …) are passed over.
pub async fn next_messages(events: &mut Events, n: usize, limit: Duration) -> Vec<natterjack_protocol::Event> {
    let mut got = Vec::with_capacity(n);
    within(&format!("{n} messages"), limit, async {
        while got.len() < n {
            match events.next().await.expect("the client ended while waiting for messages") {
                ClientEvent::Message(m) if m.body.text.is_some() => got.push(m),
                _ => {}
            }
        }
    })
    .await;
    got
}
