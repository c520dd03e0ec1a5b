//! What there is to read: the list of threads, older messages, and who has read what.

use anyhow::Context;
use natterjack_client::{
    At,
    protocol::{
        MsgId,
        client::{frame::ThreadSummary, http::ReceiptState, presence::PresenceChange},
    },
};
use serde_json::json;

use super::{Chat, settings::settings_of};
use crate::screen::Tone;

/// Threads in the list.
const LISTED: usize = 50;

impl Chat {
    /// As this device knows them, brought up to date if somebody answers.
    pub(super) async fn threads(&mut self, archived: bool) -> anyhow::Result<()> {
        if let Err(e) = self.client.sync_threads().await {
            self.screen.problem(&format!("the list is as it was known here: {e}"));
        }
        let all = self.client.known_threads().await?.into_iter();
        // Without an answer, what is muted for a while is shown as muted.
        let now = self.client.server_time().await.unwrap_or_default();
        let is_archived = |t: &ThreadSummary| t.settings.as_ref().is_some_and(|s| s.archived);
        let threads: Vec<_> = all.filter(|t| is_archived(t) == archived).take(LISTED).collect();
        let mut lines = Vec::new();
        for summary in &threads {
            self.names.learn_thread(summary);
            let place = self.names.thread(&self.client, &summary.thread).await;
            let last = match &summary.last {
                None => String::new(),
                Some(event) => self.words(event).await.1,
            };
            let closed = if summary.open { "" } else { " (read only)" };
            let new = match summary.unread {
                None | Some(0) => String::new(),
                Some(n @ 1..=99) => format!(" ({n} new)"),
                Some(_) => " (99+ new)".to_owned(),
            };
            let set = settings_of(summary.settings.as_ref(), now);
            lines.push(format!("  {place}{closed}{new}{set}  {}", last.chars().take(60).collect::<String>()));
        }
        let none = if archived { "no threads in the archive" } else { "no threads yet" };
        self.list("threads", lines.into_iter(), json!({ "threads": threads }), none);
        Ok(())
    }

    pub(super) async fn history(&mut self, n: u16) -> anyhow::Result<()> {
        let thread = self.here()?;
        let page = self.client.history(thread.clone(), At::Newest, n).await?;
        let holes = !page.holes.is_empty();
        if self.screen.is_json() {
            self.screen.say(Tone::Plain, "history", None, json!({ "thread": thread, "page": page }));
            return Ok(());
        }
        for event in &page.events {
            self.message(event).await;
        }
        if let Some(last) = page.events.last() {
            let newest = self.newest.entry(thread.clone()).or_default();
            *newest = last.id.max(*newest);
            self.looked_at(&thread).await;
        }
        if holes {
            self.screen.problem("part of the history cannot be read now; try again later");
        }
        Ok(())
    }

    pub(super) async fn receipts(&mut self, id: Option<MsgId>) -> anyhow::Result<()> {
        let (thread, id) = (self.here()?, self.target(id)?);
        let all = self.client.receipts(&thread, id).await?;
        let read = all.iter().filter(|of| of.state == ReceiptState::Read).count();
        let mut lines = vec![format!("#{id}: read by {read} of {}", all.len())];
        for of in &all {
            let word = match of.state {
                ReceiptState::Sent => "not yet",
                ReceiptState::Delivered => "has it",
                ReceiptState::Read => "has read it",
                ReceiptState::Unknown => "does not say",
            };
            lines.push(format!("  {} {word}", self.names.user(&self.client, &of.user).await));
        }
        self.list("receipts", lines.into_iter(), json!({ "thread": thread, "id": id, "users": all }), "nobody");
        Ok(())
    }

    pub(super) async fn give_receipts(&mut self, receipts: bool) -> anyhow::Result<()> {
        let change = PresenceChange { receipts: Some(receipts), ..PresenceChange::default() };
        let now = self.client.set_presence(change).await?;
        let text = if now.receipts { "you give receipts and get them" } else { "you give no receipts, and get none" };
        self.screen.say(Tone::Good, "receipts_given", Some(text.into()), json!({ "receipts": now.receipts }));
        Ok(())
    }

    pub(super) async fn read(&mut self, id: Option<MsgId>) -> anyhow::Result<()> {
        let thread = self.here()?;
        let newest = || self.newest.get(&thread).copied();
        let id = id.or_else(newest).context("up to which message? Name it by #ID")?;
        self.client.read(thread, id).await?;
        Ok(())
    }
}
