//! Where somebody looks in a thread (pure): an item and how much of it is below the edge, so that nothing moves when
//! messages come in above or below.

use super::timeline::{Key, Timeline};

/// None: the end, and it stays there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Anchor(Option<At>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    /// The lowest item that is seen.
    key: Key,
    /// Lines of it below the edge.
    cut: usize,
}

impl Anchor {
    pub fn is_end(self) -> bool {
        self.0.is_none()
    }

    /// The lowest item on the screen, and how many of its lines are below it.
    pub fn lowest(self, timeline: &Timeline, height: impl Fn(Key) -> usize) -> (Key, usize) {
        match self.0 {
            None => (timeline.last_key(), 0),
            Some(at) => {
                let key = timeline.nearest(at.key);
                // It may have become shorter: with another width, for instance.
                (key, at.cut.min(height(key).saturating_sub(1)))
            }
        }
    }

    /// Not further than the first line at the top of `pane` lines.
    pub fn up(self, lines: usize, pane: usize, timeline: &Timeline, height: impl Fn(Key) -> usize) -> Self {
        let (mut key, mut cut) = self.lowest(timeline, &height);
        cut += lines;
        while cut >= height(key) {
            let Some(before) = timeline.before(key) else { break };
            cut -= height(key);
            key = before;
        }
        cut = cut.min(height(key));
        let mut above = height(key).saturating_sub(cut);
        let mut at = key;
        while above < pane {
            let Some(before) = timeline.before(at) else {
                return Self(Some(At { key, cut })).down(pane - above, timeline, height);
            };
            at = before;
            above += height(at);
        }
        Self(Some(At { key, cut }))
    }

    pub fn down(self, lines: usize, timeline: &Timeline, height: impl Fn(Key) -> usize) -> Self {
        let Some(At { key, mut cut }) = self.0 else { return self };
        let (mut key, mut left) = (timeline.nearest(key), lines);
        cut = cut.min(height(key));
        while left > cut {
            let Some(after) = timeline.after(key) else { return Self::default() };
            left -= cut;
            key = after;
            cut = height(key);
        }
        cut -= left;
        // What has no line of its own is no reason not to be at the end.
        let mut below = timeline.after(key);
        while let Some(k) = below.filter(|k| height(*k) == 0) {
            below = timeline.after(k);
        }
        if cut == 0 && below.is_none() { Self::default() } else { Self(Some(At { key, cut })) }
    }
}
