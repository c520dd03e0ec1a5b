//! What a character does on a screen: seen, blank, or at work unseen. Tables of Unicode, and what they leave open.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeEmoji, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

pub const ZWNJ: char = '\u{200c}';
pub const ZWJ: char = '\u{200d}';

/// Default_Ignorable_Code_Point: has no shape of its own.
pub fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// White space, and letters and symbols whose shape is empty.
pub fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{2800}' | '\u{1d159}' | '\u{13441}'..='\u{13442}')
}

pub fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

/// A sign that is a format character by its category only: Arabic and Syriac number signs and the like.
fn is_number_sign(c: char) -> bool {
    matches!(
        c,
        '\u{600}'..='\u{605}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{110bd}'
            | '\u{110cd}'
    )
}

/// Puts something on the screen by itself. What this version of the tables does not know yet (a new emoji) does.
pub fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    if is_blank(c) || is_ignorable(c) || is_noncharacter(c) {
        return false;
    }
    match c.general_category_group() {
        GeneralCategoryGroup::Letter
        | GeneralCategoryGroup::Number
        | GeneralCategoryGroup::Punctuation
        | GeneralCategoryGroup::Symbol => true,
        GeneralCategoryGroup::Other => c.general_category() == GeneralCategory::Unassigned || is_number_sign(c),
        GeneralCategoryGroup::Mark | GeneralCategoryGroup::Separator => false,
    }
}

/// Steers what is around it: breaks the line, changes the direction, or is not seen at all.
pub fn is_steering(c: char) -> bool {
    let by_category = matches!(
        c.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    );
    (by_category && !is_number_sign(c)) || is_ignorable(c) || is_noncharacter(c)
}

pub fn is_mark(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Mark && !is_ignorable(c)
}

/// A mark that takes no room of its own: many of them on one letter reach into other lines.
pub fn is_stacked(c: char) -> bool {
    matches!(c.general_category(), GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark) && !is_ignorable(c)
}

pub fn is_variation(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{180b}'..='\u{180d}' | '\u{180f}')
}

/// The letters of a subdivision's flag, and the tag that ends them.
pub fn is_tag(c: char) -> bool {
    matches!(c, '\u{e0020}'..='\u{e007f}')
}

/// Can be the base or a part of an emoji, digits aside.
pub fn is_pictograph(c: char) -> bool {
    // The blocks that new emoji come from.
    let reserved = || {
        matches!(c, '\u{1f000}'..='\u{1faff}' | '\u{1fc00}'..='\u{1fffd}')
            && c.general_category() == GeneralCategory::Unassigned
    };
    !c.is_ascii() && (c.is_emoji_char() || reserved())
}

/// Does a joiner (`ZWJ`, `ZWNJ`) change how its neighbours are written? In scripts whose letters join, and between the
/// parts of an emoji; between Latin letters it is only there to be overlooked.
pub fn joins(joiner: char, before: Option<char>, after: Option<char>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return false };
    if joiner == ZWJ && is_pictograph(after) {
        return is_pictograph(before) || matches!(before, '\u{fe0f}') || is_tag(before);
    }
    let cursive = |c: char| {
        let letter = matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark);
        letter
            && !is_ignorable(c)
            && !matches!(c.script(), Script::Latin | Script::Greek | Script::Cyrillic | Script::Common)
    };
    // "Inherited" is the script of marks that go with any letter.
    let marked = |c: char| c.script() == Script::Inherited && !is_mark(c);
    cursive(before) && cursive(after) && !marked(before) && !marked(after)
}
