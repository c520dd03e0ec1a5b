//! Keys (pure): editing, scrolling, going to another thread, sending.

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use natterjack_client::protocol::{Body, Kind, MsgId};

use super::{Job, Model, Panel, UiEffect};
use crate::{
    full::scroll::Anchor,
    line::{self, InputLine},
    screen::{Said, Tone},
};

/// The others are told again after this long.
const TYPING_AGAIN: Duration = Duration::from_secs(3);

pub const HELP: &str = "\
Enter       send (Alt-Enter, Ctrl-J: a new line)
PgUp PgDn   scroll, also with the arrows; Ctrl-Home, Ctrl-End: to the first and the last; Esc: to the end
Tab         the next thread with something new (Ctrl-N, Ctrl-P, Alt-arrows: the next, the one before)
F2          the list of threads on a narrow screen
Ctrl-A E    to the beginning, the end of the line; Ctrl-W U K: cut a word, to the beginning, to the end; Ctrl-Y: \
paste it
Ctrl-L      draw anew; Ctrl-Z: back to the shell, `fg` comes back; Ctrl-C: quit
";

impl Model {
    pub(super) fn key(&mut self, key: KeyEvent, now: Instant, effects: &mut Vec<UiEffect>) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let (control, alt) = (key.modifiers.contains(KeyModifiers::CONTROL), key.modifiers.contains(KeyModifiers::ALT));
        match key.code {
            KeyCode::Char(c) if control => self.control(c.to_ascii_lowercase(), now, effects),
            KeyCode::Enter if alt || control || key.modifiers.contains(KeyModifiers::SHIFT) => {
                self.insert("\n", now, effects)
            }
            KeyCode::Enter => self.enter(now, effects),
            KeyCode::Esc if self.panel.take().is_some() => {}
            KeyCode::Esc if self.list_first => self.list_first = false,
            KeyCode::Esc | KeyCode::End if key.code == KeyCode::Esc || control || self.editor.is_empty() => {
                self.go_to_end()
            }
            KeyCode::Home if control || self.editor.is_empty() => self.go_to_top(),
            KeyCode::Tab => self.go(self.threads.next_unread(self.current.as_ref()), now, effects),
            KeyCode::Up if alt || self.list_first => self.go_by(-1, now, effects),
            KeyCode::Down if alt || self.list_first => self.go_by(1, now, effects),
            KeyCode::BackTab => self.go_by(-1, now, effects),
            KeyCode::F(1) => self.help(),
            KeyCode::F(2) => self.list_first = !self.list_first,
            KeyCode::PageUp => self.page_by(-1),
            KeyCode::PageDown => self.page_by(1),
            KeyCode::Up if self.panel.is_some() || !self.editor.up() => self.lines_by(-1),
            KeyCode::Down if self.panel.is_some() || !self.editor.down() => self.lines_by(1),
            KeyCode::Left if control || alt => self.editor.word_left(),
            KeyCode::Right if control || alt => self.editor.word_right(),
            KeyCode::Left => self.editor.left(),
            KeyCode::Right => self.editor.right(),
            KeyCode::Home => self.editor.home(),
            KeyCode::End => self.editor.end(),
            KeyCode::Backspace if alt || control => self.editor.cut_word_left(),
            KeyCode::Backspace => self.editor.backspace(),
            KeyCode::Delete => self.editor.delete(),
            KeyCode::Char('b') if alt => self.editor.word_left(),
            KeyCode::Char('f') if alt => self.editor.word_right(),
            KeyCode::Char('d') if alt => self.editor.cut_word_right(),
            KeyCode::Char(c) if !alt => self.insert(c.encode_utf8(&mut [0; 4]), now, effects),
            _ => {}
        }
    }

    fn control(&mut self, c: char, now: Instant, effects: &mut Vec<UiEffect>) {
        match c {
            'c' => effects.push(UiEffect::Quit),
            'd' if self.editor.is_empty() => effects.push(UiEffect::Quit),
            'd' => self.editor.delete(),
            'j' => self.insert("\n", now, effects),
            'a' => self.editor.home(),
            'e' => self.editor.end(),
            'b' => self.editor.left(),
            'f' => self.editor.right(),
            'h' => self.editor.backspace(),
            'w' => self.editor.cut_word_left(),
            'u' => self.editor.cut_to_start(),
            'k' => self.editor.cut_to_end(),
            'y' => self.editor.paste_cut(),
            'n' => self.go_by(1, now, effects),
            'p' => self.go_by(-1, now, effects),
            'l' => effects.push(UiEffect::Redraw),
            'z' => effects.push(UiEffect::Suspend),
            _ => {}
        }
    }

    pub(super) fn insert(&mut self, text: &str, now: Instant, effects: &mut Vec<UiEffect>) {
        self.list_first = false;
        if !self.editor.insert(text) {
            self.say(Tone::Bad, "that is more than a message may hold: the rest was cut off", now);
        }
        let again = self.told_typing.is_none_or(|at| now.duration_since(at) >= TYPING_AGAIN);
        if let (Some(thread), true) =
            (&self.current, again && !self.editor.is_empty() && !self.editor.text().starts_with('/'))
        {
            self.told_typing = Some(now);
            effects.push(UiEffect::Typing(thread.clone()));
        }
    }

    fn enter(&mut self, now: Instant, effects: &mut Vec<UiEffect>) {
        if self.list_first {
            self.list_first = false;
            return;
        }
        self.panel = None;
        if let Err(why) = self.submit(now, effects) {
            self.say(Tone::Bad, why, now);
        } else {
            self.editor.take();
        }
    }

    /// An error leaves what was written.
    fn submit(&mut self, now: Instant, effects: &mut Vec<UiEffect>) -> Result<(), String> {
        let written = self.editor.text().to_owned();
        let nowhere = || "no thread yet: /to NAME first".to_owned();
        match line::parse(&written)? {
            InputLine::Nothing => {}
            InputLine::Quit => effects.push(UiEffect::Quit),
            InputLine::Help => self.help(),
            InputLine::Text(text) => {
                self.current.as_ref().ok_or_else(nowhere)?;
                self.send(Kind::Text, Body::text(text), effects);
            }
            InputLine::Edit(id, text) => {
                let target = Some(self.target(id)?);
                self.send(Kind::Edit, Body { target, ..Body::text(text) }, effects);
            }
            InputLine::Recall(id) => {
                let target = Some(self.target(id)?);
                self.send(Kind::Recall, Body { target, ..Body::default() }, effects);
            }
            InputLine::Typing => effects.push(UiEffect::Typing(self.current.clone().ok_or_else(nowhere)?)),
            command => {
                if command == InputLine::Discard(None) {
                    self.threads.iter_mut().for_each(|e| e.timeline.forget_refused());
                }
                self.say(Tone::Faint, "…", now);
                effects.push(UiEffect::Job(Job::Command { line: written, here: self.current.clone() }));
            }
        }
        Ok(())
    }

    fn target(&self, id: Option<MsgId>) -> Result<MsgId, String> {
        let last = || self.here().and_then(|e| e.timeline.last_of(&self.people.me));
        id.or_else(last).ok_or_else(|| "which message? You wrote none here yet".into())
    }

    fn help(&mut self) {
        let said = [HELP, line::HELP].map(|text| Said { tone: Tone::Plain, text: text.to_owned() });
        self.panel = Some(Panel::new("help", said.into()));
    }

    fn go_by(&mut self, by: isize, now: Instant, effects: &mut Vec<UiEffect>) {
        let list_first = self.list_first;
        self.go(self.threads.beside(self.current.as_ref(), by), now, effects);
        self.list_first = list_first;
    }

    fn go(&mut self, thread: Option<natterjack_client::protocol::Thread>, now: Instant, effects: &mut Vec<UiEffect>) {
        if let Some(thread) = thread {
            self.panel = None;
            self.open(thread, now, effects);
        }
    }

    fn page_by(&mut self, by: isize) {
        // One line stays, so that nobody loses the place.
        let lines = usize::from(self.areas().messages.height).saturating_sub(1).max(1);
        self.lines_by(by * isize::try_from(lines).unwrap_or(1));
    }

    fn lines_by(&mut self, by: isize) {
        let pane = self.areas().messages;
        if let Some(panel) = &mut self.panel {
            panel.scroll(by, usize::from(pane.width), usize::from(pane.height));
            return;
        }
        self.scroll(|anchor, height, here, lines| match by {
            ..0 => anchor.up(by.unsigned_abs(), height, &here.timeline, lines),
            _ => anchor.down(by.unsigned_abs(), &here.timeline, lines),
        });
    }

    fn go_to_end(&mut self) {
        self.scroll(|_, _, _, _| Anchor::default());
    }

    /// To the first message that is here; what is older is then fetched.
    fn go_to_top(&mut self) {
        self.scroll(|anchor, height, here, lines| anchor.up(usize::MAX / 2, height, &here.timeline, lines));
    }
}
