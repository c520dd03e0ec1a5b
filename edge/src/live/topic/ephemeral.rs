//! What is told on a topic besides its events: who types, and to whom receipts are of use. It may be lost.

use std::{collections::BTreeSet, sync::Arc};

use natterjack_protocol::{MsgId, UserId, client::frame::ServerFrame};

use super::Topic;
use crate::{live::event::TopicKey, sessions::handle::SessionHandle};

impl Topic {
    /// An event of this author came.
    pub fn wrote(&mut self, author: &str) {
        if matches!(self.key, TopicKey::Group(_)) {
            self.authors.get_or_insert_default().wrote(author);
        }
    }

    /// The sessions of those to whom receipts of others are of use: in a group, of those who wrote lately.
    ///
    /// With what is below for each: they joined later, and may not know of it.
    pub fn authors_here(&self) -> Vec<(Arc<SessionHandle>, MsgId)> {
        let wrote = |session: &SessionHandle| match &self.key {
            TopicKey::User(_) => true,
            TopicKey::Group(_) => self.authors.as_ref().is_some_and(|a| a.has(&session.user)),
        };
        let live = self.subscribers.iter().filter(|s| !s.is_catching_up() && wrote(&s.session));
        live.map(|s| (s.session.clone(), s.range.since)).collect()
    }

    /// Somebody types: for the live sessions here of all others who may be shown it, in a group likewise. `only`: the
    /// typist let nobody else see that they are here. It may be lost.
    pub fn typing(&self, key: u64, from: &UserId, only: Option<&BTreeSet<UserId>>, frame: &ServerFrame) {
        let may_see = |session: &SessionHandle| {
            session.user != *from
                && only.is_none_or(|only| only.contains(&session.user))
                && !session.state.blocked_with(from)
        };
        for subscriber in self.subscribers.iter().filter(|s| !s.is_catching_up() && may_see(&s.session)) {
            let session = &subscriber.session;
            session.outbox.push_ephemeral(key, frame.encode(session.codec));
        }
    }
}
