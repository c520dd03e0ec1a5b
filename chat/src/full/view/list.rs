//! The threads on the left: name, what came while nobody looked, time of the last activity.

use natterjack_client::protocol::client::presence::PresenceState;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{BOLD, FAINT, put};
use crate::{
    day,
    full::{
        lines::minutes,
        model::Model,
        threads::ThreadRow,
        wrap::{cut, width},
    },
    presence::presence_mark,
    screen::printable,
};

pub fn draw(model: &Model, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let all = model.threads.sorted();
    let height = usize::from(area.height);
    let current = all.iter().position(|e| Some(&e.thread) == model.current.as_ref()).unwrap_or(0);
    // The current one is always seen.
    let top = (current + 1).saturating_sub(height);
    // Today is the day of the newest event that anybody wrote: the log's clock, not this machine's.
    let today = all.first().map_or(0, |e| day::number(e.active));
    for (row, entry) in (0..area.height).zip(all.into_iter().skip(top)) {
        let is_current = Some(&entry.thread) == model.current.as_ref();
        if is_current {
            buf.set_style(
                Rect::new(area.x, area.y + row, area.width, 1),
                Style::new().add_modifier(Modifier::REVERSED),
            );
        }
        put(buf, area, row, &line(model, entry, usize::from(area.width), today));
    }
}

fn line(model: &Model, entry: &ThreadRow, columns: usize, today: u64) -> Line<'static> {
    let unread = match entry.unread {
        0 if entry.settings.unread => " (•)".into(),
        0 => String::new(),
        n @ 1..=99 => format!(" ({n})"),
        _ => " (99+)".into(),
    };
    let when = when(entry.active, today);
    let dot = dot(model, entry);
    let room = columns.saturating_sub(2 + usize::from(dot.is_some()) * 2 + unread.len() + when.len() + 1);
    let name = cut(&format!("{}{}", marks(entry), printable(&model.people.thread(&entry.thread))), room);
    let gap = room.saturating_sub(width(&name)) + 1;
    let style = match (entry.open, entry.unread) {
        (false, _) => FAINT,
        (true, 0) => Style::new(),
        (true, _) => BOLD,
    };
    let mark =
        dot.map_or_else(|| Span::raw(""), |(mark, colour)| Span::styled(format!(" {mark}"), Style::new().fg(colour)));
    let spans = [
        mark,
        Span::styled(format!(" {name}"), style),
        Span::styled(unread, Style::new().fg(Color::LightRed).add_modifier(Modifier::BOLD)),
        Span::raw(" ".repeat(gap)),
        Span::styled(format!("{when} "), FAINT),
    ];
    Line::from(spans.to_vec())
}

/// What the user has set, before the name: pinned, muted, begun to write.
fn marks(entry: &ThreadRow) -> String {
    let set = &entry.settings;
    let begun = set.draft.is_some() || !entry.draft.is_empty();
    // A mute that ends is told apart by nobody who looks at a list.
    let marks = [(set.pinned, '^'), (set.muted_until > 0, '~'), (begun, '*')];
    let mut marks: String = marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
    if !marks.is_empty() {
        marks.push(' ');
    }
    marks
}

/// Of a conversation of two, as long as there is a connection: what is known from before it is old.
fn dot(model: &Model, entry: &ThreadRow) -> Option<(&'static str, Color)> {
    let state = model.peer_presence(&entry.thread)?.state;
    let colour = match state {
        PresenceState::Online => Color::Green,
        PresenceState::Away => Color::Yellow,
        PresenceState::Offline | PresenceState::Unknown => Color::DarkGray,
    };
    Some((presence_mark(state), colour))
}

/// The time on the newest day, else the day.
fn when(ts: u64, today: u64) -> String {
    match ts {
        0 => String::new(),
        _ if day::number(ts) == today => minutes(ts),
        _ => day::short(ts),
    }
}
