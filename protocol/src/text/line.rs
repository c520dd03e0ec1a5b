//! Texts that are shown on one line among others: names of groups and of files.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::{BadText, at_most, chars, seen};
use crate::limits;

/// Marks on one letter (UTS 39, 5.4: more are not found in any language's writing).
const MARKS: usize = 4;

/// The name of a group as it is kept.
pub fn group_name(name: &str) -> Result<String, BadText> {
    kept_line(name, limits::GROUP_NAME_CHARS)
}

/// Likewise, what a user calls a device.
pub fn device_name(name: &str) -> Result<String, BadText> {
    kept_line(name, limits::DEVICE_NAME_CHARS)
}

/// Likewise, name and version of a client.
pub fn app_name(name: &str) -> Result<String, BadText> {
    kept_line(name, limits::APP_CHARS)
}

/// One visible line, composed (NFC), white space trimmed and each run of it one space.
fn kept_line(name: &str, most: usize) -> Result<String, BadText> {
    let spaces = |c: char| if c.general_category() == GeneralCategory::SpaceSeparator { ' ' } else { c };
    let mapped: String = name.chars().map(spaces).nfc().collect();
    let mut kept = String::with_capacity(mapped.len());
    for word in mapped.split(' ').filter(|w| !w.is_empty()) {
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(word);
    }
    one_line(&kept)?;
    at_most(&kept, most)?;
    Ok(kept)
}

/// Something to see, and nothing that breaks the line, changes its direction, hides, or reaches out of it.
pub(super) fn one_line(text: &str) -> Result<(), BadText> {
    let mut before = None;
    let (mut marks, mut tags) = (0, false);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let ok = match c {
            chars::ZWJ | chars::ZWNJ => chars::joins(c, before, rest.clone().next()),
            c if chars::is_variation(c) => before.is_some_and(|b| chars::is_visible(b) || chars::is_mark(b)),
            // Behind a black flag they spell a region, up to the one that ends them.
            c if chars::is_tag(c) => {
                (tags || before == Some('\u{1f3f4}'))
                    && rest.clone().next().is_some_and(chars::is_tag) != (c == '\u{e007f}')
            }
            c if chars::is_mark(c) => before.is_some_and(|b| !chars::is_blank(b)),
            c => !chars::is_steering(c),
        };
        if !ok {
            let n = u32::from(c);
            return Err(BadText::new(format!(
                "the character U+{n:04X} breaks, hides or reorders the line here; leave it out"
            )));
        }
        marks = if chars::is_stacked(c) { marks + 1 } else { 0 };
        if marks > MARKS {
            return Err(BadText::new(format!("more than {MARKS} marks on one letter")));
        }
        tags = chars::is_tag(c) && c != '\u{e007f}';
        before = Some(c);
    }
    seen(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_groups() {
        for (given, kept) in [
            ("Teichfreunde", "Teichfreunde"),
            ("  two\u{a0}\u{3000} words ", "two words"),
            ("Zoe\u{308}", "Zoë"),
            ("👨\u{200d}👩\u{200d}👧 family", "👨\u{200d}👩\u{200d}👧 family"),
            ("❤\u{fe0f}", "❤\u{fe0f}"),
            ("❤\u{fe0f}\u{200d}🔥", "❤\u{fe0f}\u{200d}🔥"),
            (
                "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
                "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
            ),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("क्\u{200d}ष", "क्\u{200d}ष"),
            ("שלום", "שלום"),
            ("#1: a/b <c>", "#1: a/b <c>"),
            ("…", "…"),
        ] {
            assert_eq!(group_name(given).as_deref(), Ok(kept), "{given:?}");
        }
        for bad in [
            "",
            " ",
            "\u{a0}",
            "\u{3164}",
            "\u{200b}",
            "\u{2800}",
            "a\0b",
            "a\nb",
            "a\r",
            "\ta",
            "a\u{1b}[2J",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{200e}",
            "a\u{61c}",
            "a\u{200b}b",
            "ad\u{200c}min",
            "ad\u{200d}min",
            "a\u{200d}",
            "\u{200d}🐸",
            "🐸\u{200d}",
            "a\u{ad}b",
            "\u{feff}a",
            "a\u{e0041}",
            "🏴\u{e0067}\u{e0062}",
            "\u{fe0f}a",
            " \u{fe0f}",
            "\u{301}a",
            "a \u{301}",
            "a\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}",
            "a\u{fff9}b",
            "a\u{ffff}",
            "a\u{9b}31m",
        ] {
            assert!(group_name(bad).is_err(), "{bad:?}: {:?}", group_name(bad));
        }
    }

    #[test]
    fn the_length_is_that_of_what_is_kept() {
        let max = limits::GROUP_NAME_CHARS;
        assert_eq!(group_name(&format!("   {}   ", "e\u{301}".repeat(max))), Ok("é".repeat(max)));
        assert!(group_name(&"é".repeat(max + 1)).unwrap_err().to_string().contains("101 characters"));
    }

    proptest! {
        /// Whatever is taken is one visible line, and is taken again as it is.
        #[test]
        fn what_is_taken_is_one_visible_line(name in any_text()) {
            let Ok(kept) = group_name(&name) else { return Ok(()) };
            prop_assert_eq!(group_name(&kept), Ok(kept.clone()));
            prop_assert!(kept.chars().any(chars::is_visible) && kept.trim() == kept);
            let unseen = |c| matches!(
                c,
                '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                    | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
            );
            prop_assert!(kept.chars().all(|c| !c.is_control() && !unseen(c)), "{:?}", kept);
        }
    }

    /// Mostly what matters here.
    fn any_text() -> impl Strategy<Value = String> {
        let special = prop::sample::select(
            "a e\u{301}ß中ع可🐸👩\u{200d}\u{200c}\u{fe0f}\u{200b}\u{202e}\u{2066}\
             \n\0\t\u{a0}\u{3164}\u{ad}\u{e0067}\u{e007f}🏴\u{1b}\u{9b}क\u{94d}"
                .chars()
                .collect::<Vec<_>>(),
        );
        prop::collection::vec(prop_oneof![3 => special, 1 => any::<char>()], 0..12)
            .prop_map(|c| c.into_iter().collect())
    }
}
