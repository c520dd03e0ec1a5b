//! Threads page by page, over HTTP and on a socket.

use natterjack_protocol::{
    Event, MsgId, Refusal, Thread,
    client::frame::{ClientFrame, HistoryQuery, Page, ServerFrame},
};
use natterjack_testkit::eventually;

use super::{Api, RawWs};

/// A page over HTTP; `query` as in `?limit=5&after=7`.
pub async fn page(api: &Api, thread: &Thread, query: &str) -> Result<Page, String> {
    let (status, body) = api.get(&format!("/v1/threads/{thread}/messages{query}")).await;
    match status {
        200 => Ok(serde_json::from_value(body).expect("a page is what docs say it is")),
        _ => Err(format!("{status} {body}")),
    }
}

/// The whole thread, upwards or downwards, over HTTP; oldest first. Waits while a part of it cannot be read. The pages
/// are small, so that their edges are met.
pub async fn whole(api: &Api, thread: &Thread, upwards: bool) -> Vec<Event> {
    whole_by(api, thread, upwards, 37).await
}

/// Likewise, in pages of this size.
pub async fn whole_by(api: &Api, thread: &Thread, upwards: bool, limit: usize) -> Vec<Event> {
    let all = all_pages(api, thread, upwards, limit).await;
    assert!(all.is_sorted_by(|a, b| a.id < b.id), "pages of {thread} overlap, or are not in order");
    all
}

async fn all_pages(api: &Api, thread: &Thread, upwards: bool, limit: usize) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    loop {
        let place = match (upwards, all.first(), all.last()) {
            (true, _, last) => format!("&after={}", last.map_or(MsgId::NONE, |e| e.id)),
            (false, Some(first), _) => format!("&before={}", first.id),
            (false, None, _) => String::new(),
        };
        let page = eventually("a page without a hole", async || {
            let page = page(api, thread, &format!("?limit={limit}{place}")).await?;
            if page.holes.is_empty() { Ok(page) } else { Err(format!("holes {:?} in {thread}", page.holes)) }
        })
        .await;
        if upwards {
            assert!(!page.events.is_empty() || !page.more, "an empty page that promises more");
            all.extend(page.events);
            if !page.more {
                return all;
            }
        } else {
            assert!(!page.events.is_empty() || page.prev.is_none(), "an empty page in the middle of the thread");
            let end = page.prev.is_none();
            all.splice(0..0, page.events);
            if end {
                return all;
            }
        }
    }
}

/// `history` on a socket.
pub async fn ask(ws: &mut RawWs, history: HistoryQuery) -> Result<Page, Refusal> {
    let r = ws.request();
    ws.send(&ClientFrame::History(HistoryQuery { r, ..history })).await;
    ws.until("a page", |f| match f {
        ServerFrame::Page(p) if p.r == Some(r) => Some(Ok(p)),
        ServerFrame::Error { r: Some(to), refusal } if to == r => Some(Err(refusal)),
        _ => None,
    })
    .await
}
