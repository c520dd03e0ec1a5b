//! Text in lines that fit (pure). Widths are those of the terminal's cells: a CJK character or an emoji takes two, a
//! combining mark none.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

pub fn width(text: &str) -> usize {
    text.width()
}

/// Where a line may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// At spaces and beside wide characters; inside a word only if it is longer than a line.
    Words,
    /// After any character: for text that is being written, so that the cursor does not jump.
    Anywhere,
}

/// Lines no wider than `width`, for reading: the space at which a line was broken is gone.
pub fn wrap(text: &str, width: usize) -> Vec<&str> {
    ranges(text, width, Break::Words).into_iter().map(|r| &text[r]).collect()
}

/// Likewise, as byte ranges. Never empty. A character wider than `width` has a line of its own.
pub fn ranges(text: &str, width: usize, at: Break) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let mut begin = 0;
    for paragraph in text.split('\n') {
        wrap_paragraph(text, begin..begin + paragraph.len(), width.max(1), at, &mut lines);
        begin += paragraph.len() + 1;
    }
    lines
}

fn wrap_paragraph(text: &str, all: Range<usize>, width: usize, at: Break, lines: &mut Vec<Range<usize>>) {
    let (mut start, mut filled) = (all.start, 0);
    // The last place where this line may end.
    let mut place: Option<usize> = None;
    for (i, g) in text[all.clone()].grapheme_indices(true) {
        let (i, w) = (all.start + i, g.width());
        let space = at == Break::Words && g == " ";
        if at == Break::Words && w == 2 && i > start {
            place = Some(i);
        }
        let mut swallowed = false;
        while filled + w > width && filled > 0 {
            if space {
                lines.push(start..i);
                (start, filled, place, swallowed) = (i + 1, 0, None, true);
                break;
            }
            let end = place.take().filter(|p| *p > start).unwrap_or(i);
            lines.push(start..start + trim(&text[start..end], at).len());
            (start, filled) = (end, text[end..i].width());
        }
        if swallowed {
            continue;
        }
        filled += w;
        if space || (at == Break::Words && w == 2) {
            place = Some(i + g.len());
        }
    }
    lines.push(start..all.end);
}

fn trim(line: &str, at: Break) -> &str {
    if at == Break::Words { line.trim_end_matches(' ') } else { line }
}

/// The beginning of `text` that fits, with `…` where something was cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut filled = 0;
    for g in text.graphemes(true) {
        let w = g.width();
        // One cell is for the mark.
        if filled + w + 1 > width {
            break;
        }
        out.push_str(g);
        filled += w;
    }
    if width > 0 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_end_between_words() {
        assert_eq!(wrap("the quick brown fox", 10), ["the quick", "brown fox"]);
        assert_eq!(wrap("two\n\nparagraphs", 20), ["two", "", "paragraphs"]);
        assert_eq!(wrap("unbreakable", 4), ["unbr", "eaka", "ble"]);
        assert_eq!(wrap("a unbreakable", 6), ["a", "unbrea", "kable"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("  indented", 20), ["  indented"]);
    }

    #[test]
    fn wide_characters_are_never_halved() {
        assert_eq!(wrap("你好世界", 5), ["你好", "世界"]);
        assert_eq!(wrap("ab你好", 5), ["ab你", "好"]);
        assert_eq!(wrap("🐸🐸🐸", 4), ["🐸🐸", "🐸"]);
        // A family is one character of two cells, not four people.
        assert_eq!(wrap("👨‍👩‍👧‍👦👨‍👩‍👧‍👦", 2), ["👨‍👩‍👧‍👦", "👨‍👩‍👧‍👦"]);
        // A combining mark stays with its letter.
        assert_eq!(wrap("e\u{301}e\u{301}e\u{301}", 2), ["e\u{301}e\u{301}", "e\u{301}"]);
        // What fits nowhere still ends.
        assert_eq!(wrap("你好", 1), ["你", "好"]);
    }

    #[test]
    fn what_is_being_written_keeps_every_space() {
        let text = "ab  cd ";
        let lines: Vec<_> = ranges(text, 3, Break::Anywhere).into_iter().map(|r| &text[r]).collect();
        assert_eq!(lines, ["ab ", " cd", " "]);
    }

    #[test]
    fn a_cut_is_marked_and_fits() {
        assert_eq!(cut("natterjack", 6), "natte…");
        assert_eq!(cut("你好世界", 6), "你好…");
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("any", 0), "");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_everything_fits(text in "[a-c 你好🐸e\u{301}\n]{0,60}", width in 2usize..12) {
            let lines = wrap(&text, width);
            let solid = |s: &str| s.chars().filter(|c| *c != ' ' && *c != '\n').collect::<String>();
            prop_assert_eq!(solid(&lines.concat()), solid(&text));
            for line in lines {
                prop_assert!(line.width() <= width, "{:?} is wider than {}", line, width);
            }
            let written = ranges(&text, width, Break::Anywhere);
            prop_assert_eq!(written.into_iter().map(|r| &text[r]).collect::<String>(), text.replace('\n', ""));
        }
    }
}
