//! From a request to typed values, and from a refusal to an answer: every error of the HTTP side is the same JSON as on the socket.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Request, path::ErrorKind, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use natterjack_protocol::{Refusal, error::Code, limits};
use serde::de::DeserializeOwned;

use super::Api;
use crate::auth;

/// A refusal as an HTTP answer.
pub struct Failure(pub Refusal);

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.0.retry_after_ms.map(|ms| HeaderValue::from(ms.div_ceil(1_000)));
        let mut response = (status, Json(self.0)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

pub type Answer<T> = Result<Json<T>, Failure>;

/// Whoever the `Authorization: Bearer` token says.
pub struct Actor(pub auth::Actor);

impl FromRequestParts<Arc<Api>> for Actor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        let token = bearer(parts)
            .ok_or_else(|| Refusal::new(Code::Unauthorized, "the header `Authorization: Bearer <access token>` is missing"))?;
        let actor = api.auth.check(token).await?;
        api.door.asks(&actor.user)?;
        Ok(Self(actor))
    }
}

/// The address a request came from, as far as proxies that are trusted say it. Put there by `accept`.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let from = parts.extensions.get::<Self>().copied();
        from.ok_or_else(|| Failure(Refusal::new(Code::Internal, "a request came from nowhere")))
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The body as JSON, whatever its content type says.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = to_bytes(request.into_body(), limits::HTTP_BODY_BYTES)
            .await
            .map_err(|_| Refusal::invalid(format!("the body was cut short or has more than {} bytes", limits::HTTP_BODY_BYTES)))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|e| Failure(Refusal::new(Code::BadFrame, format!("body: {}", explain(&e)))))
    }
}

/// Serde's words name the field; its words for a value of the wrong type repeat the value, which may be a password.
fn explain(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((_, expected)) => format!("wrong type: expected {expected}"),
        None => text,
    }
}

/// Parts of the path; `UserId`, `GroupId` and `Thread` refuse what is none.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(e)) => {
                let why = match e.kind() {
                    ErrorKind::Message(m) => m.clone(),
                    ErrorKind::DeserializeError { key, message, .. } => format!("{key}: {message}"),
                    other => other.to_string(),
                };
                Err(Failure(Refusal::invalid(format!("path: {why}"))))
            }
            Err(e) => Err(Failure(Refusal::invalid(format!("path: {e}")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_status_and_says_when_to_come_back() {
        let r = Failure(Refusal { retry_after_ms: Some(1_500), ..Refusal::unavailable("x") }).into_response();
        assert_eq!((r.status().as_u16(), r.headers()[header::RETRY_AFTER].to_str().unwrap()), (503, "2"));
        for code in Code::ALL {
            assert_eq!(Failure(Refusal::new(code, "x")).into_response().status().as_u16(), code.http_status());
        }
    }

    #[tokio::test]
    async fn an_error_of_the_body_names_the_field_and_never_repeats_the_value() {
        #[derive(Debug, serde::Deserialize)]
        struct Login {
            #[expect(dead_code, reason = "only its type matters")]
            password: u8,
        }
        let body = |text: &'static str| async move {
            let request = Request::new(axum::body::Body::from(text));
            match Body::<Login>::from_request(request, &()).await {
                Ok(_) => panic!("taken"),
                Err(Failure(refusal)) => refusal,
            }
        };
        let wrong = body(r#"{"password":"hunter2"}"#).await;
        assert_eq!(wrong.code, Code::BadFrame);
        assert!(!wrong.message.contains("hunter2"), "{wrong}");
        assert!(body("{}").await.message.contains("password"));
        assert_eq!(body("not json").await.code, Code::BadFrame);
    }
}
