//! Pages from a list, at every edge.

use natterjack_protocol::{
    Body, Kind,
    log::{Interval, Intervals},
};

use super::*;
use crate::store::conformance::{row, text, thread, user};

struct List {
    rows: Vec<Row>,
    hole: Option<(MsgId, MsgId)>,
}

impl Rows for List {
    async fn rows(&self, lo: MsgId, hi: MsgId, order: Order, most: Most) -> Result<(Vec<Row>, bool), HistoryError> {
        let lost = |id: MsgId| self.hole.is_some_and(|(a, b)| a <= id && id <= b);
        let within = self.rows.iter().filter(|r| lo <= r.id && r.id < hi && !lost(r.id)).cloned();
        let mut rows: Vec<Row> = match order {
            Order::OldestFirst => within.collect(),
            Order::NewestFirst => within.rev().collect(),
        };
        most.keep_first(&mut rows);
        let more = most.full(&rows);
        Ok((rows, more))
    }

    async fn id_at(&self, ts: u64) -> Result<Option<MsgId>, HistoryError> {
        let lost = |id: MsgId| self.hole.is_some_and(|(a, b)| a <= id && id <= b);
        Ok(self.rows.iter().find(|r| r.ts >= ts && !lost(r.id)).map(|r| r.id))
    }

    fn hole(&self) -> Option<(MsgId, MsgId)> {
        self.hole
    }
}

/// Ids 10, 20, … 100, at times 1010, 1020, …; 50 is a block by somebody else.
fn list(hole: Option<(u64, u64)>) -> List {
    let t = thread("t");
    let one = |id| if id == 50 { row(&t, id, "b", Kind::Blocked, Body::default()) } else { text(&t, id, "b", "x") };
    List { rows: (1..=10).map(|i| one(i * 10)).collect(), hole: hole.map(|(a, b)| (MsgId(a), MsgId(b))) }
}

fn reader(parts: &[(u64, Option<u64>)]) -> Reader {
    let intervals = parts.iter().map(|(s, u)| Interval { since: MsgId(*s), until: u.map(MsgId) }).collect();
    Reader { user: user("a"), intervals: Intervals(intervals) }
}

type Told = (Vec<u64>, u64, bool, Vec<(u64, u64)>);

async fn told(list: &List, reader: &Reader, at: PageStart, limit: usize) -> Option<Told> {
    let page = match cut(list, reader, at, limit).await {
        Ok(p) => p,
        Err(HistoryError::OutOfReach) => return None,
        Err(e) => panic!("{e}"),
    };
    // Each event names the one before it.
    let mut prev = page.prev;
    for e in &page.events {
        assert_eq!(std::mem::replace(&mut prev, e.id), e.prev);
    }
    let ids = page.events.iter().map(|e| e.id.0).collect();
    Some((ids, page.prev.0, page.more, page.holes.iter().map(|(a, b)| (a.0, b.0)).collect()))
}

fn whole(ids: &[u64], prev: u64, more: bool) -> Option<Told> {
    Some((ids.to_vec(), prev, more, Vec::new()))
}

