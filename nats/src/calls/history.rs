//! Questions to `history`: any instance answers, from archive and log together.

use natterjack_protocol::{
    Cid, Event, MsgId, Thread, UserId,
    client::frame::Page,
    internal::rpc::{AskedThread, HistoryAnswer, HistoryRequest, LastEntry, LatestOf, PageStart, ReadAccess},
};

use super::RpcCall;
use crate::subjects;

pub type HistoryCall<A> = RpcCall<HistoryRequest, HistoryAnswer, A>;

fn call<A>(request: HistoryRequest, answer: fn(HistoryAnswer) -> Option<A>) -> HistoryCall<A> {
    RpcCall { subject: subjects::HISTORY, request, answer }
}

/// One page of a thread, as `reader` with this access may see it. `min_id`: what the asker knows to exist.
pub fn page(
    thread: Thread,
    reader: UserId,
    access: ReadAccess,
    at: PageStart,
    limit: usize,
    min_id: MsgId,
) -> HistoryCall<Page> {
    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
    call(HistoryRequest::Page { thread, reader, access, at, limit, min_id }, |answer| match answer {
        HistoryAnswer::Page(page) => Some(page),
        _ => None,
    })
}

/// Events with `after` < id <= `upto`, oldest first, at most `limit` and as many as fit. Nothing is hidden.
pub fn between(thread: Thread, after: MsgId, upto: MsgId, limit: usize) -> HistoryCall<Vec<Event>> {
    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
    call(HistoryRequest::Between { thread, after, upto, limit }, |answer| match answer {
        HistoryAnswer::Between { events, .. } => Some(events),
        _ => None,
    })
}

/// The newest entry of each thread, in the order of the question.
pub fn last_entries(threads: Vec<Thread>) -> HistoryCall<Vec<LastEntry>> {
    call(HistoryRequest::LastEntries { threads }, |answer| match answer {
        HistoryAnswer::LastEntries(last) => Some(last),
        _ => None,
    })
}

/// The newest visible event of each thread, and how many messages are behind what was read, of the first ones at least:
/// ask again for the rest.
pub fn latest(reader: UserId, threads: Vec<AskedThread>) -> HistoryCall<Vec<LatestOf>> {
    call(HistoryRequest::Latest { reader, threads }, |answer| match answer {
        HistoryAnswer::Latest(latest) => Some(latest),
        _ => None,
    })
}

/// The id under which (thread, sender, cid) is stored, if it is, and the log's clock at the lookup. `below`: only a
/// smaller id counts.
pub fn find_cid(thread: Thread, sender: UserId, cid: Cid, below: Option<MsgId>) -> HistoryCall<(Option<MsgId>, u64)> {
    call(HistoryRequest::FindCid { thread, sender, cid, below }, |answer| match answer {
        HistoryAnswer::FindCid { found, seen } => Some((found, seen)),
        _ => None,
    })
}

/// Is there a message, recalled or not, under this id?
pub fn is_message(thread: Thread, id: MsgId) -> HistoryCall<bool> {
    call(HistoryRequest::IsMessage { thread, id }, |answer| match answer {
        HistoryAnswer::IsMessage(is) => Some(is),
        _ => None,
    })
}
