//! What an entry says: the body of a message, an operation or a change, and what a client may send of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{MsgId, UserId},
    limits,
    log::{HistoryFor, Kind, Role},
    refusal::Refusal,
    schema::{GroupName, Millis},
    text,
};

/// An attachment by reference; the bytes live where `url` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Media {
    /// An absolute address (RFC 3986), without user and password.
    #[schema(
        pattern = r"^[Hh][Tt][Tt][Pp][Ss]?://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?([/?#]([!#$&-;=?-Z\[\]_a-z~]|%[0-9A-Fa-f]{2})*)?$",
        max_length = 2048,
        example = "https://files.example/7c1e.jpg"
    )]
    pub url: String,
    /// A media type (RFC 6838), without parameters.
    #[schema(
        pattern = "^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*$",
        max_length = 127,
        example = "image/png"
    )]
    pub mime: String,
    /// Bytes.
    #[schema(minimum = 0, maximum = 9007199254740991usize)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of the file: one visible line without a path.
    #[schema(
        pattern = r"^[^/\\\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]+$",
        max_length = 255,
        example = "teich.jpg"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Pixels.
    #[schema(minimum = 0, maximum = 4294967295usize)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[schema(minimum = 0, maximum = 4294967295usize)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    #[schema(value_type = Option<Millis>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// Which fields are there depends on the kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Body {
    /// `text`, `edit`; a caption with media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// `emoji`, `reaction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emoji: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// `custom`: bytes in MessagePack; in JSON base64 with the standard alphabet and padding.
    #[schema(
        value_type = Option<String>,
        content_encoding = "base64",
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?$"
    )]
    #[serde(skip_serializing_if = "Option::is_none", with = "crate::codec::opt_bytes")]
    pub data: Option<Bytes>,
    /// `edit`, `recall`, `reaction`: the message it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<MsgId>,
    /// The message this one answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MsgId>,
    /// `reaction`: takes it away again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
    /// Control entries: who is affected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserId>,
    #[schema(value_type = Option<GroupName>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// `group_created`: what new members may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryFor>,
}

impl Body {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// A list of threads shows a line of each: what a line does not take, or a device asks for anyway, goes. True:
    /// something did.
    pub fn cut_for_preview(&mut self) -> bool {
        let mut cut = self.data.take().is_some() | (self.users.len() > limits::PREVIEW_USERS);
        self.users.truncate(limits::PREVIEW_USERS);
        if let Some(text) = &mut self.text
            && let Some((end, _)) = text.char_indices().nth(limits::PREVIEW_CHARS)
        {
            text.truncate(end);
            cut = true;
        }
        cut
    }

    /// Is this the body of something a client may send as `kind`? Every limit of a body is enforced here; whether what
    /// it refers to is there only the log knows.
    pub fn check(&self, kind: Kind) -> Result<(), Refusal> {
        let need = |there: bool, field: &str| {
            if there {
                Ok(())
            } else {
                Err(Refusal::invalid(format!("body.{field} is missing: a message of kind {} needs it", kind.as_str())))
            }
        };
        if !self.users.is_empty() || self.role.is_some() || self.name.is_some() || self.history.is_some() {
            return Err(Refusal::invalid(
                "body.users, name, role and history belong to group changes; use the HTTP API for those",
            ));
        }
        match kind {
            Kind::Text => need(self.text.is_some(), "text")?,
            Kind::Emoji => need(self.emoji.is_some(), "emoji")?,
            Kind::Image | Kind::Video | Kind::File | Kind::Audio => need(self.media.is_some(), "media")?,
            Kind::Custom => need(self.data.is_some(), "data")?,
            Kind::Edit => {
                need(self.target.is_some(), "target")?;
                need(self.text.is_some(), "text")?;
            }
            Kind::Recall => need(self.target.is_some(), "target")?,
            Kind::Reaction => {
                need(self.target.is_some(), "target")?;
                need(self.emoji.is_some(), "emoji")?;
            }
            _ => return Err(Refusal::invalid(format!("kind: {} cannot be sent", kind.as_str()))),
        }
        check("body.text", self.text.as_deref(), text::message)?;
        check("body.emoji", self.emoji.as_deref(), text::emoji)?;
        if let Some(media) = &self.media {
            media.check()?;
        }
        match self.data.as_ref().map(Bytes::len) {
            Some(0) => return Err(Refusal::invalid("body.data: empty; at least one byte is needed")),
            Some(n) if n > limits::CUSTOM_BYTES => {
                return Err(Refusal::invalid(format!(
                    "body.data: {n} bytes, at most {} are allowed",
                    limits::CUSTOM_BYTES
                )));
            }
            _ => {}
        }
        for (field, id) in self.references() {
            if id.is_none() {
                return Err(Refusal::invalid(format!("{field}: 0 is no message; leave it out if there is none")));
            }
            text::number(id.0).map_err(|e| e.of(field))?;
        }
        Ok(())
    }

    /// The messages of the same thread that it speaks of, each with its field.
    pub fn references(&self) -> impl Iterator<Item = (&'static str, MsgId)> {
        let target = self.target.map(|id| ("body.target", id));
        target.into_iter().chain(self.reply_to.map(|id| ("body.reply_to", id)))
    }
}

impl Media {
    fn check(&self) -> Result<(), Refusal> {
        check("body.media.url", Some(self.url.as_str()), text::url)?;
        check("body.media.mime", Some(self.mime.as_str()), text::media_type)?;
        check("body.media.name", self.name.as_deref(), text::file_name)?;
        check("body.media.size", self.size, text::number)?;
        check("body.media.duration_ms", self.duration_ms, text::number)
    }
}