#[tokio::test]
async fn every_kind_of_page() {
    let (list, all) = (list(None), reader(&[(0, None)]));
    let page = async |at, limit| told(&list, &all, at, limit).await;
    assert_eq!(page(PageStart::Newest, 3).await, whole(&[80, 90, 100], 70, false));
    assert_eq!(page(PageStart::Newest, 9).await, whole(&[10, 20, 30, 40, 60, 70, 80, 90, 100], 0, false));
    assert_eq!(page(PageStart::Newest, 50).await, whole(&[10, 20, 30, 40, 60, 70, 80, 90, 100], 0, false));
    assert_eq!(page(PageStart::Before(MsgId(80)), 2).await, whole(&[60, 70], 40, true));
    assert_eq!(page(PageStart::Before(MsgId(75)), 2).await, whole(&[60, 70], 40, true));
    assert_eq!(page(PageStart::Before(MsgId(10)), 2).await, whole(&[], 0, true));
    assert_eq!(page(PageStart::Before(MsgId(999)), 1).await, whole(&[100], 90, false));
    assert_eq!(page(PageStart::After(MsgId(30)), 2).await, whole(&[40, 60], 30, true));
    assert_eq!(page(PageStart::After(MsgId(80)), 2).await, whole(&[90, 100], 80, false));
    assert_eq!(page(PageStart::After(MsgId(100)), 2).await, whole(&[], 100, false));
    assert_eq!(page(PageStart::After(MsgId(0)), 1).await, whole(&[10], 0, true));
    assert_eq!(page(PageStart::Around(MsgId(40)), 4).await, whole(&[30, 40, 60, 70], 20, true));
    assert_eq!(page(PageStart::Around(MsgId(55)), 4).await, whole(&[30, 40, 60, 70], 20, true));
    assert_eq!(page(PageStart::Around(MsgId(100)), 4).await, whole(&[70, 80, 90, 100], 60, false));
    assert_eq!(page(PageStart::Around(MsgId(10)), 4).await, whole(&[10, 20, 30], 0, true));
    assert_eq!(page(PageStart::Time(0), 2).await, whole(&[10, 20], 0, true));
    assert_eq!(page(PageStart::Time(1_041), 2).await, whole(&[60, 70], 40, true));
    assert_eq!(page(PageStart::Time(1_100), 2).await, whole(&[100], 90, false));
    assert_eq!(page(PageStart::Time(1_101), 2).await, whole(&[], 100, false));
}

#[tokio::test]
async fn only_what_is_theirs() {
    let (list, mine) = (list(None), reader(&[(20, Some(40)), (70, Some(90))]));
    let page = async |at, limit| told(&list, &mine, at, limit).await;
    assert_eq!(page(PageStart::Newest, 3).await, whole(&[30, 70, 80], 20, false));
    assert_eq!(page(PageStart::Newest, 9).await, whole(&[20, 30, 70, 80], 0, false));
    assert_eq!(page(PageStart::Before(MsgId(70)), 9).await, whole(&[20, 30], 0, true));
    assert_eq!(page(PageStart::After(MsgId(30)), 9).await, whole(&[70, 80], 30, false));
    assert_eq!(page(PageStart::After(MsgId(30)), 1).await, whole(&[70], 30, true));
    assert_eq!(page(PageStart::Around(MsgId(40)), 2).await, whole(&[30, 70], 20, true));
    assert_eq!(page(PageStart::Time(1_041), 9).await, whole(&[70, 80], 30, false));
    let nobody = reader(&[]);
    assert_eq!(told(&list, &nobody, PageStart::Newest, 9).await, whole(&[], 0, false));
    // The block is shown to who did it.
    let blocker = Reader { user: user("b"), ..reader(&[(50, Some(51))]) };
    assert_eq!(told(&list, &blocker, PageStart::Newest, 9).await, whole(&[50], 0, false));
}

