//! The chat's output: lines for people, or one JSON object per line for scripts, on standard output; kept for the full
//! screen to show.

use std::io::{IsTerminal, Write};

use natterjack_client::protocol::{
    Event, Kind, Thread,
    client::frame::{DeviceClass, OtherDevice},
    log::Role,
};
use serde_json::{Value, json};

use super::day;

pub struct Screen {
    to: To,
    /// The day of the last message shown.
    day: Option<u64>,
}

enum To {
    /// Colours only where somebody looks.
    People {
        terminal: bool,
    },
    Scripts,
    /// Until it is taken.
    Kept(Vec<Said>),
}

/// A line (or several) for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub tone: Tone,
    pub text: String,
}

/// How a line looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Faint,
    Good,
    Bad,
}

impl Screen {
    pub fn new(json: bool) -> Self {
        let to = if json { To::Scripts } else { To::People { terminal: std::io::stdout().is_terminal() } };
        Self { to, day: None }
    }

    pub fn kept() -> Self {
        Self { to: To::Kept(Vec::new()), day: None }
    }

    /// What was said since the last time; only what is kept can be taken.
    pub fn take(&mut self) -> Vec<Said> {
        self.day = None;
        match &mut self.to {
            To::Kept(said) => std::mem::take(said),
            To::People { .. } | To::Scripts => Vec::new(),
        }
    }

    pub fn is_json(&self) -> bool {
        matches!(self.to, To::Scripts)
    }

    /// One thing that happened: a line for people (none: only scripts care), an object with this `type` for scripts.
    pub fn say(&mut self, tone: Tone, kind: &str, text: Option<String>, mut object: Value) {
        match (&mut self.to, text) {
            (To::Scripts, _) => {
                object["type"] = json!(kind);
                write(&escaped(&object.to_string()));
            }
            (_, None) => {}
            (To::Kept(said), Some(text)) => said.push(Said { tone, text }),
            (To::People { terminal }, Some(text)) => {
                let text = printable(&text);
                let colour = match tone {
                    _ if !*terminal => None,
                    Tone::Plain => None,
                    Tone::Faint => Some(2),
                    Tone::Good => Some(32),
                    Tone::Bad => Some(31),
                };
                match colour {
                    None => write(&text),
                    Some(c) => write(&format!("\x1b[{c}m{text}\x1b[0m")),
                }
            }
        }
    }

    /// A message of a thread, as `who` wrote it in `place`.
    pub fn message(&mut self, event: &Event, who: &str, place: &str, text: String) {
        if self.day != Some(day::number(event.ts)) {
            self.day = Some(day::number(event.ts));
            self.say_text(Tone::Faint, format!("── {} (UTC) ──", day::name(event.ts)));
        }
        let line = format!("{} [{place}] {}", day::clock(event.ts), text.replace('\n', "\n    "));
        let tone = if event.kind.is_message() { Tone::Plain } else { Tone::Faint };
        let mut object = json!(event);
        object["name"] = json!(who);
        object["place"] = json!(place);
        self.say(tone, "message", Some(line), object);
    }

    /// Only for people: scripts have it in another form.
    pub fn say_text(&mut self, tone: Tone, text: String) {
        if !self.is_json() {
            self.say(tone, "", Some(text), Value::Null);
        }
    }

    pub fn problem(&mut self, text: &str) {
        self.say(Tone::Bad, "problem", Some(format!("! {text}")), json!({ "message": text }));
    }

    pub fn closing(&mut self, unsent: usize, kept: bool) {
        let text = match (unsent, kept) {
            (0, _) => None,
            (n, true) => Some(format!("{n} not sent; they wait for the next start")),
            (n, false) => Some(format!("{n} not sent, and lost: use --state to keep them")),
        };
        self.say(Tone::Bad, "closed", text, json!({ "unsent": unsent }));
    }
}

fn write(line: &str) {
    // Whoever reads may have gone (`| head`): nothing to do about it, the messages still go out.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What others wrote must not control this terminal: control characters become U+FFFD, a line break stays.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            c if steers(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The same for text within one line, such as a name: a line break becomes U+FFFD too, so that it cannot forge a line.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\u{fffd}")
}

