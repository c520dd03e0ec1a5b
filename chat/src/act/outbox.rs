//! `/outbox` and `/discard`: what the log has not confirmed, and forgetting what it never will.

use natterjack_client::Unsent;
use serde_json::json;

use super::Chat;
use crate::{outcome, screen::Tone};

impl Chat {
    pub(super) async fn outbox(&mut self) -> anyhow::Result<()> {
        let rows = self.client.outbox().await?;
        let lines = rows.iter().map(|r| format!("  {} {} {}", r.local.0, r.thread, words(r)));
        let objects: Vec<_> = rows
            .iter()
            .map(|r| {
                let (failed, unsure) = (&r.failed, r.unsure);
                json!({ "local": r.local.0, "thread": r.thread, "cid": r.cid, "failed": failed, "unsure": unsure })
            })
            .collect();
        self.list("outbox", lines, json!({ "messages": objects }), "everything is sent");
        Ok(())
    }

    /// All that was refused: it would be refused again. Or one that waits, also if it is not known whether it was sent.
    pub(super) async fn discard(&mut self, which: Option<u64>) -> anyhow::Result<()> {
        let mut discarded = Vec::new();
        let wanted = |r: &Unsent| which.map_or(r.failed.is_some(), |n| r.local.0 == n);
        for row in self.client.outbox().await?.into_iter().filter(wanted) {
            if self.client.discard(row.local).await? {
                discarded.push(row.local.0);
            }
        }
        let text = match discarded.len() {
            0 if which.is_some() => "there is no such message, or it is being sent".to_owned(),
            0 => "nothing was refused".to_owned(),
            n => format!("{n} forgotten"),
        };
        self.screen.say(Tone::Good, "discarded", Some(text), json!({ "locals": discarded }));
        Ok(())
    }
}

fn words(row: &Unsent) -> String {
    match &row.failed {
        Some(refusal) => outcome(refusal),
        None if row.unsure => "waits; not known whether sent".to_owned(),
        None => "waits".to_owned(),
    }
}
