//! The chain of a thread: does an event follow what is already shown, is it old, or is something missing?

use crate::ids::MsgId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainLink {
    /// Show it.
    Next,
    /// Already shown, or before the point at which this reader attached.
    Old,
    /// Fetch what lies after `after` and before the event, show that first.
    Gap { after: MsgId },
}

/// `last` is the newest event shown in this thread (none: nothing yet), `base` the frontier at which the reader
/// attached: for a thread without `last`, everything up to `base` came by pages or will never be asked for.
///
/// `prev` = 0 means that nothing happened in the thread within the horizon of the channel service.
pub fn link(last: Option<MsgId>, base: MsgId, prev: MsgId, id: MsgId) -> ChainLink {
    let seen = last.unwrap_or(base);
    if id <= seen {
        ChainLink::Old
    } else if prev <= seen {
        ChainLink::Next
    } else {
        ChainLink::Gap { after: seen }
    }
}

/// Compares a head (the thread's newest id) with what is shown: what is missing, if anything.
pub fn missing(last: Option<MsgId>, base: MsgId, head: MsgId) -> Option<MsgId> {
    let seen = last.unwrap_or(base);
    (head > seen).then_some(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_thread() {
        let l = |prev, id| link(Some(MsgId(10)), MsgId(5), MsgId(prev), MsgId(id));
        assert_eq!(l(10, 11), ChainLink::Next);
        assert_eq!(l(0, 11), ChainLink::Next, "the channel's memory is shorter than ours");
        assert_eq!(l(9, 10), ChainLink::Old);
        assert_eq!(l(11, 12), ChainLink::Gap { after: MsgId(10) });
    }

    /// An idle DM: its first message is lost, the second names a predecessor beyond the base.
    #[test]
    fn unknown_thread_is_judged_by_the_base() {
        let l = |prev, id| link(None, MsgId(100), MsgId(prev), MsgId(id));
        assert_eq!(l(0, 101), ChainLink::Next);
        assert_eq!(l(90, 101), ChainLink::Next);
        assert_eq!(l(101, 102), ChainLink::Gap { after: MsgId(100) });
        assert_eq!(l(0, 100), ChainLink::Old);
        assert_eq!(missing(None, MsgId(100), MsgId(101)), Some(MsgId(100)));
        assert_eq!(missing(Some(MsgId(101)), MsgId(100), MsgId(101)), None);
    }
}
