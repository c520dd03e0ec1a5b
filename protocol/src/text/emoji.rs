//! One emoji (UTS 51): a message of its own, or a reaction.

use unicode_segmentation::UnicodeSegmentation;

use super::{BadText, at_most, chars, line::one_line};
use crate::limits;

/// One emoji, with what belongs to it: skin, gender, flag, key cap.
pub fn emoji(text: &str) -> Result<(), BadText> {
    at_most(text, limits::EMOJI_CHARS)?;
    one_line(text)?;
    let mut all = text.chars();
    let key_cap = all.next().is_some_and(|c| matches!(c, '0'..='9' | '#' | '*')) && text.ends_with('\u{20e3}');
    let first = key_cap || text.chars().next().is_some_and(chars::is_pictograph);
    let parts = all.all(|c| {
        chars::is_pictograph(c) || chars::is_tag(c) || matches!(c, chars::ZWJ | '\u{fe0e}' | '\u{fe0f}' | '\u{20e3}')
    });
    if first && parts && text.graphemes(true).count() == 1 {
        Ok(())
    } else {
        Err(BadText::new("exactly one emoji is needed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one() {
        for good in [
            "👍",
            "👍🏽",
            "❤",
            "❤\u{fe0f}",
            "❤\u{fe0f}\u{200d}🔥",
            "👨\u{200d}👩\u{200d}👧\u{200d}👦",
            "🇩🇪",
            "1\u{fe0f}\u{20e3}",
            "#\u{20e3}",
            "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
            "🏳\u{fe0f}\u{200d}🌈",
            "©",
            "🤷🏽\u{200d}♀\u{fe0f}",
            "🫩",
        ] {
            assert_eq!(emoji(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            " ",
            "\n",
            "\u{200d}",
            "\u{fe0f}",
            "\u{3164}",
            "a",
            "1",
            "#",
            "+1",
            ":)",
            "👍👍",
            "👍 ",
            " 👍",
            "👍\n",
            "👍\u{202e}",
            "🐸\u{200d}",
            "a\u{20e3}",
            "👍a",
            "🇩🇪🇫🇷",
            "\u{1b}[2J",
            &"👨\u{200d}".repeat(20),
        ] {
            assert!(emoji(bad).is_err(), "{bad:?}");
        }
    }
}
