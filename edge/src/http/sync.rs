//! The long poll: what a WebSocket would bring, for clients that get none through. What a poll is: `long_poll`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use natterjack_protocol::{
    MsgId, Refusal, Thread, Token,
    client::{
        frame::DeviceClass,
        poll::{PollAnswer, PollRequest},
    },
    schema::{Millis, Synced},
};
use serde::Deserialize;

use super::{
    Api, Shared,
    extract::{Answer, Authenticated, JsonBody},
    path::ThreadName,
    query::{Query, digits, number},
};
use crate::{address::Came, devices::hello::DeviceHello, long_poll::PollInput};

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PollQuery {
    /// `<thread>:<id>`, separated by commas; each thread once.
    #[param(
        pattern = "^(dm\\.[\\w-]{1,64}\\.[\\w-]{1,64}|group\\.[\\w-]{1,64}):(0|[1-9][0-9]{0,14}|[1-8][0-9]{15})\
            (,(dm\\.[\\w-]{1,64}\\.[\\w-]{1,64}|group\\.[\\w-]{1,64}):(0|[1-9][0-9]{0,14}|[1-8][0-9]{15})){0,999}$",
        example = "dm.ua.ub:64611942400001"
    )]
    cursors: Option<String>,
    #[param(inline, value_type = Option<Synced>)]
    synced: Option<String>,
    /// How long to wait if there is nothing; 25 s if missing, and at most; 0: not at all.
    #[serde(default, deserialize_with = "number")]
    #[param(inline, value_type = Option<Millis>)]
    wait_ms: Option<u64>,
    /// What the device is.
    #[param(inline)]
    class: Option<DeviceClass>,
    /// `session` of the last answer: the device goes on with its place.
    #[param(inline)]
    session: Option<Token>,
}

/// Waits for what is newer than the cursors.
///
/// Answers with the frames of the socket, the cursors to go on with, and `synced`.
#[utoipa::path(post, path = "/v1/sync", tag = "sync", operation_id = "poll", security(("token" = [])),
    request_body = PollRequest,
    extensions(("x-codes" = json!(["conflict", "device_limit", "displaced", "not_found"]))),
    responses((status = 200, body = PollAnswer)))]
pub async fn post(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    came: Came,
    JsonBody(p): JsonBody<PollRequest<ThreadName>>,
) -> Answer<PollAnswer> {
    let device = DeviceHello::checked(p.class, p.name.as_deref(), p.app.as_deref(), p.session)?;
    poll(
        api,
        actor,
        PollInput {
            device,
            cursors: named(p.cursors)?,
            synced: p.synced,
            wait_ms: p.wait_ms,
            watch: p.watch,
            seen: p.seen,
            came,
        },
    )
    .await
}

/// The same for few cursors.
#[utoipa::path(get, path = "/v1/sync", tag = "sync", operation_id = "pollWithQuery", security(("token" = [])),
    params(PollQuery),
    extensions(("x-codes" = json!(["conflict", "device_limit", "displaced", "not_found"]))),
    responses((status = 200, body = PollAnswer)))]
pub async fn get(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    came: Came,
    Query(q): Query<PollQuery>,
) -> Answer<PollAnswer> {
    let cursors = q.cursors.as_deref().map(cursors).transpose()?.unwrap_or_default();
    let device = DeviceHello { class: q.class.unwrap_or_default(), session: q.session, ..DeviceHello::default() };
    let (cursors, synced, wait_ms) = (named(cursors)?, q.synced, q.wait_ms);
    poll(api, actor, PollInput { device, cursors, synced, wait_ms, came, ..PollInput::default() }).await
}

async fn poll(api: Arc<Api>, actor: crate::auth::Actor, ask: PollInput) -> Answer<PollAnswer> {
    Ok(Json(Box::pin(api.polls.poll(actor, ask)).await?))
}

fn named(cursors: BTreeMap<ThreadName, MsgId>) -> Result<BTreeMap<Thread, MsgId>, Refusal> {
    cursors.into_iter().map(|(name, id)| Ok((name.thread()?, id))).collect()
}

fn cursors(list: &str) -> Result<BTreeMap<ThreadName, MsgId>, Refusal> {
    let one = |entry: &str| -> Result<(ThreadName, MsgId), Refusal> {
        let wrong = || Refusal::invalid("query: cursors: a list of <thread>:<id>, separated by commas");
        let (thread, id) = entry.split_once(':').ok_or_else(wrong)?;
        let thread = ThreadName::parse(thread).map_err(|e| Refusal::invalid(format!("query: cursors: {e}")))?;
        Ok((thread, MsgId(digits(id).ok_or_else(wrong)?)))
    };
    let mut cursors = BTreeMap::new();
    for entry in list.split(',') {
        let (thread, id) = one(entry)?;
        if cursors.insert(thread, id).is_some() {
            return Err(Refusal::invalid("query: cursors: a thread stands there twice"));
        }
    }
    Ok(cursors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_in_a_query() {
        let two = cursors("dm.a.b:5,group.g:7").unwrap();
        assert_eq!((two.len(), two[&ThreadName::parse("group.g").unwrap()]), (2, MsgId(7)));
        assert_eq!(named(cursors("dm.b.a:5").unwrap()).unwrap_err().code.name(), "not_found");
        for bad in
            ["dm.a.b", "dm.a.b:x", "dm.a.b:-1", "nothing:5", ":5", "", "dm.a.b:5,", "dm.a.b:5,dm.a.b:6", "dm.a.b:+5"]
        {
            assert!(cursors(bad).is_err(), "{bad}");
        }
    }
    /// The examples of docs/protocol.md are what is read and written here.
    #[test]
    fn the_document_speaks_the_same() {
        let text =
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md"))
                .unwrap();
        let part = text.split("### Without a WebSocket").nth(1).unwrap();
        let line = |begins: &str| part.lines().find(|l| l.starts_with(begins)).unwrap_or_else(|| panic!("no {begins}"));
        let ask: PollRequest<ThreadName> = serde_json::from_str(line("{\"cursors\"")).unwrap();
        assert!(ask.cursors.len() == 1 && ask.synced.is_some());
        let answer: serde_json::Value = serde_json::from_str(line("{\"frames\"")).unwrap();
        assert!(serde_json::from_value::<PollAnswer>(answer.clone()).is_ok());
        let mut collected = crate::long_poll::answer::Collected::new(named(ask.cursors).unwrap(), ask.synced.is_some());
        answer["frames"].as_array().unwrap().iter().for_each(|f| collected.add(f.to_string().as_bytes()));
        let attached = serde_json::json!({ "t": "attached", "synced": answer["synced"] });
        collected.add(attached.to_string().as_bytes());
        let session = serde_json::from_value(answer["session"].clone()).unwrap();
        let again = serde_json::to_string(&collected.answer(&session)).unwrap();
        assert_eq!(again, line("{\"frames\""));
        assert!(serde_json::from_str::<natterjack_protocol::client::http::NewMessage>(line("{\"cid\"")).is_ok());
    }
}
