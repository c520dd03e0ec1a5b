//! Where this user is logged in, ending that, and which device is in.

use anyhow::Context;
use natterjack_client::{UserSession, protocol::DeviceId};
use serde_json::json;

use super::Chat;
use crate::{
    day,
    screen::{Tone, class_word, one_line},
};

impl Chat {
    pub(super) async fn sessions(&mut self) -> anyhow::Result<()> {
        let sessions = self.client.list_sessions().await?;
        self.listed = sessions.iter().map(|s| s.device.clone()).collect();
        let lines = sessions.iter().enumerate().map(|(i, s)| format!("  {} {}", i + 1, session_words(s)));
        self.list("sessions", lines, json!({ "sessions": sessions }), "nowhere");
        Ok(())
    }

    /// `which`: a number of the last list, or the id of a device.
    pub(super) async fn end_session(&mut self, which: &str) -> anyhow::Result<()> {
        let device = match which.parse::<usize>() {
            Ok(n) => n.checked_sub(1).and_then(|i| self.listed.get(i)).cloned(),
            Err(_) => DeviceId::parse(which).ok(),
        };
        let device = device.context("which? /sessions numbers them")?;
        let ended = self.client.end_session(&device).await?;
        self.say_ended(ended);
        Ok(())
    }

    pub(super) async fn end_other_sessions(&mut self) -> anyhow::Result<()> {
        let ended = self.client.end_other_sessions().await?;
        self.say_ended(ended);
        Ok(())
    }

    fn say_ended(&mut self, ended: u32) {
        let text = match ended {
            0 => "it was over already".to_owned(),
            1 => "1 login ended".to_owned(),
            n => format!("{n} logins ended"),
        };
        self.screen.say(Tone::Good, "sessions_ended", Some(text), json!({ "ended": ended }));
    }

    /// After another device has taken over.
    pub(super) async fn take_over(&mut self) -> anyhow::Result<()> {
        let taken = self.client.take_over().await?;
        let text = if taken { "taking over…" } else { "this device is in already" };
        self.screen.say(Tone::Faint, "take_over", Some(text.into()), json!({ "displaced": taken }));
        Ok(())
    }
}

fn session_words(s: &UserSession) -> String {
    let name = s.name.as_deref().map_or_else(|| s.device.to_string(), one_line);
    let mut words = vec![format!("{} {name}", if s.connected { "●" } else { "○" })];
    words.extend(s.class.map(|class| class_word(class).to_owned()));
    words.extend(s.app.as_deref().map(one_line));
    words.extend(s.edge.as_deref().map(|edge| format!("at {}", one_line(edge))));
    words.push(format!("logged in {}", day::and_clock(s.since)));
    let active = if s.connected { "connected" } else { "last active" };
    words.extend(s.last_active.map(|ms| format!("{active} {}", day::and_clock(ms))));
    words.extend(s.this.then(|| "this one".to_owned()));
    words.join(" · ")
}

#[cfg(test)]
mod tests {
    use natterjack_client::protocol::{Token, client::frame::DeviceClass};

    use super::*;

    #[test]
    fn a_session_is_one_line_with_what_is_known() {
        let known = UserSession {
            device: Token::parse("d1").unwrap(),
            name: Some("desk".into()),
            class: Some(DeviceClass::Web),
            app: Some("Teich 1.4".into()),
            edge: Some("edge-1".into()),
            since: 1_795_260_309_000,
            last_active: Some(1_795_260_369_000),
            connected: true,
            this: true,
        };
        let words = session_words(&known);
        let since = "logged in 21 Nov at 11:25:09 · connected 21 Nov at 11:26:09";
        assert_eq!(words, format!("● desk · browser · Teich 1.4 · at edge-1 · {since} · this one"));
        let away =
            UserSession { name: None, app: None, edge: None, class: None, connected: false, this: false, ..known };
        assert_eq!(session_words(&away), "○ d1 · logged in 21 Nov at 11:25:09 · last active 21 Nov at 11:26:09");
    }
}
