//! A client that is not ours resumes: hello with its cursors, the pages, and the history below them.

use std::collections::BTreeMap;

use natterjack_protocol::{
    MsgId, Thread,
    client::frame::{ClientFrame, Hello, HistoryQuery, Page, ServerFrame},
};
use natterjack_testkit::within;
use natterjack_tests::kit::{RawWs, User, paging::ask};

use super::CATCH_UP;

pub(super) fn hello(user: &User, cursors: BTreeMap<Thread, MsgId>, synced: Option<String>) -> Hello {
    Hello { cursors, synced, ..Hello::new(user.tokens.access.clone(), user.tokens.device.clone()) }
}

/// Hello, the pages until `attached`, and of each thread the pages below until the cursor is reached. Gives messages
/// and `synced`.
pub(super) async fn resume_by_hand(ws: &mut RawWs, hello: Hello) -> (BTreeMap<Thread, Vec<MsgId>>, String) {
    let cursors = hello.cursors.clone();
    ws.send(&ClientFrame::Hello(hello)).await;
    let mut pages: Vec<Page> = Vec::new();
    let synced = within("attached", CATCH_UP, async {
        loop {
            let frame = ws
                .until("a page or attached", |f| match f {
                    ServerFrame::Page(p) => Some(Ok(p)),
                    ServerFrame::Attached { synced } => Some(Err(synced)),
                    ServerFrame::Error { refusal, .. } => panic!("{refusal:?}"),
                    _ => None,
                })
                .await;
            match frame {
                Ok(page) => pages.push(page),
                Err(synced) => break synced,
            }
        }
    })
    .await;
    let mut got = BTreeMap::new();
    for page in pages {
        let thread = page.thread.clone().unwrap();
        let cursor = cursors.get(&thread).copied();
        assert!(page.holes.is_empty() && !page.more, "{thread}: {page:?}");
        let mut events: Vec<_> = page.events;
        let mut prev = page.prev;
        while cursor.is_some_and(|c| prev > c) {
            let before = events.first().map(|e| e.id);
            let mut below = ask(
                ws,
                HistoryQuery { thread: Some(thread.clone()), before, limit: Some(40), ..HistoryQuery::default() },
            )
            .await
            .unwrap();
            assert_eq!(below.events.last().map(|e| e.id), Some(prev), "a page names what lies below its oldest");
            prev = below.prev;
            below.events.append(&mut events);
            events = below.events;
        }
        let ids =
            events.iter().filter(|e| !e.kind.is_control() && cursor.is_none_or(|c| e.id > c)).map(|e| e.id).collect();
        assert!(got.insert(thread, ids).is_none(), "one page per thread");
    }
    (got, synced)
}
