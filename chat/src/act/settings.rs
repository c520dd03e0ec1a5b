//! What the user sets for the current thread, or takes away.

use std::time::Duration;

use natterjack_client::protocol::{
    client::thread_settings::{SettingsChange, ThreadSettings},
    limits::NUMBER_MAX,
};
use serde_json::json;

use super::Chat;
use crate::{line::ThreadCommand, screen::Tone};

impl Chat {
    pub(super) async fn set(&mut self, command: ThreadCommand) -> anyhow::Result<()> {
        let thread = self.here()?;
        let now = self.client.server_time().await?;
        let set = self.client.set_thread(&thread, &change(command, now)).await?;
        let text = match settings_words(&set, now) {
            words if words.is_empty() => "nothing is set for this thread any more".to_owned(),
            words => format!("this thread is {words}"),
        };
        self.screen.say(Tone::Good, "thread_settings", Some(text), json!({ "thread": thread, "settings": set }));
        Ok(())
    }

    pub(super) async fn read_all(&mut self) -> anyhow::Result<()> {
        self.client.read_all().await?;
        self.screen.say(Tone::Good, "all_read", Some("everything is read".into()), json!({}));
        Ok(())
    }
}

pub fn change(command: ThreadCommand, now_ms: u64) -> SettingsChange {
    let none = SettingsChange::default();
    match command {
        ThreadCommand::Mute(hours) => {
            let until = hours.map(|h| now_ms + Duration::from_secs(u64::from(h) * 3_600).as_millis() as u64);
            SettingsChange { muted_until: Some(until.unwrap_or(NUMBER_MAX)), ..none }
        }
        ThreadCommand::Unmute => SettingsChange { muted_until: Some(0), ..none },
        ThreadCommand::Pin(pinned) => SettingsChange { pinned: Some(pinned), ..none },
        ThreadCommand::Archive(archived) => SettingsChange { archived: Some(archived), ..none },
        ThreadCommand::Unread => SettingsChange { unread: Some(true), ..none },
        ThreadCommand::Draft(text) => SettingsChange { draft: Some(text), ..none },
    }
}

/// What is set, between commas.
pub fn settings_words(settings: &ThreadSettings, now_ms: u64) -> String {
    let mut words = Vec::new();
    if settings.pinned {
        words.push("pinned".to_owned());
    }
    if settings.is_muted(now_ms) {
        words.push(if settings.muted_until == NUMBER_MAX { "muted".into() } else { "muted for a while".to_owned() });
    }
    if settings.archived {
        words.push("archived".into());
    }
    if settings.unread {
        words.push("marked unread".into());
    }
    if let Some(draft) = &settings.draft {
        words.push(format!("begun: {}", draft.chars().take(40).collect::<String>()));
    }
    words.join(", ")
}

/// Beside a thread in the list.
pub fn settings_of(settings: Option<&ThreadSettings>, now_ms: u64) -> String {
    match settings.map(|settings| settings_words(settings, now_ms)) {
        Some(words) if !words.is_empty() => format!(" [{words}]"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_said_in_words() {
        let hour = 3_600_000;
        let muted = change(ThreadCommand::Mute(Some(2)), hour);
        assert_eq!(muted.muted_until, Some(3 * hour));
        assert_eq!(change(ThreadCommand::Mute(None), 0).muted_until, Some(NUMBER_MAX));
        let settings = ThreadSettings { pinned: true, muted_until: hour, ..ThreadSettings::default() };
        assert_eq!(settings_words(&settings, 0), "pinned, muted for a while");
        assert_eq!(settings_words(&settings, hour), "pinned");
        assert_eq!(settings_words(&ThreadSettings::default(), 0), "");
    }
}
