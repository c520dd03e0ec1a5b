//! One item of a thread as lines of a given width (pure): the same for whoever counts them (scrolling) and for whoever
//! draws them.

use natterjack_client::protocol::{Event, Kind, MsgId, UserId};
use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    people::NameBook,
    timeline::{Delivery, Key, Older, PendingMessage, Timeline, TimelineItem},
    wrap::{cut, wrap},
};
use crate::{
    day,
    screen::{printable, words},
};

/// What stands before the text of a message.
const INDENT: &str = "  ";
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const COLOURS: [Color; 6] =
    [Color::Cyan, Color::Yellow, Color::Magenta, Color::Blue, Color::LightRed, Color::LightCyan];

/// What the lines of an item depend on beside the item.
pub struct Look<'a> {
    pub people: &'a NameBook,
    pub timeline: &'a Timeline,
    pub width: usize,
    /// Is there somebody to ask for older messages?
    pub online: bool,
    /// Up to here the other one of a conversation of two has it, and has read it.
    pub got: MsgId,
    pub read: MsgId,
}

impl Look<'_> {
    pub fn height(&self, key: Key) -> usize {
        self.lines(key).len()
    }

    pub fn lines(&self, key: Key) -> Vec<Line<'static>> {
        match self.timeline.item(key) {
            None => Vec::new(),
            Some(TimelineItem::Top(older)) => self.top(older),
            Some(TimelineItem::Gap) => self.faint(&format!("╌╌ messages are missing here: {} ╌╌", self.fetching())),
            Some(TimelineItem::Day(ts)) => self.rule(&format!("{} (UTC)", day::name(ts)), FAINT),
            Some(TimelineItem::New) => self.rule("new", Style::new().fg(Color::LightRed)),
            Some(TimelineItem::Event { event, head }) => self.event(event, head),
            Some(TimelineItem::Pending { pending, head }) => self.pending(pending, head),
        }
    }

    fn top(&self, older: &Older) -> Vec<Line<'static>> {
        match older {
            Older::Beginning if self.timeline.is_empty() => self.faint("nothing yet: write the first message"),
            Older::Beginning => self.faint("╌╌ this is the beginning ╌╌"),
            Older::Refused(why) => self.faint(&format!("older messages: {why}")),
            Older::Unknown => self.faint(&format!("older messages: {}", self.fetching())),
        }
    }

    fn fetching(&self) -> String {
        match &self.timeline.trouble {
            _ if !self.online => "they come with the connection".into(),
            Some(trouble) => format!("not now ({}); trying again", trouble.why),
            None => "fetching…".into(),
        }
    }

    fn event(&self, event: &Event, head: bool) -> Vec<Line<'static>> {
        if self.timeline.is_folded(event) {
            return Vec::new();
        }
        let who = self.people.user(&event.from);
        let recalled = event.kind == Kind::Recall && event.body.target.is_none();
        if !event.kind.is_message() && !recalled {
            let text = words(event, who, &self.people.users(&event.body.users));
            return self.faint(&format!("{} {text}", minutes(event.ts)));
        }
        let mut lines = Vec::new();
        if head {
            lines.push(self.head(&event.from, Some(event.ts)));
        }
        let (text, style) = match event.kind {
            Kind::Recall => ("(taken back)".to_owned(), FAINT),
            Kind::Text => (event.body.text.clone().unwrap_or_default(), Style::new()),
            Kind::Emoji => (event.body.emoji.clone().unwrap_or_default(), Style::new()),
            _ => (words(event, who, ""), Style::new()),
        };
        let mine = event.from == self.people.me && !recalled;
        let edited = self.timeline.ops.is_edited(event.id) && !recalled;
        let ticks = match event.id {
            _ if !mine => "",
            id if id <= self.read => " ✓✓ read",
            id if id <= self.got => " ✓✓",
            _ => " ✓",
        };
        let mark = format!("{}{ticks}", if edited { " (edited)" } else { "" });
        lines.extend(self.body(&text, style, Span::styled(mark, FAINT)));
        if let Some(reactions) = self.timeline.ops.reactions(event.id) {
            lines.extend(self.body(&reactions, FAINT, Span::default()));
        }
        lines
    }

    fn pending(&self, pending: &PendingMessage, head: bool) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if head {
            lines.push(self.head(&self.people.me, None));
        }
        let text = match pending.kind {
            Kind::Edit => format!("(changes a message to) {}", pending.text),
            Kind::Recall => "(takes a message back)".to_owned(),
            _ => pending.text.clone(),
        };
        match &pending.state {
            Delivery::Waiting => lines.extend(self.body(&text, FAINT, Span::styled(" …", FAINT))),
            Delivery::Sent(_) => lines.extend(self.body(&text, Style::new(), Span::styled(" ✓", FAINT))),
            Delivery::Refused(why) => {
                lines.extend(self.body(&text, FAINT, Span::default()));
                lines.extend(self.body(&format!("✗ {why}"), Style::new().fg(Color::Red), Span::default()));
            }
        }
        lines
    }

    fn head(&self, who: &UserId, ts: Option<u64>) -> Line<'static> {
        let time = ts.map_or_else(|| "now".to_owned(), minutes);
        let name = cut(&printable(self.people.user(who)), self.width.saturating_sub(time.len() + 2));
        let colour = if *who == self.people.me { Color::Green } else { colour(who) };
        Line::from(vec![
            Span::styled(name, Style::new().fg(colour).add_modifier(Modifier::BOLD)),
            Span::raw(INDENT),
            Span::styled(time, FAINT),
        ])
    }

    /// Indented; `mark` stands behind the last line and always fits there.
    fn body(&self, text: &str, style: Style, mark: Span<'static>) -> Vec<Line<'static>> {
        let (text, room) = (printable(text), self.width.saturating_sub(INDENT.len()));
        let mut lines: Vec<_> = wrap(&text, room)
            .into_iter()
            .map(|l| Line::from(vec![Span::raw(INDENT), Span::styled(l.to_owned(), style)]))
            .collect();
        if !mark.content.is_empty() {
            match lines.last_mut() {
                Some(last) if last.width() + mark.width() <= self.width => last.push_span(mark),
                _ => lines.push(Line::from(vec![
                    Span::raw(INDENT),
                    Span::styled(mark.content.trim_start().to_owned(), mark.style),
                ])),
            }
        }
        lines
    }

    fn faint(&self, text: &str) -> Vec<Line<'static>> {
        wrap(&printable(text), self.width).into_iter().map(|l| Line::styled(l.to_owned(), FAINT)).collect()
    }

    fn rule(&self, text: &str, style: Style) -> Vec<Line<'static>> {
        vec![Line::styled(cut(&format!("── {text} ──"), self.width), style)]
    }
}

/// `21:05`.
pub fn minutes(ts: u64) -> String {
    day::clock(ts)[..5].to_owned()
}

fn colour(user: &UserId) -> Color {
    let sum = user.as_str().bytes().fold(0usize, |sum, b| sum.wrapping_mul(31).wrapping_add(usize::from(b)));
    COLOURS[sum % COLOURS.len()]
}
