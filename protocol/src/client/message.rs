//! What a client may send as a message, as a schema: the body needs other fields with each kind, which the one `Body`
//! cannot say.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{frame::SendMessage, http::NewMessage};
use crate::{
    cid::Cid,
    ids::MsgId,
    log::Media,
    schema::{CidBefore, RequestNumber, texts::Text},
    thread::Thread,
};

/// A message, or an operation on one.
#[derive(Serialize, ToSchema)]
pub struct DescribedMessage {
    pub cid: Cid,
    /// The cid of the message before it in this thread, if that has no answer yet: this one is not stored if that one
    /// is refused.
    #[schema(value_type = Option<CidBefore>)]
    pub behind: Option<Cid>,
    #[serde(flatten)]
    pub content: Content,
}

/// A message, or an operation on one, as a request.
#[derive(Serialize, ToSchema)]
pub struct DescribedSend {
    #[schema(value_type = RequestNumber)]
    pub r: u32,
    pub thread: Thread,
    #[serde(flatten)]
    pub message: DescribedMessage,
}

impl PartialSchema for NewMessage {
    fn schema() -> RefOr<Schema> {
        DescribedMessage::schema()
    }
}

impl ToSchema for NewMessage {
    fn name() -> Cow<'static, str> {
        "NewMessage".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        DescribedMessage::schemas(schemas);
    }
}

impl PartialSchema for SendMessage {
    fn schema() -> RefOr<Schema> {
        DescribedSend::schema()
    }
}

impl ToSchema for SendMessage {
    fn name() -> Cow<'static, str> {
        "SendMessage".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        DescribedSend::schemas(schemas);
    }
}

/// The body, by kind.
#[derive(Serialize, ToSchema)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum Content {
    Text(TextBody),
    Emoji(EmojiBody),
    Image(MediaBody),
    Video(MediaBody),
    File(MediaBody),
    Audio(MediaBody),
    Custom(CustomBody),
    Edit(EditBody),
    Recall(RecallBody),
    Reaction(ReactionBody),
}

/// Exactly one emoji.
#[derive(Serialize, ToSchema)]
#[schema(min_length = 1, max_length = 16, example = "👍")]
pub struct Emoji(String);

#[derive(Serialize, ToSchema)]
pub struct TextBody {
    #[schema(value_type = Text)]
    pub text: String,
    pub reply_to: Option<MsgId>,
}

/// A single large emoji.
#[derive(Serialize, ToSchema)]
pub struct EmojiBody {
    pub emoji: Emoji,
    pub reply_to: Option<MsgId>,
}

#[derive(Serialize, ToSchema)]
pub struct MediaBody {
    pub media: Media,
    /// A caption.
    #[schema(value_type = Option<Text>)]
    pub text: Option<String>,
    pub reply_to: Option<MsgId>,
}

/// Opaque bytes, for payloads that are encrypted end to end.
#[derive(Serialize, ToSchema)]
pub struct CustomBody {
    /// Base64 with the standard alphabet and padding; at most 32,768 bytes before it.
    #[schema(
        content_encoding = "base64",
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)$",
        max_length = 43692,
        example = "AAEC/v8="
    )]
    pub data: String,
    pub reply_to: Option<MsgId>,
}

/// A new text for an own message.
#[derive(Serialize, ToSchema)]
pub struct EditBody {
    pub target: MsgId,
    #[schema(value_type = Text)]
    pub text: String,
}

/// Takes a message back.
#[derive(Serialize, ToSchema)]
pub struct RecallBody {
    pub target: MsgId,
}

#[derive(Serialize, ToSchema)]
pub struct ReactionBody {
    pub target: MsgId,
    pub emoji: Emoji,
    /// Takes it away again.
    pub remove: Option<bool>,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{Kind, limits};

    fn schema<T: PartialSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap()
    }

    #[test]
    fn the_numbers_are_those_of_protocol() {
        assert_eq!(schema::<Emoji>()["maxLength"], limits::EMOJI_CHARS);
        assert_eq!(schema::<CustomBody>()["properties"]["data"]["maxLength"], limits::CUSTOM_BYTES.div_ceil(3) * 4);
        let media = schema::<Media>()["properties"].clone();
        let real = [limits::MEDIA_URL_BYTES, limits::MEDIA_MIME_CHARS, limits::MEDIA_NAME_CHARS];
        assert_eq!(["url", "mime", "name"].map(|field| media[field]["maxLength"].clone()), real.map(Value::from));
    }

    /// That what is described is what is taken, a contract test shows with every frame `send`.
    #[test]
    fn the_kinds_are_those_that_may_be_sent() {
        let content = schema::<Content>();
        let kinds = content["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| Kind::parse(c["properties"]["kind"]["enum"][0].as_str().unwrap()));
        let (sendable, others): (Vec<Kind>, Vec<Kind>) = kinds.partition(|k| k.is_message() || k.is_operation());
        assert!(sendable.len() == 10 && others.is_empty(), "{sendable:?} {others:?}");
    }
}
