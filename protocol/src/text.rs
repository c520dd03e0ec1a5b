//! What a text from outside may be: one rule for each kind of text, for edge, persister, SDK and chat alike. Pure.
//!
//! Names and passwords are normalised here and kept as these functions give them back; lengths are counted afterwards.
//! Texts of messages are kept as they came, so their rules only say yes or no. An error never quotes the text.

mod attachment;
mod chars;
mod emoji;
mod line;
mod password;
mod user_name;

pub use attachment::{file_name, media_type, url};
pub use emoji::emoji;
pub use line::{app_name, device_name, group_name};
pub use password::password;
pub use user_name::{Prefix, same_user, user_name, user_name_chars, user_name_key};

use crate::{limits, refusal::Refusal};

/// Why a text is not taken: what is wrong, and what is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadText(String);

impl BadText {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// The answer to who sent it as this field.
    pub fn of(self, field: &str) -> Refusal {
        Refusal::invalid(format!("{field}: {}", self.0))
    }
}

/// A message, a new text for one, or a caption: any Unicode, line breaks included, with something to see in it.
pub fn message(text: &str) -> Result<(), BadText> {
    at_most(text, limits::TEXT_CHARS)?;
    seen(text)
}

/// A number on the wire, which JavaScript reads as a double: exact up to here.
pub fn number(n: u64) -> Result<(), BadText> {
    if n <= limits::NUMBER_MAX {
        Ok(())
    } else {
        Err(BadText::new(format!("at most {} (2^53 - 1)", limits::NUMBER_MAX)))
    }
}

fn seen(text: &str) -> Result<(), BadText> {
    if text.chars().any(chars::is_visible) {
        return Ok(());
    }
    let what = if text.is_empty() { "empty" } else { "nothing but white space and characters that cannot be seen" };
    Err(BadText::new(format!("{what}; at least one visible character is needed")))
}

fn at_most(text: &str, max: usize) -> Result<(), BadText> {
    // A text of at most `max` bytes has at most `max` characters; count only when it could be over.
    if text.len() <= max {
        return Ok(());
    }
    let n = text.chars().count();
    if n <= max { Ok(()) } else { Err(BadText::new(format!("{n} characters, at most {max} are allowed"))) }
}

fn in_range(text: &str, range: std::ops::RangeInclusive<usize>) -> Result<(), BadText> {
    let n = text.chars().count();
    if range.contains(&n) {
        Ok(())
    } else {
        Err(BadText::new(format!("{n} characters; {} to {} are allowed", range.start(), range.end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_something_to_see() {
        for good in ["x", "\n\n x", "\0x", "🐸", "…", "\u{301}a", "\u{202e}abc", "中", "علی", "\u{1fbff}", "€", "_"]
        {
            assert_eq!(message(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            " ",
            "\n\t\r",
            "\0",
            "\u{a0}\u{2003}\u{3000}",
            "\u{200b}",
            "\u{200e}\u{200f}",
            "\u{202e}",
            "\u{feff}",
            "\u{2060}",
            "\u{ad}",
            "\u{3164}",
            "\u{115f}\u{1160}",
            "\u{ffa0}",
            "\u{2800}",
            "\u{fe0f}",
            "\u{e0041}",
            "\u{301}",
            "\u{85}",
            "\u{2028}",
            "\u{1d159}",
            "\u{ffff}",
        ] {
            assert!(message(bad).is_err(), "{bad:?}");
        }
        assert!(message(&"ü".repeat(limits::TEXT_CHARS)).is_ok());
        assert!(message(&"ü".repeat(limits::TEXT_CHARS + 1)).unwrap_err().to_string().contains("10001 characters"));
    }

    #[test]
    fn numbers_are_those_of_a_double() {
        assert_eq!((number(0), number((1 << 53) - 1)), (Ok(()), Ok(())));
        for bad in [1 << 53, u64::MAX] {
            assert!(number(bad).unwrap_err().to_string().contains("2^53"));
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_quotes_nothing() {
        let refusal = group_name("secret\u{7}words").unwrap_err().of("name");
        assert!(refusal.message.starts_with("name: ") && !refusal.message.contains("secret"), "{refusal}");
    }
}
