//! What a schema can say of names, passwords and texts: which characters never stand there. Which scripts go together,
//! what a joiner joins and what is only composed of several is said by docs/protocol.md. Spelled with ranges and not
//! with `\p{L}`, which not every reader knows.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, RefOr, Schema, SchemaFormat},
};

use super::string;
use crate::limits;

/// In ranges of a class: letters whose shape is empty.
const EMPTY: &str = r"\u115f\u1160\u3164\uffa0";
/// Likewise: selectors of variants, a mark that joins and is not seen, private use.
const UNSEEN: &str = r"\u034f\u180b-\u180f\ue000-\uf8ff\ufe00-\ufe0f\ufeff\ufff0-\ufffb\ufffe\uffff";
/// Likewise: control characters, and format characters but the joiners U+200C and U+200D.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f";
/// Likewise: the blocks without letters and digits, of ASCII and above.
const NO_LETTERS: &str = concat!(
    r"\u0000-/:-@\[-`{-\u00bf\u00d7\u00f7\u2000-\u2125\u2127-\u2129",
    r"\u212c-\u2bff\u2ff0-\u3004\uff01-\uff0f\uff1a-\uff20"
);
const NO_LETTERS_OF_FULL_WIDTH: &str = r"\uff3b-\uff40\uff5b-\uff65";
/// What else a name has, also of full width.
const SIGNS: &str = r"._\-\uff0d\uff0e\uff3f";

pub struct UserName;

impl PartialSchema for UserName {
    fn schema() -> RefOr<Schema> {
        let letter = format!("[^{NO_LETTERS}{NO_LETTERS_OF_FULL_WIDTH}{EMPTY}{UNSEEN}]");
        let pattern = format!("^[{SIGNS}]*{letter}({letter}|[{SIGNS}])*$");
        let about = "The name of an account: letters and digits of one script, `.`, `_` and `-`, at least one letter \
                     or digit. Upper and \
                     lower case are the same, and so are names that look alike. Counted when it is composed (NFC).";
        string(about, &pattern, limits::USER_NAME_MIN..=limits::USER_NAME_CHARS, "alice").into()
    }
}

impl ToSchema for UserName {}

pub struct Password;

impl PartialSchema for Password {
    fn schema() -> RefOr<Schema> {
        let pattern = format!(r"^[^{CONTROL}{UNSEEN}{EMPTY}\u17b4\u17b5]+$");
        let about = "Without control characters and characters that cannot be seen; joiners in the scripts that need \
                     them. Counted when it \
                     is composed (NFC).";
        let format = SchemaFormat::KnownFormat(KnownFormat::Password);
        string(about, &pattern, limits::PASSWORD_CHARS, "correct horse battery staple").format(Some(format)).into()
    }
}

impl ToSchema for Password {}

/// The text of a message, an edit or a caption.
pub struct Text;

impl PartialSchema for Text {
    fn schema() -> RefOr<Schema> {
        // One that is no white space and no mark, and has a shape.
        let pattern = format!(r"[^\s{CONTROL}{UNSEEN}{EMPTY}\u00a0\u0300-\u036f\u2000-\u200f\u202f\u205f\u2800\u3000]");
        let about = "Any Unicode with at least one visible character. Counted in Unicode scalar values.";
        string(about, &pattern, 1..=limits::TEXT_CHARS, "Grüß dich! 🐸").into()
    }
}

impl ToSchema for Text {}

#[cfg(test)]
mod tests {
    use crate::text;

    use super::*;

    /// The characters of a class.
    fn ranges(class: &str) -> Vec<(char, char)> {
        let mut ranges = Vec::new();
        let mut chars = class.chars();
        let mut next = move || match chars.next()? {
            '\\' => match chars.next()? {
                'u' => char::from_u32(u32::from_str_radix(&chars.by_ref().take(4).collect::<String>(), 16).unwrap())
                    .map(|c| (c, false)),
                escaped => Some((escaped, false)),
            },
            '-' => Some(('-', true)),
            c => Some((c, false)),
        };
        while let Some((c, is_range)) = next() {
            match ranges.last_mut() {
                Some((_, to)) if is_range => *to = next().unwrap().0,
                _ => ranges.push((c, c)),
            }
        }
        ranges
    }

    /// Each character that a class excludes is one that the rules of `protocol` refuse.
    #[test]
    fn no_character_is_excluded_that_the_server_takes() {
        let within = |ranges: &[(char, char)], c: char| ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
        let signs = ranges(SIGNS);
        let letters = ranges(&[NO_LETTERS, NO_LETTERS_OF_FULL_WIDTH, EMPTY, UNSEEN].concat());
        let unseen = ranges(&[CONTROL, UNSEEN, EMPTY, r"\u17b4\u17b5"].concat());
        let blank =
            ranges(&[CONTROL, UNSEEN, EMPTY, r"\u00a0\u0300-\u036f\u2000-\u200f\u202f\u205f\u2800\u3000"].concat());
        for c in '\0'..='\u{ffff}' {
            if within(&letters, c) && !within(&signs, c) {
                let names = [format!("{c}{c}"), format!("a{c}b"), format!("1{c}")];
                assert!(names.iter().all(|n| text::user_name(n).is_err()), "{c:?} may be in a name");
            }
            assert!(
                !within(&unseen, c) || text::password(&format!("password{c}")).is_err(),
                "{c:?} may be in a password"
            );
            assert!(!within(&blank, c) || text::message(&c.to_string()).is_err(), "{c:?} is a text");
        }
        // And it says something.
        assert!(
            within(&letters, '!')
                && within(&letters, '\u{2028}')
                && within(&unseen, '\u{202e}')
                && within(&blank, '\u{3164}')
        );
        assert!(!within(&letters, 'ж') && !within(&unseen, ' ') && !within(&blank, '🐸'));
    }
}