#[tokio::test]
async fn a_hole_is_told_and_never_stepped_over() {
    let all = reader(&[(0, None)]);
    // The archive is away, the log begins at 55.
    let away = list(Some((1, 54)));
    let page = async |at, limit| told(&away, &all, at, limit).await;
    assert_eq!(page(PageStart::Newest, 2).await, whole(&[90, 100], 80, false));
    assert_eq!(
        page(PageStart::Newest, 5).await,
        whole(&[60, 70, 80, 90, 100], 54, false),
        "full, and there may be something below"
    );
    assert_eq!(page(PageStart::Newest, 6).await, Some((vec![60, 70, 80, 90, 100], 54, false, vec![(1, 54)])));
    assert_eq!(page(PageStart::Before(MsgId(60)), 6).await, None);
    assert_eq!(page(PageStart::Around(MsgId(40)), 6).await, None);
    assert_eq!(page(PageStart::After(MsgId(60)), 2).await, whole(&[70, 80], 60, true));
    assert_eq!(page(PageStart::After(MsgId(54)), 2).await, whole(&[60, 70], 54, true));
    assert_eq!(page(PageStart::After(MsgId(30)), 2).await, Some((vec![60, 70], 54, true, vec![(31, 54)])));
    assert_eq!(page(PageStart::Time(1_040), 2).await, None);
    assert_eq!(page(PageStart::Time(1_065), 2).await, whole(&[70, 80], 60, true));
    // A member since 60: the log has all that is theirs.
    let young = reader(&[(60, None)]);
    assert_eq!(told(&away, &young, PageStart::Newest, 9).await, whole(&[60, 70, 80, 90, 100], 0, false));
    assert_eq!(told(&away, &young, PageStart::Time(0), 1).await, whole(&[60], 0, true));
    // The archive is up to 30, the log begins at 65.
    let behind = list(Some((31, 64)));
    let page = async |at, limit| told(&behind, &all, at, limit).await;
    assert_eq!(page(PageStart::Newest, 9).await, Some((vec![10, 20, 30, 70, 80, 90, 100], 0, false, vec![(31, 64)])));
    assert_eq!(page(PageStart::Newest, 4).await, whole(&[70, 80, 90, 100], 64, false));
    assert_eq!(page(PageStart::After(MsgId(10)), 3).await, Some((vec![20, 30, 70], 10, true, vec![(31, 64)])));
    assert_eq!(page(PageStart::After(MsgId(10)), 2).await, whole(&[20, 30], 10, true));
    assert_eq!(page(PageStart::After(MsgId(100)), 2).await, whole(&[], 100, false));
}

/// Texts of every size, in every kind of page: bounded, with one event at least, and turning the pages both ways gives
/// all of them.
#[tokio::test]
async fn pages_are_bounded_by_their_bytes() {
    let t = thread("t");
    let size = |id: u64| match id % 4 {
        0 => limits::TEXT_CHARS,
        1 => 3,
        2 => limits::TEXT_CHARS / 7,
        _ => limits::TEXT_CHARS / 2,
    };
    let rows: Vec<Row> = (1..=200).map(|id| text(&t, id, "b", &"\0".repeat(size(id)))).collect();
    let all: Vec<u64> = rows.iter().map(|r| r.id.0).collect();
    let (list, reader) = (List { rows, hole: None }, reader(&[(0, None)]));
    let page = async |at| {
        let page = cut(&list, &reader, at, limits::PAGE_MAX).await.unwrap();
        let bytes = natterjack_protocol::size::json(&page);
        assert!(bytes < limits::PAGE_BYTES + 62_000, "{at:?}: {bytes} bytes");
        assert!(bytes > limits::PAGE_BYTES / 2 || page.prev.is_none() || !page.more, "{at:?}: {bytes} bytes");
        page
    };
    let (mut down, mut next) = (Vec::new(), PageStart::Newest);
    loop {
        let page = page(next).await;
        down.splice(0..0, page.events.iter().map(|e| e.id.0));
        if page.prev.is_none() {
            break;
        }
        next = PageStart::Before(page.prev.next());
    }
    assert_eq!(down, all);
    let (mut up, mut next) = (Vec::new(), PageStart::Time(0));
    loop {
        let page = page(next).await;
        up.extend(page.events.iter().map(|e| e.id.0));
        if !page.more {
            break;
        }
        next = PageStart::After(page.events.last().unwrap().id);
    }
    assert_eq!(up, all);
    for id in 1..=200 {
        let page = page(PageStart::Around(MsgId(id))).await;
        assert!(page.events.iter().any(|e| e.id.0 == id), "around {id}");
        assert!(page.events.windows(2).all(|w| w[1].id.0 == w[0].id.0 + 1 && w[1].prev == w[0].id));
        assert_eq!((page.prev.0, page.more), (page.events[0].id.0 - 1, page.events.last().unwrap().id.0 < 200));
    }
}
