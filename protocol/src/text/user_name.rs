//! Names of users: identifiers by PRECIS (RFC 8264, 8265) that cannot be taken for each other (UTS 39).
//!
//! A name is shown as its owner wrote it, and nobody else can have one that looks the same: what is unique is its key,
//! the skeleton of UTS 39 with case ignored. So `Alice`, `ALICE`, `aIice` (a capital i) and `a1ice` are one name, and
//! so are `arno` and `amo`.

use precis_profiles::{UsernameCasePreserved, precis_core::profile::PrecisFastInvocation};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};
use unicode_security::{GeneralSecurityProfile, RestrictionLevel, RestrictionLevelDetection, skeleton};

use super::{BadText, in_range, line::one_line};
use crate::limits;

/// The name as it is kept and shown. Full-width letters become plain ones, the rest is composed (NFC). Outside of the
/// Latin script it is in lower case: capitals of different scripts look alike where their small letters do not.
pub fn user_name(name: &str) -> Result<String, BadText> {
    let kept = prepared(name).ok_or_else(|| BadText::new("letters and digits of one script, and . _ - are allowed"))?;
    in_range(&kept, limits::USER_NAME_MIN..=limits::USER_NAME_CHARS)?;
    if !kept.chars().any(char::is_alphanumeric) {
        return Err(BadText::new("at least one letter or digit is needed"));
    }
    one_line(&kept)?;
    if kept.detect_restriction_level() > RestrictionLevel::HighlyRestrictive {
        return Err(BadText::new(
            "letters of different scripts; one is allowed, and Latin together with Chinese, Japanese or Korean",
        ));
    }
    Ok(kept)
}

/// As much of this text as a name may have, character by character; it need not be a name yet.
pub fn user_name_chars(text: &str) -> impl Iterator<Item = char> {
    text.nfkc().filter(|c| may_be_in_a_name(*c))
}

/// Under which a name is unique. Of whatever is no name too, so that nobody has to ask before they look something up.
pub fn user_name_key(name: &str) -> String {
    let name = prepared(name).unwrap_or_else(|| name.to_owned());
    let mut key: String = name.chars().flat_map(lower).collect();
    // A skeleton may have capitals (0 is O) and what is confusable again; three rounds are the most any character
    // takes.
    for _ in 0..4 {
        let next: String = skeleton(&key).flat_map(char::to_lowercase).collect();
        if next == key {
            break;
        }
        key = next;
    }
    // A capital i looks like an l, and case is ignored.
    key.replace('i', "l")
}

/// Are these the same name, case aside? Names that are only confusable are not.
pub fn same_user(one: &str, other: &str) -> bool {
    one == other || mapped(one).is_some_and(|m| Some(m) == mapped(other))
}

/// The beginning of a name that somebody looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    mapped: String,
    key: String,
}

impl Prefix {
    /// None: no name begins so. An error: too short to look for.
    pub fn of(typed: &str) -> Result<Option<Self>, BadText> {
        let Some(begin) = prepared(typed) else {
            let composed = typed.nfc().count();
            return if composed < limits::USER_NAME_MIN { Err(Self::short()) } else { Ok(None) };
        };
        if begin.chars().count() < limits::USER_NAME_MIN {
            return Err(Self::short());
        }
        Ok(mapped(&begin).map(|mapped| Self { mapped, key: user_name_key(&begin) }))
    }

    fn short() -> BadText {
        BadText::new(format!("at least {} characters are needed", limits::USER_NAME_MIN))
    }

    /// What the key of every such name begins with; keys of others may, too. At least two characters.
    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn begins(&self, name: &str) -> bool {
        mapped(name).is_some_and(|n| n.starts_with(&self.mapped))
    }
}

/// As UsernameCaseMapped compares names.
fn mapped(name: &str) -> Option<String> {
    Some(prepared(name)?.chars().flat_map(lower).nfc().collect())
}

/// Small letters, and one sigma: which of the two it is depends on what comes behind it.
fn lower(c: char) -> impl Iterator<Item = char> {
    c.to_lowercase().map(|l| if l == 'ς' { 'σ' } else { l })
}

/// By UsernameCasePreserved, as far as names here go. None: it has something that no name has.
fn prepared(name: &str) -> Option<String> {
    let kept = UsernameCasePreserved::enforce(name).ok()?.into_owned();
    if !kept.chars().all(may_be_in_a_name) {
        return None;
    }
    let latin = kept.chars().all(|c| matches!(c.script(), Script::Latin | Script::Common | Script::Inherited));
    Some(if latin { kept } else { kept.chars().flat_map(char::to_lowercase).nfc().collect() })
}

