use natterjack_protocol::{
    self as p, Cid as RealCid, MsgId as RealId, Token,
    client::{frame, http},
    limits,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::PartialSchema;

use super::*;

/// Without fields that have no value: those are left out on the wire.
fn lean(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, lean(v))).collect(),
        Value::Array(list) => list.into_iter().map(lean).collect(),
        other => other,
    }
}

/// Everything set, so that a field that is added there and not here is noticed.
fn holds<T: Serialize + DeserializeOwned>(real: &impl Serialize) {
    let real = serde_json::to_value(real).unwrap();
    let described: T = serde_json::from_value(real.clone()).unwrap_or_else(|e| panic!("{}: {e}", std::any::type_name::<T>()));
    assert_eq!(lean(serde_json::to_value(described).unwrap()), real, "{}", std::any::type_name::<T>());
}

fn id(s: &str) -> Token {
    Token::parse(s).unwrap()
}

fn event() -> p::Event {
    let media = p::log::Media {
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
        target: Some(RealId(1)),
        reply_to: Some(RealId(1)),
        remove: true,
        users: vec![id("u")],
        name: Some("n".into()),
        role: Some(p::log::Role::Admin),
        history: Some(p::log::HistoryFor::Everything),
    };
    let (thread, cid) = ("dm.a.b".parse().unwrap(), RealCid::mint(1, [0; 10]));
    p::Event { thread, id: RealId(2), prev: RealId(1), ts: 1, from: id("a"), cid, kind: p::Kind::Text, body }
}

#[test]
fn the_descriptions_are_those_of_the_real_types() {
    let event = event();
    let refusal = p::Refusal { now_ms: Some(1), ..p::Refusal::unavailable("x").with_cid(event.cid).with_thread(&event.thread) };
    let page = frame::Page {
        r: None,
        thread: Some(event.thread.clone()),
        events: vec![event.clone()],
        prev: RealId(1),
        more: true,
        holes: vec![(RealId(1), RealId(2))],
    };
    let interval = |s, u: Option<u64>| p::log::Interval { since: RealId(s), until: u.map(RealId) };
    holds::<Event>(&event);
    holds::<Page>(&page);
    holds::<Refusal>(&refusal);
    holds::<ThreadSummary>(&frame::ThreadSummary {
        thread: event.thread.clone(),
        name: Some("n".into()),
        role: Some(p::log::Role::Owner),
        open: true,
        last: Some(event.clone()),
    });
    let tokens = http::Tokens { user: id("u"), name: "n".into(), device: id("d"), access: "a".into(), expires_in: 1, refresh: "r".into() };
    holds::<Tokens>(&tokens);
    holds::<Profile>(&http::Profile { user: id("u"), name: "n".into() });
    holds::<Contact>(&http::Contact { user: id("u"), name: "n".into(), state: http::ContactState::Asked });
    for change in [http::ContactChange::Request, http::ContactChange::Accept, http::ContactChange::Remove] {
        holds::<ContactChange>(&change);
    }
    holds::<Polled>(&crate::long_poll::answer::PollAnswer {
        frames: vec![
            frame::ServerFrame::Page(page),
            frame::ServerFrame::Event(Box::new(event.clone())),
            frame::ServerFrame::Member {
                thread: event.thread.clone(),
                id: RealId(1),
                open: true,
                role: Some(p::log::Role::Member),
                intervals: p::log::Intervals(vec![interval(1, Some(2)), interval(3, None)]),
            },
            frame::ServerFrame::Error { r: None, refusal },
            frame::ServerFrame::Contacts,
            frame::ServerFrame::Draining { after_ms: 1, edges: vec!["ws://h".into()] },
        ],
        cursors: [(event.thread.clone(), RealId(1))].into(),
        synced: Some("1.2".into()),
    });
}

#[test]
fn the_numbers_are_those_of_protocol() {
    let media = serde_json::to_value(Media::schema()).unwrap()["properties"].clone();
    let max = |field: &str| media[field]["maxLength"].clone();
    let real = [limits::MEDIA_URL_BYTES, limits::MEDIA_MIME_CHARS, limits::MEDIA_NAME_CHARS];
    assert_eq!([max("url"), max("mime"), max("name")], real.map(Value::from));
}
