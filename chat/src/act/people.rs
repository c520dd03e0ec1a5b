//! Contacts, with how they are shown, and blocks.

use natterjack_client::protocol::{
    UserId,
    client::{
        http::{Contact, ContactState},
        presence::PresenceOf,
    },
    limits::WATCHED_USERS,
};
use serde_json::json;

use super::Chat;
use crate::{
    presence::{presence_mark, presence_words},
    screen::one_line,
};

impl Chat {
    pub(super) async fn contacts(&mut self) -> anyhow::Result<()> {
        let contacts = self.client.contacts().await?;
        let friends = contacts.iter().filter(|c| c.state == ContactState::Contact).map(|c| c.user.clone());
        let friends: Vec<UserId> = friends.take(WATCHED_USERS).collect();
        // The list is good without it, too.
        let shown =
            if friends.is_empty() { Vec::new() } else { self.client.presence(&friends).await.unwrap_or_default() };
        let lines = contacts.iter().map(|c| contact_line(c, shown.iter().find(|of| of.user == c.user)));
        let object = json!({ "contacts": contacts, "presence": shown });
        self.list("contacts", lines, object, "no contacts yet: /contact NAME request");
        Ok(())
    }

    pub(super) async fn blocks(&mut self) -> anyhow::Result<()> {
        let blocked = self.client.blocks().await?;
        let mut lines = Vec::with_capacity(blocked.len());
        for user in &blocked {
            lines.push(format!("  {}", self.names.user(&self.client, user).await));
        }
        self.list("blocks", lines.into_iter(), json!({ "blocks": blocked }), "you block nobody");
        Ok(())
    }
}

fn contact_line(contact: &Contact, shown: Option<&PresenceOf>) -> String {
    let name = one_line(&contact.name);
    match shown {
        Some(of) => format!("  {} {name} · {}", presence_mark(of.state), presence_words(of)),
        None => format!("  {name} {}", contact_words(contact.state)),
    }
}

pub(super) fn contact_words(state: ContactState) -> &'static str {
    use ContactState::{Asked, Contact, Requested};
    match state {
        Requested => "was asked",
        Asked => "asks to be your contact: /contact NAME accept",
        Contact => "is a contact",
    }
}
