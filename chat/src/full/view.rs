//! The model on a screen (pure): every cell from what the model knows, at any size.

mod list;
mod status;

use std::{collections::VecDeque, time::Instant};

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Position, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    layout::{Areas, text_width},
    model::{Model, Panel},
    threads::ThreadRow,
    wrap::cut,
};
use crate::{
    presence::{presence_mark, presence_words},
    screen::{Tone, printable},
};

const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

pub fn draw(model: &Model, frame: &mut Frame, now: Instant) {
    let areas = model.areas();
    if frame.area() != Rect::new(0, 0, model.size.0, model.size.1) {
        // Resized this very moment: the next frame is right.
        return;
    }
    let buf = frame.buffer_mut();
    list::draw(model, areas.list, buf);
    for y in areas.rule.rows() {
        buf.set_style(y, FAINT);
        buf.set_stringn(y.x, y.y, "│", usize::from(y.width), FAINT);
    }
    match (&model.panel, model.here()) {
        (Some(panel), _) => panel_in(panel, &areas, buf),
        (None, Some(here)) => {
            title(model, here, areas.title, buf);
            messages(model, here, &areas, buf);
        }
        (None, None) => nowhere(&areas, buf),
    }
    status::hint(model, areas.hint, buf);
    status::line(model, areas.status, areas.hint.is_empty(), now, buf);
    if let Some(cursor) = input(model, areas.input, buf) {
        frame.set_cursor_position(cursor);
    }
}

fn put(buf: &mut Buffer, area: Rect, row: u16, line: &Line) {
    if row < area.height {
        buf.set_line(area.x, area.y + row, line, area.width);
    }
}

fn title(model: &Model, here: &ThreadRow, area: Rect, buf: &mut Buffer) {
    let mut text = printable(&model.people.thread(&here.thread));
    if !here.open {
        text.push_str(" (read only)");
    }
    if let Some(peer) = model.peer_presence(&here.thread) {
        text.push_str(&format!(" · {} {}", presence_mark(peer.state), presence_words(peer)));
    }
    buf.set_style(area, Style::new().add_modifier(Modifier::REVERSED));
    put(buf, area, 0, &Line::styled(format!(" {}", cut(&text, usize::from(area.width).saturating_sub(2))), BOLD));
}

/// From the lowest line upwards, until the pane is full.
fn messages(model: &Model, here: &ThreadRow, areas: &Areas, buf: &mut Buffer) {
    let area = areas.messages;
    let height = usize::from(area.height);
    let look = model.in_pane(here, areas);
    let (lowest, hidden) = here.anchor.lowest(&here.timeline, |k| look.height(k));
    let mut lines = look.lines(lowest);
    lines.truncate(lines.len().saturating_sub(hidden));
    let mut lines = VecDeque::from(lines);
    let mut at = lowest;
    while lines.len() < height {
        let Some(before) = here.timeline.before(at) else { break };
        at = before;
        for line in look.lines(at).into_iter().rev() {
            lines.push_front(line);
        }
    }
    let above = lines.len().saturating_sub(height);
    let free = area.height.saturating_sub(u16::try_from(lines.len()).unwrap_or(u16::MAX));
    for (row, line) in (free..).zip(lines.iter().skip(above)) {
        put(buf, area, row, line);
    }
}

fn panel_in(panel: &Panel, areas: &Areas, buf: &mut Buffer) {
    let title =
        format!(" {} · Esc closes", cut(&printable(&panel.title), usize::from(areas.title.width).saturating_sub(15)));
    buf.set_style(areas.title, Style::new().add_modifier(Modifier::REVERSED));
    put(buf, areas.title, 0, &Line::styled(title, BOLD));
    let lines = panel.lines(usize::from(areas.messages.width).max(1));
    // After a resize the last page is shorter than where somebody was.
    let top = panel.top.min(lines.len().saturating_sub(1));
    for (row, (tone, line)) in (0..areas.messages.height).zip(lines.into_iter().skip(top)) {
        put(buf, areas.messages, row, &Line::styled(line, style(tone)));
    }
}

fn nowhere(areas: &Areas, buf: &mut Buffer) {
    let lines = ["Natterjack", "", "/to NAME   write to somebody", "/help      all commands and keys"];
    for (row, line) in (0..).zip(lines) {
        put(buf, areas.messages, row, &Line::styled(line, FAINT));
    }
}

/// Where the cursor stands.
fn input(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let shown = model.editor.shown(usize::from(text_width(area.width)));
    let height = usize::from(area.height);
    // The cursor's line is always seen.
    let top = (shown.row + 1).saturating_sub(height).min(shown.lines.len().saturating_sub(height));
    for (row, (i, text)) in (0..area.height).zip(shown.lines.iter().enumerate().skip(top)) {
        let mark = if i == 0 { "> " } else { "  " };
        put(buf, area, row, &Line::from(vec![Span::styled(mark, BOLD), Span::raw(text.as_str())]));
    }
    let x = area.x.checked_add(u16::try_from(shown.column + 2).ok()?)?;
    let y = area.y.checked_add(u16::try_from(shown.row.checked_sub(top)?).ok()?)?;
    area.contains(Position { x, y }).then_some(Position { x, y })
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Faint => FAINT,
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Bad => Style::new().fg(Color::LightRed),
    }
}

#[cfg(test)]
mod tests;
