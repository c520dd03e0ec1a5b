//! The line that is being written (pure): text and a cursor that moves by what people see as one character.

use natterjack_client::protocol::limits::TEXT_CHARS;
use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};

use super::wrap::{Break, ranges, width};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Editor {
    text: String,
    /// A byte, always at the beginning of a grapheme.
    at: usize,
    /// What was cut last.
    cut: String,
}

/// The text in lines, and where the cursor stands in them.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    pub lines: Vec<String>,
    pub row: usize,
    pub column: usize,
}

impl Editor {
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn take(&mut self) -> String {
        self.at = 0;
        std::mem::take(&mut self.text)
    }

    /// False: it did not all fit into a message.
    pub fn insert(&mut self, text: &str) -> bool {
        let room = TEXT_CHARS.saturating_sub(self.text.chars().count());
        let clean = clean(text);
        let fits: String = clean.chars().take(room).collect();
        self.text.insert_str(self.at, &fits);
        // What was inserted may have joined with what follows: never stand inside a character.
        self.at = self.boundary(self.at + fits.len());
        fits.len() == clean.len()
    }

    pub fn left(&mut self) {
        self.at = self.before();
    }

    pub fn right(&mut self) {
        self.at = self.after();
    }

    pub fn word_left(&mut self) {
        self.at = self.word_before();
    }

    pub fn word_right(&mut self) {
        self.at = self.word_after();
    }

    pub fn home(&mut self) {
        self.at = self.line_start();
    }

    pub fn end(&mut self) {
        self.at = self.line_end();
    }

    pub fn backspace(&mut self) {
        let from = self.before();
        self.remove(from, self.at);
    }

    pub fn delete(&mut self) {
        let to = self.after();
        self.remove(self.at, to);
    }

    pub fn cut_word_left(&mut self) {
        self.cut_out(self.word_before(), self.at);
    }

    pub fn cut_word_right(&mut self) {
        self.cut_out(self.at, self.word_after());
    }

    pub fn cut_to_start(&mut self) {
        self.cut_out(self.line_start(), self.at);
    }

    /// At the end of a line: the line break.
    pub fn cut_to_end(&mut self) {
        let end = self.line_end();
        self.cut_out(self.at, if end == self.at { self.after() } else { end });
    }

    pub fn paste_cut(&mut self) {
        let cut = self.cut.clone();
        self.insert(&cut);
    }

    /// A line up among those that were typed; false: this is the first.
    pub fn up(&mut self) -> bool {
        let start = self.line_start();
        if start == 0 {
            return false;
        }
        let column = width(&self.text[start..self.at]);
        let above = self.text[..start - 1].rfind('\n').map_or(0, |i| i + 1);
        self.at = self.in_line(above, start - 1, column);
        true
    }

    pub fn down(&mut self) -> bool {
        let end = self.line_end();
        if end == self.text.len() {
            return false;
        }
        let column = width(&self.text[self.line_start()..self.at]);
        let below = end + 1;
        let below_end = self.text[below..].find('\n').map_or(self.text.len(), |i| below + i);
        self.at = self.in_line(below, below_end, column);
        true
    }

    pub fn shown(&self, columns: usize) -> Shown {
        // A cursor behind a full line stands at the beginning of the next.
        let mut lines = ranges(&self.text, columns, Break::Anywhere);
        let row = lines.iter().rposition(|r| r.start <= self.at).unwrap_or(0);
        let column = width(&self.text[lines[row].start..self.at]);
        if column >= columns.max(1) {
            lines.insert(row + 1, self.at..self.at);
            return Shown { lines: self.slices(lines), row: row + 1, column: 0 };
        }
        Shown { lines: self.slices(lines), row, column }
    }

    fn slices(&self, ranges: Vec<std::ops::Range<usize>>) -> Vec<String> {
        ranges.into_iter().map(|r| self.text[r].to_owned()).collect()
    }

    fn remove(&mut self, from: usize, to: usize) -> String {
        let gone = self.text.drain(from..to).collect();
        self.at = self.boundary(from);
        gone
    }

    fn cut_out(&mut self, from: usize, to: usize) {
        if from < to {
            self.cut = self.remove(from, to);
        }
    }

    fn before(&self) -> usize {
        let mut cursor = GraphemeCursor::new(self.at, self.text.len(), true);
        cursor.prev_boundary(&self.text, 0).ok().flatten().unwrap_or(0)
    }