/// Letters, marks and digits that UTS 39 recommends for identifiers. Of signs three: everything else means something
/// somewhere.
fn may_be_in_a_name(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    }
    let class = matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark)
        || c.general_category() == GeneralCategory::DecimalNumber;
    class && c.identifier_allowed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_as_they_are_kept() {
        for (given, kept) in [
            ("al", "al"),
            ("Alice", "Alice"),
            ("a.b_c-9", "a.b_c-9"),
            ("_x", "_x"),
            ("Ａｌｉｃｅ", "Alice"),
            ("Zoë", "Zoë"),
            ("Zoe\u{308}", "Zoë"),
            ("Łukasz", "Łukasz"),
            ("Жанна", "жанна"),
            ("Ηλίας", "ηλίας"),
            ("王小明", "王小明"),
            ("さくらabc", "さくらabc"),
            ("한국어", "한국어"),
            ("שלום1", "שלום1"),
            ("علی", "علی"),
        ] {
            assert_eq!(user_name(given).as_deref(), Ok(kept), "{given:?}");
        }
        assert_eq!(user_name(&"x".repeat(32)).unwrap().len(), 32);
        assert_eq!(user_name(&"e\u{308}".repeat(32)).unwrap().chars().count(), 32, "counted when it is composed");
        for bad in [
            "",
            "a",
            "..",
            "-_-",
            "a b",
            "a\0b",
            "al\n",
            "a*",
            "a/b",
            "a@b",
            "<b>",
            "a:b",
            "a'b",
            "a\u{200b}b",
            "a\u{200d}b",
            "ab\u{202e}",
            "ab\u{feff}",
            "a\u{3164}b",
            "\u{301}ab",
            "a\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}b",
            "аlice",
            "Жanna",
            "אa",
            "🐸🐸",
            "𝒜lice",
            "ﬁx",
            "x²",
            "½a",
            "e\u{308}",
            &"x".repeat(33),
        ] {
            assert!(user_name(bad).is_err(), "{bad:?}: {:?}", user_name(bad));
        }
    }

    #[test]
    fn names_that_look_alike_have_one_key() {
        for (one, other) in [
            ("Alice", "aLICE"),
            ("alice", "aIice"),
            ("alice", "a1ice"),
            ("Alice", "AIice"),
            ("ALICE", "aIice"),
            ("amo", "arno"),
            ("AMO", "ARNO"),
            ("bob", "b0b"),
            ("BOB", "b0b"),
            ("zoë", "ZOE\u{308}"),
            ("ｂｏｂ", "bob"),
            ("ann", "аnn"),
            ("сосо", "coco"),
            ("οδος", "ΟΔΟΣ"),
        ] {
            assert_eq!(user_name_key(one), user_name_key(other), "{one:?} {other:?}");
        }
        for (one, other) in [
            ("alice", "alicia"),
            ("zoe", "zoë"),
            ("a.b", "a-b"),
            ("ann", "anna"),
            ("dave", "dane"),
            ("王", "玉"),
            ("ab", "ba"),
        ] {
            assert_ne!(user_name_key(one), user_name_key(other), "{one:?} {other:?}");
        }
        assert!(
            same_user("Zoe\u{308}", "zoë")
                && same_user("ΟΔΟΣ", "οδος")
                && !same_user("alice", "aIice")
                && !same_user("a b", "A b")
        );
    }

    #[test]
    fn prefixes() {
        let begins = |prefix: &str, name: &str| {
            let prefix = Prefix::of(prefix).unwrap().unwrap();
            prefix.begins(name) && user_name_key(name).starts_with(prefix.key())
        };
        assert!(
            begins("AL", "Alice") && begins("zoe\u{308}", "Zoë") && begins("ＡＬ", "alice") && begins("ΟΔ", "οδος")
        );
        assert!(begins("am", "amy") && begins("ar", "arno") && !begins("ar", "amo"));
        assert!(!begins("aI", "alice") && !begins("alicex", "alice"));
        assert!(
            Prefix::of("").is_err()
                && Prefix::of("a").is_err()
                && Prefix::of("e\u{308}").is_err()
                && Prefix::of("*").is_err()
        );
        assert_eq!((Prefix::of("a*"), Prefix::of("a%"), Prefix::of("ab c")), (Ok(None), Ok(None), Ok(None)));
    }

    /// Keys are stored. If this fails, the tables of a library have changed: keep the old version, or make all keys
    /// anew.
    #[test]
    fn the_keys_are_those_that_are_stored() {
        let mut hash = blake3::Hasher::new();
        for c in (0..=0x3_ffff).filter_map(char::from_u32).filter(|c| may_be_in_a_name(*c)) {
            hash.update(user_name_key(&format!("a{c}z")).as_bytes());
            hash.update(b"\n");
        }
        assert_eq!(&hash.finalize().to_hex()[..16], "75c6bf1815de2c2f");
    }

    proptest! {
        #[test]
        fn a_name_is_one_line_that_is_kept_as_it_is(name in any_name()) {
            let Ok(kept) = user_name(&name) else { return Ok(()) };
            prop_assert_eq!(user_name(&kept), Ok(kept.clone()));
            prop_assert_eq!(one_line(&kept), Ok(()));
            prop_assert!(same_user(&kept, &name) && user_name_key(&kept) == user_name_key(&name));
        }

        /// A key is its own key, and case and composition do not matter to it.
        #[test]
        fn keys_are_stable(name in any_name()) {
            let key = user_name_key(&name);
            prop_assert_eq!(user_name_key(&key), key.clone());
            if let Ok(kept) = user_name(&name) {
                prop_assert_eq!(user_name_key(&kept.to_lowercase()), key.clone());
                prop_assert_eq!(user_name_key(&kept.nfd().collect::<String>()), key);
            }
        }

        /// Every beginning of a name finds it.
        #[test]
        fn a_name_is_found_by_its_beginnings(name in any_name()) {
            let Ok(kept) = user_name(&name) else { return Ok(()) };
            let key = user_name_key(&kept);
            let ends: Vec<usize> = kept.char_indices().map(|(i, c)| i + c.len_utf8()).collect();
            for end in ends {
                if let Ok(Some(prefix)) = Prefix::of(&kept[..end]) {
                    let begins = prefix.begins(&kept) && key.starts_with(prefix.key());
                prop_assert!(begins, "{:?} {:?}", &kept[..end], kept);
                }
            }
        }
    }

    fn any_name() -> impl Strategy<Value = String> {
        let letter = prop::sample::select(
            "abcilmnorIOLMR019.-_ABZëößłıжЖсοΟςΣ中さ한علیשא\u{308}\u{301}Ａ".chars().collect::<Vec<_>>(),
        );
        prop::collection::vec(prop_oneof![9 => letter, 1 => any::<char>()], 0..8).prop_map(|c| c.into_iter().collect())
    }
}
