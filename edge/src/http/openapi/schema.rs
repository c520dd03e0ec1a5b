//! How the types of `protocol` look in JSON. `protocol` knows nothing of HTTP, so their descriptions stand here; a test holds each
//! description against the real type.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An answer of "no".
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// One of a closed list; each says whether a retry can help (docs/protocol.md).
    #[schema(example = "unavailable")]
    pub code: String,
    /// For people.
    pub message: String,
    pub retry_after_ms: Option<u64>,
    /// The log's clock, with `clock_ahead`.
    pub now_ms: Option<u64>,
    pub cid: Option<String>,
    /// Which thread this is about, where the request does not say it.
    pub thread: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    pub user: String,
    pub name: String,
    pub device: String,
    /// For `hello` and `Authorization: Bearer`.
    pub access: String,
    /// Milliseconds since 1970.
    pub access_expires: u64,
    /// Used once; gives new tokens.
    pub refresh: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub user: String,
    pub name: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    pub user: String,
    pub name: String,
    pub state: ContactState,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContactState {
    /// You have asked.
    Requested,
    /// They have asked; you can accept.
    Asked,
    Contact,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContactChange {
    Request,
    Accept,
    Remove,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Member,
    Admin,
    Owner,
}

/// What those who join later may read.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistoryFor {
    SinceJoining,
    Everything,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Media {
    pub url: String,
    pub mime: String,
    /// Bytes.
    pub size: Option<u64>,
    pub name: Option<String>,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub duration_ms: Option<u64>,
}

/// Which fields are there depends on the kind.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Body {
    pub text: Option<String>,
    pub emoji: Option<String>,
    pub media: Option<Media>,
    /// Base64.
    pub data: Option<String>,
    /// The message an edit, recall or reaction is about.
    pub target: Option<u64>,
    pub reply_to: Option<u64>,
    /// Takes a reaction away.
    pub remove: Option<bool>,
    /// Control entries: who is affected.
    pub users: Option<Vec<String>>,
    pub name: Option<String>,
    pub role: Option<Role>,
    pub history: Option<HistoryFor>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    #[schema(example = "dm.ua.ub")]
    pub thread: String,
    /// Its place in the thread: larger is later.
    pub id: u64,
    /// The event before it; 0: none that is recent.
    pub prev: u64,
    /// Milliseconds since 1970.
    pub ts: u64,
    pub from: String,
    pub cid: String,
    #[schema(example = "text")]
    pub kind: String,
    pub body: Body,
}

/// A contiguous part of a thread, oldest first.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    pub thread: Option<String>,
    pub events: Vec<Event>,
    /// The newest id below the first event; 0: the thread begins here.
    pub prev: u64,
    /// There is something newer than the last event.
    pub more: bool,
    /// Parts that could not be read now: ask again later.
    pub holes: Option<Vec<(u64, u64)>>,
}

/// What a poll brought.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Polled {
    /// Frames of the socket in their order, each with its type in `t`: page, event, member, error, contacts, draining (docs/protocol.md).
    #[schema(value_type = Vec<Object>)]
    pub frames: Vec<serde_json::Value>,
    /// Per thread how far its cursor may be moved once the frames are stored.
    pub cursors: std::collections::BTreeMap<String, u64>,
    /// For the next poll; missing: keep the old one.
    pub synced: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ThreadSummary {
    pub thread: String,
    pub name: Option<String>,
    pub role: Option<Role>,
    /// You may write here.
    pub open: bool,
    pub last: Option<Event>,
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{self as p, Cid, MsgId, Token, frame, rpc};
    use serde::de::DeserializeOwned;

    use super::*;

    /// Everything set, so that a field that is added there and not here is noticed.
    fn holds<T: DeserializeOwned>(real: &impl Serialize) {
        if let Err(e) = serde_json::from_value::<T>(serde_json::to_value(real).unwrap()) {
            panic!("{}: {e}", std::any::type_name::<T>());
        }
    }

    #[test]
    fn the_descriptions_are_those_of_the_real_types() {
        let id = |s| Token::parse(s).unwrap();
        let cid = Cid::mint(1, [0; 10]);
        let media = p::entry::Media {
            url: "u".into(),
            mime: "m".into(),
            size: Some(1),
            name: Some("n".into()),
            width: Some(1),
            height: Some(1),
            duration_ms: Some(1),
        };
        let body = p::Body {
            text: Some("t".into()),
            emoji: Some("e".into()),
            media: Some(media),
            data: Some(vec![1].into()),
            target: Some(MsgId(1)),
            reply_to: Some(MsgId(1)),
            remove: true,
            users: vec![id("u")],
            name: Some("n".into()),
            role: Some(p::fold::Role::Admin),
            history: Some(p::fold::HistoryFor::Everything),
        };
        let event = p::Event {
            thread: "dm.a.b".parse().unwrap(),
            id: MsgId(2),
            prev: MsgId(1),
            ts: 1,
            from: id("a"),
            cid,
            kind: p::Kind::Text,
            body,
        };
        holds::<Event>(&event);
        holds::<Page>(&frame::Page {
            r: None,
            thread: Some(event.thread.clone()),
            events: vec![event.clone()],
            prev: MsgId(1),
            more: true,
            holes: vec![(MsgId(1), MsgId(2))],
        });
        holds::<ThreadSummary>(&frame::ThreadSummary {
            thread: event.thread.clone(),
            name: Some("n".into()),
            role: Some(p::fold::Role::Owner),
            open: true,
            last: Some(event),
        });
        let tokens =
            rpc::Tokens { user: id("u"), name: "n".into(), device: id("d"), access: "a".into(), access_expires: 1, refresh: "r".into() };
        holds::<Tokens>(&tokens);
        holds::<Profile>(&rpc::Profile { user: id("u"), name: "n".into() });
        holds::<Contact>(&rpc::Contact { user: id("u"), name: "n".into(), state: rpc::ContactState::Asked });
        for change in [rpc::ContactChange::Request, rpc::ContactChange::Accept, rpc::ContactChange::Remove] {
            holds::<ContactChange>(&change);
        }
        holds::<Polled>(&crate::poll::answer::Answer {
            frames: vec![frame::ServerFrame::Contacts],
            cursors: [("dm.a.b".parse().unwrap(), MsgId(1))].into(),
            synced: Some("1.2".into()),
        });
        let thread = "dm.a.b".parse().unwrap();
        let refusal = p::Refusal { now_ms: Some(1), ..p::Refusal::unavailable("x").with_cid(cid).with_thread(&thread) };
        holds::<Refusal>(&refusal);
    }
}