fn check<T>(field: &str, value: Option<T>, rule: impl FnOnce(T) -> Result<(), text::BadText>) -> Result<(), Refusal> {
    value.map_or(Ok(()), rule).map_err(|e| e.of(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code;

    #[test]
    fn a_preview_is_cut_at_its_limits_and_says_so() {
        let cut = |mut body: Body| (body.cut_for_preview(), body);
        assert!(!cut(Body::text("ü".repeat(limits::PREVIEW_CHARS))).0);
        let (is_cut, long) = cut(Body::text("ü".repeat(limits::PREVIEW_CHARS + 1)));
        assert!(is_cut && long.text.unwrap().chars().count() == limits::PREVIEW_CHARS);
        let users = |n: usize| (0..n).map(|n| UserId::parse(&format!("u{n}")).unwrap()).collect();
        assert!(!cut(Body { users: users(limits::PREVIEW_USERS), ..Body::default() }).0);
        let (is_cut, many) = cut(Body { users: users(limits::PREVIEW_USERS + 1), ..Body::default() });
        assert!(is_cut && many.users.len() == limits::PREVIEW_USERS);
        assert_eq!(cut(Body { data: Some(Bytes::from_static(b"x")), ..Body::default() }), (true, Body::default()));
    }

    #[test]
    fn text_is_counted_in_characters() {
        let body = |n| Body::text("ü".repeat(n));
        assert!(body(limits::TEXT_CHARS).check(Kind::Text).is_ok());
        let e = body(limits::TEXT_CHARS + 1).check(Kind::Text).unwrap_err();
        assert_eq!(e.code, Code::Invalid);
        assert!(e.message.contains("10001 characters"), "{e}");
        assert!(Body::text("").check(Kind::Text).is_err());
    }

    /// What is wrong with a body, and the field that the refusal names.
    #[test]
    fn a_field_that_is_not_allowed_is_named() {
        let media = |m: Media| Body { media: Some(m), ..Body::default() };
        let file =
            Media { url: "https://files.example/7c1e.jpg".into(), mime: "image/jpeg".into(), ..Media::default() };
        let emoji = |e: &str| Body { emoji: Some(e.into()), ..Body::default() };
        let on = |id: u64, body: Body| Body { target: Some(MsgId(id)), ..body };
        assert_eq!(media(file.clone()).check(Kind::Image), Ok(()));
        assert_eq!(Body { text: Some("Am Teich\n🐸".into()), ..media(file.clone()) }.check(Kind::Image), Ok(()));
        assert_eq!(on(5, emoji("👍")).check(Kind::Reaction), Ok(()));
        for (kind, body, field) in [
            (Kind::Text, Body::text(""), "body.text"),
            (Kind::Text, Body::text(" \n\u{200b}"), "body.text"),
            (Kind::Text, Body { reply_to: Some(MsgId(0)), ..Body::text("x") }, "body.reply_to"),
            (Kind::Text, Body { reply_to: Some(MsgId(1 << 53)), ..Body::text("x") }, "body.reply_to"),
            (Kind::Text, Body { text: None, ..Body::default() }, "body.text"),
            (Kind::Edit, on(5, Body::text("\u{3164}")), "body.text"),
            (Kind::Edit, on(0, Body::text("x")), "body.target"),
            (Kind::Recall, on(0, Body::default()), "body.target"),
            (Kind::Recall, on(u64::MAX, Body::default()), "body.target"),
            (Kind::Recall, Body::default(), "body.target"),
            (Kind::Emoji, emoji(""), "body.emoji"),
            (Kind::Emoji, emoji(" "), "body.emoji"),
            (Kind::Reaction, on(5, emoji("\n")), "body.emoji"),
            (Kind::Reaction, on(5, emoji("hello")), "body.emoji"),
            (Kind::Reaction, on(0, emoji("👍")), "body.target"),
            (Kind::Custom, Body { data: Some(Bytes::new()), ..Body::default() }, "body.data"),
            (Kind::Image, Body::text("a caption"), "body.media"),
            (Kind::Image, Body { text: Some(" ".into()), ..media(file.clone()) }, "body.text"),
            (Kind::Image, media(Media { url: String::new(), ..file.clone() }), "body.media.url"),
            (Kind::File, media(Media { url: "javascript:alert(1)".into(), ..file.clone() }), "body.media.url"),
            (Kind::Video, media(Media { mime: String::new(), ..file.clone() }), "body.media.mime"),
            (Kind::Audio, media(Media { mime: "audio".into(), ..file.clone() }), "body.media.mime"),
            (Kind::File, media(Media { name: Some("../../etc/passwd".into()), ..file.clone() }), "body.media.name"),
            (Kind::File, media(Media { name: Some(String::new()), ..file.clone() }), "body.media.name"),
            (Kind::File, media(Media { size: Some(u64::MAX), ..file.clone() }), "body.media.size"),
            (Kind::File, media(Media { size: Some(1 << 53), ..file.clone() }), "body.media.size"),
            (Kind::Video, media(Media { duration_ms: Some(1 << 53), ..file.clone() }), "body.media.duration_ms"),
        ] {
            let refusal = body.check(kind).expect_err(field);
            let named = refusal.message.split([':', ' ']).next();
            assert_eq!((refusal.code, named), (Code::Invalid, Some(field)), "{refusal}");
        }
    }

    #[test]
    fn control_kinds_cannot_be_sent_as_messages() {
        assert!(Body::text("x").check(Kind::MemberAdded).is_err());
        assert!(Body::text("x").check(Kind::Unknown).is_err());
        let sneaky = Body { users: vec![UserId::parse("a").unwrap()], ..Body::text("x") };
        assert!(sneaky.check(Kind::Text).is_err());
    }
}
