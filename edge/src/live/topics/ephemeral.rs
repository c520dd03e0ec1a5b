//! What comes on the `.x` subject of a topic: it may be lost, and is in no chain.

use natterjack_protocol::{client::frame::ServerFrame, internal::live::Ephemeral};
use xxhash_rust::xxh3::xxh3_64;

use super::{TopicEffect, TopicSlot, Topics};
use crate::live::event::TopicKey;

impl Topics {
    /// A message on the `.x` subject of a topic.
    pub fn ephemeral(&mut self, slot: TopicSlot, payload: &[u8]) {
        let Some((topic, _)) = self.topic(slot) else { return };
        match Ephemeral::decode(payload) {
            Ok(Ephemeral::Typing { thread, user, only }) => {
                let key = xxh3_64(format!("{thread}{user}").as_bytes());
                topic.typing(key, &user, only.as_ref(), &ServerFrame::Typing { thread, user: user.clone() });
            }
            Ok(Ephemeral::Receipts { thread, receipts }) => {
                let to = topic.authors_here();
                self.effects.push(TopicEffect::Receipts { to, thread, receipts });
            }
            Ok(Ephemeral::Read { threads }) => {
                let frame = ServerFrame::Read { threads };
                topic.sessions().for_each(|s| s.frame(&frame));
            }
            Ok(Ephemeral::Settings { thread, settings }) => {
                let frame = ServerFrame::ThreadSettings { r: None, thread, settings };
                topic.sessions().for_each(|s| s.frame(&frame));
            }
            Ok(Ephemeral::Contacts) => {
                topic.sessions().for_each(|s| s.frame(&ServerFrame::Contacts));
                if let TopicKey::User(user) = topic.key.clone() {
                    self.effects.push(TopicEffect::Contacts(user));
                }
            }
            Err(e) => tracing::debug!(slot, error = %e, "an ephemeral message of another version is dropped"),
        }
    }
}
