use natterjack_protocol::{Body, Cid, Kind, Thread, Token, limits, size};

use super::{held::HELD, *};

pub(crate) const FILL: Most = Most { count: 10_000, bytes: 8 << 20 };
const POLICY: Policy = Policy { max_fill: FILL, floor: None };

pub(crate) fn event(thread: &Thread, id: u64, prev: u64) -> Event {
    Event {
        thread: thread.clone(),
        id: MsgId(id),
        prev: MsgId(prev),
        ts: 1_000_000 + id,
        from: Token::parse("a").unwrap(),
        cid: Cid::mint(id, [0; 10]),
        kind: Kind::Text,
        body: Body::text(id.to_string()),
    }
}

fn e(id: u64, prev: u64) -> Event {
    event(&"dm.a.b".parse().unwrap(), id, prev)
}

fn page(ids: &[(u64, u64)], more: bool) -> Page {
    let events: Vec<Event> = ids.iter().map(|(id, prev)| e(*id, *prev)).collect();
    Page { prev: events.first().map_or(MsgId::NONE, |e| e.prev), events, more, ..Page::default() }
}

fn ids(step: &Step) -> Vec<u64> {
    step.deliver.iter().map(|e| e.id.0).collect()
}

fn at(cursor: u64) -> Chain {
    Chain::new(Some(MsgId(cursor)), 0)
}

#[test]
fn live_events_follow_or_are_old() {
    let mut c = at(10);
    assert_eq!(ids(&c.live(e(11, 10))), [11]);
    assert_eq!(ids(&c.live(e(11, 10))), [0; 0]);
    assert_eq!(ids(&c.live(e(15, 0))), [15], "quiet for longer than the channel remembers");
    assert!(c.is_whole());
}

#[test]
fn a_page_that_does_not_reach_the_cursor_is_filled_downwards() {
    let mut c = at(10);
    assert_eq!(ids(&c.newest(page(&[(40, 30), (50, 40)], false), POLICY)), [0; 0]);
    assert_eq!(c.want(), Some(Want::Before(MsgId(40))));
    assert_eq!(ids(&c.live(e(60, 50))), [0; 0], "held until what is below it is here");
    assert_eq!(ids(&c.page(page(&[(20, 10), (30, 20)], true), POLICY)), [20, 30, 40, 50, 60]);
    assert!(c.is_whole());
}

#[test]
fn a_gap_may_be_made_of_what_this_user_may_not_see() {
    let mut c = at(10);
    assert_eq!(ids(&c.live(e(20, 15))), [0; 0]);
    assert_eq!(c.want(), Some(Want::After(MsgId(10))));
    assert_eq!(ids(&c.page(page(&[], false), POLICY)), [20], "15 is hidden");
    assert!(c.is_whole());
}

#[test]
fn an_answer_does_not_speak_for_what_came_after_the_question() {
    let mut c = at(10);
    c.live(e(20, 15));
    assert_eq!(c.want(), Some(Want::After(MsgId(10))));
    c.live(e(40, 30));
    assert_eq!(ids(&c.page(page(&[(20, 15)], false), POLICY)), [20]);
    assert_eq!(c.want(), Some(Want::After(MsgId(20))), "30 is still to be asked for");
    assert_eq!(ids(&c.page(page(&[(30, 20), (40, 30)], false), POLICY)), [30, 40]);
    assert!(c.is_whole());
}

#[test]
fn nothing_passes_a_hole() {
    let mut c = at(10);
    let holed = Page { holes: vec![(MsgId(20), MsgId(30))], ..page(&[(40, 30), (50, 40)], false) };
    let step = c.newest(holed.clone(), POLICY);
    assert!(step.deliver.is_empty() && step.later, "ask again, but not at once");
    assert_eq!(c.cursor(), Some(MsgId(10)));
    assert_eq!(c.want(), Some(Want::Before(MsgId(40))));
    let step = c.page(Page { holes: vec![(MsgId(20), MsgId(30))], ..page(&[(15, 10)], false) }, POLICY);
    assert!(step.deliver.is_empty() && step.later);
    assert_eq!(ids(&c.page(page(&[(15, 10), (25, 15), (30, 25)], false), POLICY)), [15, 25, 30, 40, 50]);
    // Upwards, what lies below the hole is good.
    c.live(e(90, 80));
    c.want();
    let step = c.page(Page { holes: vec![(MsgId(70), MsgId(75))], ..page(&[(60, 50), (80, 60)], false) }, POLICY);
    assert_eq!(ids(&step), [60]);
    assert!(step.later);
}

