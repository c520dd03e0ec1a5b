//! What a client may send as a message. The body needs other fields with each kind, which `protocol`'s one `Body` cannot say.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    scalar::{Cid, CidBefore, MsgId},
    schema::Media,
    texts::Text,
};

#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewMessage {
    pub cid: Cid,
    /// The cid of the message before it in this thread, if that has no answer yet: this one is not stored if that one is refused.
    pub behind: Option<CidBefore>,
    #[serde(flatten)]
    pub content: Content,
}

/// The body, by kind.
#[derive(Serialize, Deserialize, ToSchema)]
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
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(min_length = 1, max_length = 16, example = "👍")]
pub struct Emoji(String);

#[derive(Serialize, Deserialize, ToSchema)]
pub struct TextBody {
    pub text: Text,
    pub reply_to: Option<MsgId>,
}

/// A single large emoji.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct EmojiBody {
    pub emoji: Emoji,
    pub reply_to: Option<MsgId>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct MediaBody {
    pub media: Media,
    /// A caption.
    pub text: Option<Text>,
    pub reply_to: Option<MsgId>,
}

/// Opaque bytes, for payloads that are encrypted end to end.
#[derive(Serialize, Deserialize, ToSchema)]
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
#[derive(Serialize, Deserialize, ToSchema)]
pub struct EditBody {
    pub target: MsgId,
    pub text: Text,
}

/// Takes a message back.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RecallBody {
    pub target: MsgId,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct ReactionBody {
    pub target: MsgId,
    pub emoji: Emoji,
    /// Takes it away again.
    pub remove: Option<bool>,
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::limits;
    use utoipa::PartialSchema;

    use super::*;
    use crate::http::messages::Message;

    fn max_length(schema: &serde_json::Value) -> u64 {
        schema["maxLength"].as_u64().unwrap()
    }

    #[test]
    fn the_numbers_are_those_of_protocol() {
        let of = |schema| max_length(&serde_json::to_value(schema).unwrap()) as usize;
        assert_eq!(of(Emoji::schema()), limits::EMOJI_CHARS);
        let data = serde_json::to_value(CustomBody::schema()).unwrap()["properties"]["data"].clone();
        assert_eq!(max_length(&data) as usize, limits::CUSTOM_BYTES.div_ceil(3) * 4);
    }

    /// Each kind that is described here is one that may be sent, with just the fields that are required here.
    #[test]
    fn the_kinds_are_those_that_may_be_sent() {
        let text = |s: &str| Text(s.into());
        let media = || MediaBody {
            media: serde_json::from_value(serde_json::json!({ "url": "https://h/x", "mime": "image/png" })).unwrap(),
            text: None,
            reply_to: None,
        };
        let id = || serde_json::from_value::<MsgId>(1.into()).unwrap();
        let all = [
            Content::Text(TextBody { text: text("x"), reply_to: None }),
            Content::Emoji(EmojiBody { emoji: Emoji("👍".into()), reply_to: None }),
            Content::Image(media()),
            Content::Video(media()),
            Content::File(media()),
            Content::Audio(media()),
            Content::Custom(CustomBody { data: "AAEC".into(), reply_to: None }),
            Content::Edit(EditBody { target: id(), text: text("y") }),
            Content::Recall(RecallBody { target: id() }),
            Content::Reaction(ReactionBody { target: id(), emoji: Emoji("👍".into()), remove: None }),
        ];
        let mut kinds = Vec::new();
        for content in all {
            let cid = serde_json::from_value("019f2314-e9e8-715a-9122-334455667788".into()).unwrap();
            let mut sent = serde_json::to_value(NewMessage { cid, behind: None, content }).unwrap();
            if let Some(sent) = sent.as_object_mut() {
                sent.retain(|_, v| !v.is_null());
            }
            if let Some(body) = sent["body"].as_object_mut() {
                body.retain(|_, v| !v.is_null());
            }
            if let Some(media) = sent["body"]["media"].as_object_mut() {
                media.retain(|_, v| !v.is_null());
            }
            let message: Message = serde_json::from_value(sent.clone()).unwrap_or_else(|e| panic!("{sent}: {e}"));
            assert_eq!(message.body.check(message.kind), Ok(()), "{sent}");
            kinds.push(message.kind);
        }
        let sendable = |k: &natterjack_protocol::Kind| k.is_message() || k.is_operation();
        assert!(kinds.iter().all(sendable) && kinds.len() == 10);
    }
}
