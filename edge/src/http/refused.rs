//! A refusal as a whole HTTP answer: the status is that of its code, unless HTTP has one that says more (405, 408,
//! 413, 415).

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use natterjack_protocol::{Refusal, Retry};

/// The log's clock in milliseconds, on every answer: clients mint cids in it.
pub const NOW: HeaderName = HeaderName::from_static("natterjack-now");

/// For who may come again and was not told when.
const AGAIN_MS: u64 = 1_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Refused(pub StatusCode, pub Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal)
    }
}

impl Refused {
    pub fn invalid(status: StatusCode, why: impl Into<String>) -> Self {
        Self(status, Refusal::invalid(why))
    }

    pub fn bad_request(why: impl Into<String>) -> Self {
        Self::invalid(StatusCode::BAD_REQUEST, why)
    }

    pub fn answer(&self) -> Response<Bytes> {
        let Self(status, refusal) = self;
        let again = (refusal.code.retry() == Retry::Later).then_some(AGAIN_MS);
        let refusal = &Refusal { retry_after_ms: refusal.retry_after_ms.or(again), ..refusal.clone() };
        let body = serde_json::to_vec(refusal).expect("a refusal is plain");
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = *status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(ms) = refusal.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        if *status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        self.answer().map(Body::from)
    }
}

/// What every answer carries, whoever gives it.
pub fn common(headers: &mut HeaderMap, now_ms: u64) {
    headers.insert(NOW, HeaderValue::from(now_ms));
    // Tokens, messages, names: nothing here is for a cache.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Any origin, without credentials: what a page may do here hangs on the token it holds, never on a cookie.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("natterjack-now, retry-after"));
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::Code;

    use super::*;

    #[test]
    fn a_refusal_is_a_whole_answer() {
        let r = Refused::from(Refusal { retry_after_ms: Some(1_500), ..Refusal::unavailable("later") }).answer();
        assert_eq!((r.status().as_u16(), r.headers()[header::RETRY_AFTER].to_str().unwrap()), (503, "2"));
        assert!(serde_json::from_slice::<Refusal>(r.body()).is_ok());
        for code in Code::ALL {
            assert_eq!(Refused::from(Refusal::new(code, "x")).0.as_u16(), code.http_status());
        }
    }
}