#[test]
fn beyond_the_policy_is_skipped_and_said() {
    let mut c = at(10);
    let policy = Policy { max_fill: Most::count(3), floor: None };
    c.newest(page(&[(80, 70), (90, 80)], false), policy);
    let step = c.page(page(&[(60, 50), (70, 60)], true), policy);
    assert_eq!(step.skipped, Some((MsgId(10), MsgId(60))));
    assert_eq!(ids(&step), [60, 70, 80, 90]);
}

/// A message of the longest text is 60 kB in JSON, and a page of them has three.
fn long(id: u64) -> Event {
    Event { body: Body::text("\0".repeat(limits::TEXT_CHARS)), ..e(id, id - 1) }
}

#[test]
fn a_backlog_of_long_messages_ends_by_its_bytes() {
    let mut c = at(10);
    let few = |below: u64| (below - 3..below).map(long).collect::<Vec<_>>();
    let run = |below| Page { prev: MsgId(below - 4), events: few(below), more: false, ..Page::default() };
    let mut step = c.newest(run(5_000), POLICY);
    let mut asked = 0;
    while let Some(Want::Before(below)) = c.want() {
        step = c.page(run(below.0), POLICY);
        asked += 1;
    }
    let bytes: usize = step.deliver.iter().map(size::json).sum();
    assert!((FILL.bytes..FILL.bytes + 4 * 62_000).contains(&bytes), "{bytes} after {asked} pages");
    let first = step.deliver[0].id;
    assert_eq!(step.skipped, Some((MsgId(10), first)), "what lies below is said");
    assert!(step.deliver.windows(2).all(|w| w[0].id < w[1].id) && c.cursor() == Some(MsgId(4_999)) && c.is_whole());
}

#[test]
fn long_messages_that_are_held_end_by_their_bytes_and_are_asked_for_again() {
    let mut c = at(10);
    c.newest(page(&[(50, 40)], false), POLICY);
    c.want();
    (51..=90).for_each(|id| drop(c.live(long(id))));
    let held = match &c.work {
        Work::Fill { held, .. } => held.events.iter().map(size::json).sum::<usize>(),
        _ => panic!("it waits for what is below 50"),
    };
    assert!(held < HELD.bytes + 62_000, "{held}");
    assert_eq!(ids(&c.page(page(&[(40, 10)], false), POLICY)), [40, 50]);
    assert_eq!(c.want(), Some(Want::After(MsgId(50))));
}

#[test]
fn a_thread_never_seen() {
    let mut new_device = Chain::default();
    assert_eq!(
        ids(&new_device.newest(page(&[(40, 30), (50, 40)], false), POLICY)),
        [40, 50],
        "the newest page is all it gets"
    );
    let mut live_first = Chain::default();
    assert_eq!(ids(&live_first.live(e(50, 40))), [50]);

    // In sync at the time of event 25: what is older was never news, what is newer is fetched.
    let policy = Policy { max_fill: FILL, floor: Some(1_000_025) };
    let mut c = Chain::default();
    c.newest(page(&[(40, 30), (50, 40)], false), policy);
    assert_eq!(c.want(), Some(Want::Before(MsgId(40))));
    assert_eq!(ids(&c.page(page(&[(20, 10), (30, 20)], true), policy)), [30, 40, 50]);
}

#[test]
fn refused_pages_end_the_waiting() {
    let mut c = at(10);
    c.newest(page(&[(50, 40)], false), POLICY);
    let step = c.refused(POLICY);
    assert_eq!((ids(&step), step.skipped), (vec![50], Some((MsgId(10), MsgId(50)))));
    c.live(e(70, 60));
    c.want();
    assert_eq!(ids(&c.refused(POLICY)), [70]);
    assert!(c.is_whole());
}

#[test]
fn too_much_held_is_dropped_and_asked_for_again() {
    let mut c = at(10);
    c.newest(page(&[(50, 40)], false), POLICY);
    c.want();
    for id in 51..=1_060 {
        c.live(e(id, id - 1));
    }
    assert_eq!(
        ids(&c.page(page(&[(40, 10)], false), POLICY)),
        [40, 50],
        "some were dropped: what is held does not follow"
    );
    assert_eq!(c.want(), Some(Want::After(MsgId(50))));
}
