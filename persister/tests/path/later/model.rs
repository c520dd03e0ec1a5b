//! What everybody has to read, and what they get.

use super::*;

/// What everybody has to read, worked out from the whole log in the simplest way.
pub struct Model {
    pub rows: Vec<Row>,
    /// Recalls by who was admin or owner when they were written.
    powers: Vec<MsgId>,
}

impl Model {
    pub fn new(rows: Vec<Row>) -> Self {
        let (mut admins, mut powers) = (vec![], Vec::new());
        for row in &rows {
            match row.kind {
                Kind::GroupCreated => admins.push(row.from.clone()),
                Kind::RoleChanged => {
                    admins.retain(|u| !row.body.users.contains(u));
                    if row.body.role >= Some(Role::Admin) {
                        admins.extend(row.body.users.clone());
                    }
                }
                Kind::Recall if admins.contains(&row.from) => powers.push(row.id),
                _ => {}
            }
        }
        Self { rows, powers }
    }

    /// Is there a recall of `target` that counts against something written by `author`?
    pub fn recalled(&self, target: MsgId, author: &UserId) -> bool {
        let counts = |r: &&Row| r.kind == Kind::Recall && r.body.target == Some(target) && r.id > target;
        self.rows.iter().filter(counts).any(|r| r.from == *author || self.powers.contains(&r.id))
    }

    /// Kind and text of a row in any page.
    pub fn shows(&self, row: &Row) -> (Kind, Option<String>) {
        match row.kind {
            Kind::Text if self.recalled(row.id, &row.from) => (Kind::Recall, None),
            Kind::Text => {
                let edits = self
                    .rows
                    .iter()
                    .filter(|e| e.kind == Kind::Edit && e.body.target == Some(row.id) && e.from == row.from);
                (Kind::Text, edits.filter(|e| e.id > row.id).last().unwrap_or(row).body.text.clone())
            }
            Kind::Edit if row.body.target.is_some_and(|t| self.recalled(t, &row.from)) => (Kind::Edit, None),
            kind => (kind, row.body.text.clone()),
        }
    }

    pub fn is_shown(&self, event: &Event) -> Result<(), String> {
        let row =
            self.rows.iter().find(|r| r.id == event.id).ok_or_else(|| format!("{} is not of this thread", event.id))?;
        let (kind, text) = self.shows(row);
        // An edit of somebody else's message, or of none, says nothing that was taken back.
        let of_own = |e: &Row| self.rows.iter().any(|r| Some(r.id) == e.body.target && r.from == e.from);
        if (event.kind, &event.body.text) != (kind, &text) && (row.kind != Kind::Edit || of_own(row)) {
            return Err(format!("{} is {:?} {:?}, not {kind:?} {text:?}", event.id, event.kind, event.body.text));
        }
        Ok(())
    }

    /// Messages of others behind `read`, as far as they are counted.
    pub fn unread(&self, reader: &UserId, read: MsgId) -> u8 {
        let is_message = |r: &&Row| r.kind == Kind::Text && !self.recalled(r.id, &r.from);
        let behind = self.rows.iter().filter(|r| r.id > read && r.from != *reader).filter(is_message).count();
        behind.min(usize::from(natterjack_protocol::limits::UNREAD_MAX)) as u8
    }

    pub fn ids(&self, at: PageStart, limit: usize) -> Vec<MsgId> {
        let all: Vec<MsgId> = self.rows.iter().map(|r| r.id).collect();
        let down = |hi: MsgId, n: usize| {
            let below = &all[..all.partition_point(|i| *i < hi)];
            below[below.len().saturating_sub(n)..].to_vec()
        };
        let up = |lo: MsgId, n: usize| all.iter().copied().filter(|i| *i >= lo).take(n).collect::<Vec<_>>();
        match at {
            PageStart::Newest => down(MsgId::MAX, limit),
            PageStart::Before(id) => down(id, limit),
            PageStart::After(id) => up(id.next(), limit),
            PageStart::Around(id) => {
                let newer = up(id.next(), limit / 2);
                [down(id.next(), limit - newer.len()), newer].concat()
            }
            PageStart::Time(ts) => self.rows.iter().find(|r| r.ts >= ts).map_or(Vec::new(), |r| up(r.id, limit)),
        }
    }

    /// `whole`: the archive answers, so nothing may be missing.
    pub fn check(&self, at: PageStart, limit: usize, page: &Page, whole: bool) -> Result<(), String> {
        page.events.iter().try_for_each(|e| self.is_shown(e))?;
        let got = ids(&page.events);
        let want = self.ids(at, limit);
        if whole && (got != want || !page.holes.is_empty()) {
            return Err(format!("{got:?} with holes {:?}, not {want:?}", page.holes));
        }
        let (Some(first), Some(last)) = (got.first(), got.last()) else { return Ok(()) };
        let in_a_hole = |id: &MsgId| page.holes.iter().any(|(a, b)| a <= id && id <= b);
        let lost: Vec<_> = self
            .rows
            .iter()
            .map(|r| r.id)
            .filter(|i| first < i && i < last && !got.contains(i) && !in_a_hole(i))
            .collect();
        if lost.is_empty() {
            Ok(())
        } else {
            Err(format!("{lost:?} are neither shown nor in a hole of {:?}", page.holes))
        }
    }
}
