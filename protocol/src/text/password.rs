//! Passwords by the profile OpaqueString (RFC 8265, 4.2): what looks the same is the same, whatever keyboard it was
//! typed on.
//!
//! The classes of RFC 8264 are taken from today's Unicode, where the registry has stopped at that of 2013: emoji are
//! younger.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::{BadText, chars, in_range};
use crate::limits;

/// The password as it is hashed and compared: spaces are U+0020, the rest is composed (NFC); case and width count.
pub fn password(typed: &str) -> Result<String, BadText> {
    let spaces = |c: char| if c.general_category() == GeneralCategory::SpaceSeparator { ' ' } else { c };
    let kept: String = typed.chars().map(spaces).nfc().collect();
    in_range(&kept, limits::PASSWORD_CHARS)?;
    let mut before = None;
    let mut rest = kept.chars();
    while let Some(c) = rest.next() {
        let ok = match c {
            ' ' => true,
            // In the scripts that cannot be written without them.
            chars::ZWJ | chars::ZWNJ => {
                !chars::is_pictograph(before.unwrap_or(' ')) && chars::joins(c, before, rest.clone().next())
            }
            c => {
                let class = c.general_category_group();
                !chars::is_ignorable(c)
                    && !matches!(class, GeneralCategoryGroup::Other | GeneralCategoryGroup::Separator)
            }
        };
        if !ok {
            return Err(BadText::new(
                "a control character, or one that cannot be seen; type letters, digits, signs and spaces",
            ));
        }
        before = Some(c);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_on_every_keyboard() {
        // Decomposed (macOS) and composed (Windows); a space that was typed with the option key held; Korean in parts.
        for (one, other) in [
            ("pa\u{308}sswort", "p\u{e4}sswort"),
            ("two\u{a0}words", "two words"),
            ("two\u{3000}words", "two words"),
            ("\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}12345678", "한국12345678"),
            ("\u{212b}ngstr\u{f6}m", "\u{c5}ngstro\u{308}m"),
        ] {
            assert_eq!(password(one).unwrap(), password(other).unwrap(), "{one:?}");
        }
        for (one, other) in
            [("Password", "password"), ("ｐassword", "password"), ("pass word", "password"), (" password", "password")]
        {
            assert_ne!(password(one).unwrap(), password(other).unwrap(), "{one:?}");
        }
    }

    #[test]
    fn what_a_password_may_have() {
        for good in ["correct horse", "пароль-пароль", "🤣🤣🤣🤣🤣🤣🤣🤣", "12345678", "می\u{200c}خواهم1"]
        {
            assert_eq!(password(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "seven 7",
            "tab\tpassword",
            "password\n",
            "password\0",
            "password\u{200b}",
            "\u{feff}password",
            "pass\u{202e}word",
            "passwo\u{200d}rd",
        ] {
            assert!(password(bad).is_err(), "{bad:?}");
        }
        // Counted when it is composed.
        assert!(password(&"e\u{301}".repeat(7)).is_err());
        assert_eq!(password(&"e\u{301}".repeat(256)), Ok("é".repeat(256)));
        assert!(password(&"é".repeat(257)).is_err());
    }
}