    fn after(&self) -> usize {
        let mut cursor = GraphemeCursor::new(self.at, self.text.len(), true);
        cursor.next_boundary(&self.text, 0).ok().flatten().unwrap_or(self.text.len())
    }

    fn boundary(&self, at: usize) -> usize {
        let mut cursor = GraphemeCursor::new(at, self.text.len(), true);
        if cursor.is_boundary(&self.text, 0).unwrap_or(true) {
            at
        } else {
            cursor.next_boundary(&self.text, 0).ok().flatten().unwrap_or(self.text.len())
        }
    }

    fn word_before(&self) -> usize {
        self.text[..self.at].unicode_word_indices().next_back().map_or(0, |(i, _)| i)
    }

    fn word_after(&self) -> usize {
        self.text[self.at..].unicode_word_indices().next().map_or(self.text.len(), |(i, w)| self.at + i + w.len())
    }

    fn line_start(&self) -> usize {
        self.text[..self.at].rfind('\n').map_or(0, |i| i + 1)
    }

    fn line_end(&self) -> usize {
        self.text[self.at..].find('\n').map_or(self.text.len(), |i| self.at + i)
    }

    fn in_line(&self, start: usize, end: usize, column: usize) -> usize {
        let mut filled = 0;
        for (i, g) in self.text[start..end].grapheme_indices(true) {
            if filled >= column {
                return start + i;
            }
            filled += width(g);
        }
        end
    }
}

/// Line breaks as one character (a terminal pastes them as carriage returns), tabs as spaces, nothing that steers.
fn clean(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\r' | '\n' => out.push('\n'),
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Editor {
        let mut e = Editor::default();
        assert!(e.insert(text));
        e
    }

    #[test]
    fn moves_and_deletes_by_what_people_see() {
        let mut e = with("a👨‍👩‍👧‍👦e\u{301}");
        e.left();
        e.backspace();
        assert_eq!(e.text(), "ae\u{301}");
        e.delete();
        assert_eq!(e.text(), "a");
        e.delete();
        e.left();
        e.left();
        e.backspace();
        assert_eq!(e.text(), "a");
        e.insert("b");
        assert_eq!(e.take(), "ba");
        assert!(e.is_empty());
    }

    #[test]
    fn words_and_lines_are_cut_and_pasted() {
        let mut e = with("one two three");
        e.cut_word_left();
        assert_eq!(e.text(), "one two ");
        e.home();
        e.paste_cut();
        assert_eq!(e.text(), "threeone two ");
        e.word_right();
        e.cut_to_end();
        assert_eq!(e.text(), "threeone");
        e.cut_to_start();
        assert_eq!(e.text(), "");
        let mut e = with("above\nbelow");
        assert!(e.up() && !e.up());
        e.cut_to_end();
        assert_eq!(e.text(), "abovebelow");
    }

    #[test]
    fn up_and_down_keep_the_column() {
        let mut e = with("你好世界\nab\nabcdef");
        e.left();
        assert!(e.up());
        e.insert("|");
        assert_eq!(e.text(), "你好世界\nab|\nabcdef");
        e.backspace();
        assert!(e.up());
        e.insert("|");
        assert_eq!(e.text(), "你|好世界\nab\nabcdef");
        assert!(e.down() && e.down() && !e.down());
    }

    #[test]
    fn what_is_pasted_is_cleaned_and_bounded() {
        let e = with("a\r\nb\rc\td\x1b[2J\u{7}");
        assert_eq!(e.text(), "a\nb\nc    d[2J");
        let mut e = Editor::default();
        assert!(!e.insert(&"x".repeat(TEXT_CHARS + 1)));
        assert_eq!(e.text().len(), TEXT_CHARS);
    }

    #[test]
    fn the_cursor_is_where_the_next_character_will_be() {
        let shown = |text: &str, columns| {
            let s = with(text).shown(columns);
            (s.lines.len(), s.row, s.column)
        };
        assert_eq!(shown("", 10), (1, 0, 0));
        assert_eq!(shown("你好", 10), (1, 0, 4));
        assert_eq!(shown("abcde", 5), (2, 1, 0));
        assert_eq!(shown("abcdef", 5), (2, 1, 1));
        assert_eq!(shown("ab\n", 5), (2, 1, 0));
        assert_eq!(shown("你", 1), (2, 1, 0));
        let mut e = with("ab\ncd");
        e.home();
        e.left();
        assert_eq!((e.shown(5).row, e.shown(5).column), (0, 2));
    }
}