/// JSON whose strings escape what would control a terminal; the value is the same.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if steers(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Moves the cursor, changes colours, breaks the line or turns the direction: control characters of both sets,
/// bidirectional controls, the separators of lines and paragraphs. All of them are below U+10000.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The words of a message of any kind; `users` are the names of those a change is about.
pub fn words(event: &Event, who: &str, users: &str) -> String {
    let b = &event.body;
    let text = b.text.as_deref().unwrap_or_default();
    let target = || b.target.map_or_else(String::new, |t| format!("#{t}"));
    let name = b.name.as_deref().unwrap_or_default();
    match event.kind {
        Kind::Text => format!("{who}: {text}"),
        Kind::Emoji => format!("{who}: {}", b.emoji.as_deref().unwrap_or_default()),
        Kind::Image | Kind::Video | Kind::File | Kind::Audio => {
            let url = b.media.as_ref().map_or("", |m| m.url.as_str());
            format!("{who} sent {}: {url} {text}", event.kind.as_str()).trim_end().to_owned()
        }
        Kind::Custom => format!("{who} sent {} bytes of custom data", b.data.as_ref().map_or(0, |d| d.len())),
        Kind::Edit => format!("{who} edited {}: {text}", target()),
        Kind::Recall => format!("{who} recalled {}", target()),
        Kind::Reaction if b.remove => {
            format!("{who} removed {} from {}", b.emoji.as_deref().unwrap_or_default(), target())
        }
        Kind::Reaction => format!("{who} reacted to {} with {}", target(), b.emoji.as_deref().unwrap_or_default()),
        Kind::DmStarted => format!("{who} started the conversation"),
        Kind::Blocked => format!("{who} blocked {users}"),
        Kind::Unblocked => format!("{who} unblocked {users}"),
        Kind::GroupCreated => format!("{who} created the group {name:?} with {users}"),
        Kind::GroupRenamed => format!("{who} renamed the group to {name:?}"),
        Kind::MemberAdded => format!("{who} added {users}"),
        Kind::MemberRemoved => format!("{who} removed {users}"),
        Kind::MemberLeft => format!("{who} left"),
        Kind::RoleChanged => {
            format!("{who} made {users} {}", b.role.map_or_else(String::new, |r| format!("{r:?}").to_lowercase()))
        }
        Kind::Lost => format!("messages between {} and #{} may be lost", target(), event.id),
        Kind::Unknown => format!("{who} sent a message that this version cannot show"),
    }
}

/// How this user stands in a group now.
pub fn standing(thread: &Thread, place: &str, role: Option<Role>) -> Option<String> {
    matches!(thread, Thread::Group { .. }).then(|| match role {
        None => format!("you are no longer in {place}"),
        Some(Role::Member) => format!("you are a member of {place}"),
        Some(Role::Admin) => format!("you are an admin of {place}"),
        Some(Role::Owner) => format!("you are an owner of {place}"),
    })
}

/// Another device of this user is in now, in this one's place.
pub fn took_over(by: &OtherDevice) -> String {
    let class = class_word(by.class);
    match &by.name {
        Some(name) => format!("“{}”, another {class} of yours, has taken over", one_line(name)),
        None => format!("another {class} of yours has taken over"),
    }
}

pub fn class_word(class: DeviceClass) -> &'static str {
    match class {
        DeviceClass::Phone => "phone",
        DeviceClass::Tablet => "tablet",
        DeviceClass::Desktop => "desktop",
        DeviceClass::Web => "browser",
        DeviceClass::Other => "device",
    }
}

#[cfg(test)]
mod tests {
    use natterjack_client::protocol::{Body, Cid, MsgId, Token};

    use super::*;

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
        assert_eq!(printable("two\nlines"), "two\nlines");
        assert_eq!(
            printable("a\u{9b}31m\u{85}\u{7f}\u{2028}\u{2029}\u{200f}b"),
            format!("a\u{fffd}31m{}b", "\u{fffd}".repeat(5))
        );
        assert_eq!(one_line("bob\n12:00:00 [here] alice: pay him"), "bob\u{fffd}12:00:00 [here] alice: pay him");
    }

    #[test]
    fn json_says_the_same_and_cannot_steer_either() {
        let object = json!({ "text": "a\u{1b}[2J\u{9b}31m\u{202e}\n\u{2028}\u{7f}🐸" });
        let line = escaped(&object.to_string());
        assert!(!line.chars().any(steers), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), object);
    }

    #[test]
    fn what_is_kept_is_taken_once() {
        let mut screen = Screen::kept();
        screen.problem("no");
        screen.say(Tone::Good, "only_for_scripts", None, json!({}));
        assert_eq!(screen.take(), [Said { tone: Tone::Bad, text: "! no".into() }]);
        assert_eq!(screen.take(), []);
    }

    #[test]
    fn every_kind_has_words() {
        let mut event = Event {
            thread: "group.g".parse().unwrap(),
            id: MsgId(2),
            prev: MsgId(1),
            ts: 0,
            from: Token::parse("a").unwrap(),
            cid: Cid::mint(1, [0; 10]),
            kind: Kind::Text,
            body: Body { target: Some(MsgId(9)), ..Body::text("hello") },
        };
        assert_eq!(words(&event, "alice", ""), "alice: hello");
        event.kind = Kind::Edit;
        assert_eq!(words(&event, "alice", ""), "alice edited #9: hello");
        event.kind = Kind::MemberAdded;
        assert_eq!(words(&event, "alice", "bob, carol"), "alice added bob, carol");
        let event = Event::lost(event.thread, MsgId(7), MsgId(9), 1);
        assert_eq!(words(&event, "lost", ""), "messages between #7 and #9 may be lost");
    }
}
