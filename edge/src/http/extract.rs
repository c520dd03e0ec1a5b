//! From a request to typed values, and from a refusal to an answer: every error of the HTTP side is the same JSON as
//! on the socket.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use axum::{
    Json,
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Request, path::ErrorKind, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use natterjack_protocol::{Code, Refusal, limits};
use serde::de::DeserializeOwned;

use super::{Api, json, refused::Refused};
use crate::{address::Came, auth};

/// A refusal as an HTTP answer.
pub struct HttpFailure(pub Refusal);

impl From<Refusal> for HttpFailure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for HttpFailure {
    fn into_response(self) -> Response {
        Refused::from(self.0).into_response()
    }
}

pub type Answer<T> = Result<Json<T>, HttpFailure>;

/// Whoever the `Authorization: Bearer` token says.
pub struct Authenticated(pub auth::Actor);

impl FromRequestParts<Arc<Api>> for Authenticated {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, HttpFailure> {
        let token = bearer(parts).ok_or_else(|| {
            Refusal::new(Code::Unauthorized, "the header `Authorization: Bearer <access token>` is missing")
        })?;
        let actor = api.auth.check(token).await?;
        api.limiter.asks(&actor.user)?;
        Ok(Self(actor))
    }
}

/// The address a request came from, as far as proxies that are trusted say it. Put there by `connection`.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpFailure> {
        let from = parts.extensions.get::<Self>().copied();
        from.ok_or_else(|| HttpFailure(Refusal::new(Code::Internal, "a request came from nowhere")))
    }
}

/// By which address it came. Put there by `connection`, too.
impl<S: Sync> FromRequestParts<S> for Came {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The body as a JSON object, read as strictly as a frame, if its content type says that it is one: a page of somebody
/// else cannot send that without asking first. How large it may be was seen to when it was read.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        if !is_json(request.headers()) {
            let why = "the body must be JSON and say so: `Content-Type: application/json`";
            return Err(Refused::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        let bytes = to_bytes(request.into_body(), limits::HTTP_BODY_BYTES)
            .await
            .map_err(|_| Refused::bad_request("the body was cut short"))?;
        json::read(&bytes).map(Self).map_err(|why| Refusal::new(Code::BadFrame, format!("body: {why}")).into())
    }
}

/// Once, in any case, with UTF-8 if it names a charset.
fn is_json(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(Ok(value)), None) = (all.next().map(HeaderValue::to_str), all.next()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|t| t.eq_ignore_ascii_case("application/json"));
    json && parts.all(|p| match p.split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
            charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

/// Parts of the path; `UserId`, `GroupId` and `Thread` refuse what is none.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpFailure> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(e)) => {
                let why = match e.kind() {
                    ErrorKind::Message(m) => m.clone(),
                    ErrorKind::DeserializeError { key, message, .. } => format!("{key}: {message}"),
                    other => other.to_string(),
                };
                Err(HttpFailure(Refusal::invalid(format!("path: {why}"))))
            }
            Err(e) => Err(HttpFailure(Refusal::invalid(format!("path: {e}")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_says_so() {
        let is = |types: &[&'static str]| {
            let name = || header::CONTENT_TYPE;
            is_json(&types.iter().map(|t| (name(), HeaderValue::from_static(t))).collect())
        };
        assert!(
            is(&["application/json"]) && is(&["Application/JSON; charset=\"UTF-8\""]) && is(&["application/json;x"])
        );
        for other in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "application/json; charset=utf-16",
            "",
        ] {
            assert!(!is(&[other]), "{other}");
        }
        assert!(!is(&[]) && !is(&["application/json", "application/json"]));
    }
}
