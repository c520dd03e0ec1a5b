//! What goes on: notices and who is typing above the input, the connection below it.

use std::time::Instant;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
    text::{Line, Span},
};

use super::{FAINT, put, style};
use crate::{
    full::{
        model::{ConnectionState, Model},
        wrap::{cut, width},
    },
    screen::printable,
};

/// A notice, else who is typing, else how to get to what is new.
pub fn hint(model: &Model, area: Rect, buf: &mut Buffer) {
    let columns = usize::from(area.width);
    let line = match (&model.notice, typing(model), model.here()) {
        (Some(notice), _, _) => Line::styled(cut(&printable(&notice.said.text), columns), style(notice.said.tone)),
        (None, Some(text), _) => Line::styled(cut(&printable(&text), columns), FAINT),
        (None, None, Some(here)) if !here.anchor.is_end() => {
            let new = if here.unread > 0 {
                format!("↓ {} new, Esc goes there", here.unread)
            } else {
                "↓ Esc goes to the end".into()
            };
            Line::styled(cut(&new, columns), Style::new().fg(Color::Yellow))
        }
        _ => return,
    };
    put(buf, area, 0, &line);
}

fn typing(model: &Model) -> Option<String> {
    let here = model.current.as_ref()?;
    let who: Vec<&str> =
        model.typing.keys().filter(|(t, _)| t == here).map(|(_, user)| model.people.user(user)).collect();
    match who.as_slice() {
        [] => None,
        [one] => Some(format!("{one} is typing…")),
        [one, two] => Some(format!("{one} and {two} are typing…")),
        many => Some(format!("{} people are typing…", many.len())),
    }
}

/// `with_notice`: there is no other place for one.
pub fn line(model: &Model, area: Rect, with_notice: bool, now: Instant, buf: &mut Buffer) {
    let columns = usize::from(area.width);
    if let (Some(notice), true) = (&model.notice, with_notice) {
        put(buf, area, 0, &Line::styled(cut(&printable(&notice.said.text), columns), style(notice.said.tone)));
        return;
    }
    let (mark, colour, text) = link(model, now);
    let mut left = format!("{text} · {}", printable(model.people.user(&model.people.me)));
    match model.threads.unsent() {
        0 => {}
        n => left.push_str(&format!(" · {n} to be sent")),
    }
    let left = cut(&left, columns.saturating_sub(2));
    let help = "F1 help · Ctrl-C quit";
    let free = columns.saturating_sub(2 + width(&left) + width(help));
    let mut spans = vec![Span::styled(format!("{mark} "), Style::new().fg(colour)), Span::styled(left, FAINT)];
    if free >= 2 {
        spans.push(Span::styled(format!("{}{help}", " ".repeat(free)), FAINT));
    }
    put(buf, area, 0, &Line::from(spans));
}

fn link(model: &Model, now: Instant) -> (&'static str, Color, String) {
    match &model.link {
        ConnectionState::Connecting => ("○", Color::Yellow, "connecting…".into()),
        ConnectionState::Catching { edge } => ("◌", Color::Yellow, format!("{edge}, fetching what was missed…")),
        ConnectionState::Live { .. } if model.degraded => {
            ("●", Color::Yellow, "the server has no connection to the log, messages wait".into())
        }
        ConnectionState::Live { edge } => ("●", Color::Green, edge.clone()),
        ConnectionState::Displaced(text) => ("○", Color::LightRed, format!("{text}: /here takes over again")),
        ConnectionState::Waiting { until } => {
            let seconds = until.saturating_duration_since(now).as_secs_f32().ceil();
            let text = if seconds > 0.0 {
                format!("not connected, again in {seconds} s")
            } else {
                "not connected, trying…".into()
            };
            ("○", Color::LightRed, text)
        }
    }
}
