//! Before step 4: where in the log to begin. In: the position that the last holder left, and what the log has now. Out:
//! where the reader starts, and up to which id its entries only fill the map. Pure.

use natterjack_nats::{Position, ReadFrom};
use natterjack_protocol::{MsgId, Times};

/// What the log has, by its leader.
#[derive(Debug, Clone, Copy)]
pub struct LogState {
    pub first: MsgId,
    /// One less than `first` if it is empty.
    pub last: MsgId,
    pub now_ms: u64,
    pub created_ms: u64,
    /// Nothing will be added.
    pub closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartPlan {
    pub from: ReadFrom,
    /// Entries up to here were published by somebody and only fill the map.
    pub published: Position,
    /// Something is wrong with log or position, in words for an alarm.
    pub alarm: Option<&'static str>,
}

impl StartPlan {
    /// Nothing up to here has to be read.
    pub fn known(&self) -> MsgId {
        if let ReadFrom::After(id) = self.from { id } else { MsgId::NONE }
    }
}

/// `position`: the last entry known to be published, as its publisher left it.
pub fn choose(position: Option<Position>, log: LogState, horizon_ms: u64) -> StartPlan {
    let before_first = MsgId(log.first.0.saturating_sub(1));
    let whole = |published, alarm| StartPlan { from: ReadFrom::After(before_first), published, alarm };
    match position {
        // Nobody ever published: everything that is there is owed to somebody.
        None => whole(Position { id: before_first, ts: 0 }, None),
        // Over, and its end was lost before: what it has left is behind a mark that lies below the position.
        Some(p) if p.id > log.last => whole(Position { id: log.last, ts: 0 }, None),
        Some(p) if p.id < before_first => {
            whole(Position { id: before_first, ts: p.ts }, Some("the log dropped entries before they were published"))
        }
        // The entry itself has aged out, and all that is left comes after it.
        Some(p) if p.id == before_first => whole(p, None),
        // Over, and so long ago that nobody asks for its threads' last ids.
        Some(p) if log.closed && p.id >= log.last && p.ts + horizon_ms < log.now_ms => {
            StartPlan { from: ReadFrom::After(log.last), published: p, alarm: None }
        }
        // As long as the horizon reaches to the beginning or beyond it: all of it, so that what was inherited fits on.
        Some(p) if p.ts.min(log.now_ms).saturating_sub(horizon_ms) <= log.created_ms => whole(p, None),
        Some(p) => StartPlan {
            from: ReadFrom::Time(p.ts.min(log.now_ms).saturating_sub(horizon_ms)),
            published: p,
            alarm: None,
        },
    }
}

/// Where the log's clock must have stood, if it was set back while nobody looked; otherwise 0.
pub fn set_back(published: Position, now_ms: u64, times: &Times) -> u64 {
    let ahead = published.ts > now_ms + times.clock_slack.as_millis() as u64;
    if ahead { published.ts } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogState =
        LogState { first: MsgId(100), last: MsgId(200), now_ms: 1_000_000, created_ms: 0, closed: false };

    fn at(id: u64, ts: u64) -> StartPlan {
        choose(Some(pos(id, ts)), LOG, 120_000)
    }

    fn pos(id: u64, ts: u64) -> Position {
        Position { id: MsgId(id), ts }
    }

    #[test]
    fn the_map_is_warm_before_the_first_event() {
        assert_eq!(
            at(150, 900_000),
            StartPlan { from: ReadFrom::Time(780_000), published: pos(150, 900_000), alarm: None }
        );
    }

    /// A position written under another node's clock must not move the start into the future.
    #[test]
    fn never_later_than_now() {
        assert_eq!(at(200, 2_000_000).from, ReadFrom::Time(880_000));
    }

    #[test]
    fn a_position_that_is_ahead_of_the_clock_shows_that_it_was_set_back() {
        let times = Times::default();
        let slack = times.clock_slack.as_millis() as u64;
        assert_eq!(set_back(pos(200, 1_000_000 + slack), 1_000_000, &times), 0);
        assert_eq!(set_back(pos(200, 1_000_001 + slack), 1_000_000, &times), 1_000_001 + slack);
    }

    #[test]
    fn without_a_position_everything_is_published() {
        assert_eq!(
            choose(None, LOG, 120_000),
            StartPlan { from: ReadFrom::After(MsgId(99)), published: pos(99, 0), alarm: None }
        );
        let empty = LogState { first: MsgId(100), last: MsgId(99), now_ms: 5, ..LOG };
        assert_eq!(choose(None, empty, 1).from, ReadFrom::After(MsgId(99)));
        assert_eq!(
            choose(Some(pos(99, 7)), empty, 1),
            StartPlan { from: ReadFrom::After(MsgId(99)), published: pos(99, 7), alarm: None }
        );
    }

    #[test]
    fn a_gap_between_position_and_log_is_said_aloud() {
        let s = at(50, 3);
        assert_eq!((s.from, s.published.id), (ReadFrom::After(MsgId(99)), MsgId(99)));
        assert!(s.alarm.is_some());
        assert!(at(99, 3).alarm.is_none(), "the next entry is the log's first");
    }

    #[test]
    fn a_young_generation_is_read_from_its_beginning_and_one_that_is_over_not_at_all() {
        let young = LogState { created_ms: 850_000, ..LOG };
        let plan = choose(Some(pos(150, 900_000)), young, 120_000);
        assert_eq!(plan, StartPlan { from: ReadFrom::After(MsgId(99)), published: pos(150, 900_000), alarm: None });
        assert_eq!(choose(Some(pos(150, 980_000)), young, 120_000).from, ReadFrom::Time(860_000));
        let over = LogState { closed: true, ..LOG };
        assert_eq!(choose(Some(pos(200, 800_000)), over, 120_000).from, ReadFrom::After(MsgId(200)));
        for still_of_use in [pos(199, 800_000), pos(200, 900_000)] {
            assert!(matches!(choose(Some(still_of_use), over, 120_000).from, ReadFrom::Time(_)));
        }
    }

    #[test]
    fn what_a_generation_that_lost_its_end_has_left_fills_the_map() {
        let s = at(250, 3);
        assert_eq!((s.from, s.published.id), (ReadFrom::After(MsgId(99)), MsgId(200)));
    }
}
