//! How a frame is declared: once, as a row of `frames!`. The enum, the decoder, the table of names, the documentation
//! and the schema come from the row, so a new frame is a row and its handler.

use serde::de::DeserializeOwned;

use super::Request;
use crate::{
    codec::Codec,
    refusal::{Code, Refusal},
};

/// What is declared of a frame beside its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Its `t`.
    pub name: &'static str,
    pub kind: FrameKind,
    /// What it is, as documentation.
    pub about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Carries `r`; answered once with the same `r`, by this frame or by `error`.
    Request(&'static str),
    /// Carries no `r`; answered by this frame, if by any.
    Signal(Option<&'static str>),
    /// Carries the `r` of the request that it answers.
    Answer,
    /// Answers a request if it carries `r`; otherwise the edge sends it by itself.
    AnswerOrPush,
    /// The edge sends it by itself, or it answers a signal.
    Push,
}

/// A frame that cannot be taken: the request it answers, if it had one, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFrame {
    pub r: Option<Request>,
    pub refusal: Refusal,
}

/// The fields of a frame of type `t`; refused with the path of the first field that is wrong.
pub(super) fn fields<T: DeserializeOwned>(
    codec: Codec,
    bytes: &[u8],
    t: &str,
    r: Option<Request>,
) -> Result<T, BadFrame> {
    codec.fields(bytes).map_err(|why| BadFrame { r, refusal: Refusal::new(Code::BadFrame, format!("{t}: {why}")) })
}

/// The frames of one direction: per row its documentation, name, kind, and variant with its fields. Behind `strict`,
/// where every variant is a struct or nothing, also the decoder that names the first wrong field.
macro_rules! frames {
    (
        strict
        $(#[$meta:meta])*
        pub enum $frames:ident {
            $( $(#[doc = $about:tt])+ $name:tt, $kind:expr => $variant:ident $( ( $payload:ty ) )?, )+
        }
    ) => {
        frames! {
            $(#[$meta])*
            pub enum $frames {
                $( $(#[doc = $about])+ $name, $kind => $variant $( ( $payload ) )?, )+
            }
        }

        impl $frames {
            /// None: there is no frame of this name.
            fn with_fields(t: &str, codec: Codec, bytes: &[u8], r: Option<Request>) -> Result<Option<Self>, BadFrame> {
                Ok(Some(match t {
                    $( $name => Self::$variant $( ( declare::fields::<$payload>(codec, bytes, t, r)? ) )?, )+
                    _ => return Ok(None),
                }))
            }
        }
    };
    (
        $(#[$meta:meta])*
        pub enum $frames:ident {
            $(
                $(#[doc = $about:tt])+
                $name:tt, $kind:expr => $variant:ident $( ( $payload:ty ) )? $( { $($fields:tt)* } )?,
            )+
        }
    ) => {
        $(#[$meta])*
        #[serde(tag = "t")]
        pub enum $frames {
            $( $(#[doc = $about])+ #[serde(rename = $name)] $variant $( ( $payload ) )? $( { $($fields)* } )?, )+
        }

        impl $frames {
            pub const DECLARED: &[FrameInfo] = &[
                $( FrameInfo { name: $name, kind: $kind, about: concat!($($about),+) }, )+
            ];

            /// Its `t`.
            pub fn name(&self) -> &'static str {
                match self {
                    $( Self::$variant { .. } => $name, )+
                }
            }
        }
    };
}
