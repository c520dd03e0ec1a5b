//! Beside the socket: accounts, sessions, people, groups, lists, history, sending, the long poll, discovery. JSON over
//! HTTP/1.1, the same tokens, the same typed errors.

pub mod accounts;
pub mod contacts;
pub mod edges;
pub mod extract;
pub mod groups;
pub mod json;
pub mod messages;
pub mod openapi;
pub mod path;
pub mod presence;
pub mod query;
pub mod refused;
pub mod sessions;
pub mod sync;
pub mod threads;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use natterjack_protocol::{Code, Refusal};
use natterjack_runtime::Health;
use tracing::Instrument;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    admission::limits::AdmissionLimits, auth::TokenVerifier, clock::Clock, control::ControlAppender,
    cursors::CursorKeeper, directory::Directory, edges::KnownEdges, long_poll::LongPolls, pages::Pages, people::People,
    presence::Presence, receipts::Receipts, sends::http::HttpSends, status::StatusWatch, threads::ThreadLists,
};
use extract::HttpFailure;
use query::Known;
use refused::{Refused, common};

/// What the handlers use, each its part.
pub struct Api {
    pub auth: TokenVerifier,
    pub clock: Clock,
    pub status: StatusWatch,
    pub directory: Directory,
    pub people: People,
    pub presence: Presence,
    pub control: ControlAppender,
    pub pages: Pages,
    pub receipts: Receipts,
    pub threads: ThreadLists,
    pub cursors: CursorKeeper,
    pub polls: LongPolls,
    pub http_sends: HttpSends,
    pub limiter: AdmissionLimits,
    pub edges: KnownEdges,
    pub health: Health,
}

pub type Shared = State<Arc<Api>>;

/// A GET of this path asks for the WebSocket; `server/upgrade` answers it before any handler is asked.
pub const WEBSOCKET_PATH: &str = "/v1/ws";

/// Longer than anything an answer waits for (`control` until the publish deadline and the fold, a poll for 25 s).
const PATIENCE: Duration = Duration::from_secs(30);

/// Every route with its description: what is not described is not served.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(accounts::register))
        .routes(routes!(accounts::login))
        .routes(routes!(accounts::login_external))
        .routes(routes!(accounts::refresh))
        .routes(routes!(accounts::logout))
        .routes(routes!(accounts::change_password))
        .routes(routes!(accounts::delete))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::end))
        .routes(routes!(sessions::end_others))
        .routes(routes!(accounts::find))
        .routes(routes!(accounts::profile))
        .routes(routes!(contacts::list))
        .routes(routes!(contacts::change))
        .routes(routes!(contacts::blocks))
        .routes(routes!(contacts::block, contacts::unblock))
        .routes(routes!(presence::list))
        .routes(routes!(presence::settings, presence::change))
        .routes(routes!(groups::create))
        .routes(routes!(groups::show, groups::rename))
        .routes(routes!(groups::add))
        .routes(routes!(groups::remove))
        .routes(routes!(groups::role))
        .routes(routes!(groups::leave))
        .routes(routes!(threads::list))
        .routes(routes!(threads::ack))
        .routes(routes!(threads::set))
        .routes(routes!(threads::read_all))
        .routes(routes!(messages::page, messages::send))
        .routes(routes!(messages::receipts))
        .routes(routes!(sync::get, sync::post))
        .routes(routes!(edges::list))
        .routes(routes!(openapi::serve))
        .routes(routes!(openapi::serve_frames))
        .routes(routes!(edges::health))
        .routes(routes!(edges::ready))
}

pub fn router(api: Api) -> Router {
    let (routes, described) = routes().split_for_parts();
    let document = openapi::document(&described);
    let around_all = Around { clock: api.clock.clone(), known: Arc::new(Known::of(&document)), asked: Arc::default() };
    routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(another_method)
        .layer(Extension(openapi::SchemaText::of(&document)))
        .layer(Extension(openapi::FramesText::current()))
        .layer(middleware::from_fn_with_state(around_all, around))
        .with_state(Arc::new(api))
}

async fn nothing_here(uri: Uri) -> Response {
    // What is no GET of it does not ask for a socket.
    if uri.path() == WEBSOCKET_PATH {
        return ([(header::ALLOW, "GET")], another_method().await).into_response();
    }
    Refused::from(Refusal::new(Code::NotFound, "no such path; see /v1/openapi.json")).into_response()
}

async fn another_method() -> Refused {
    Refused(
        StatusCode::METHOD_NOT_ALLOWED,
        Refusal::new(Code::NotFound, "not with this method; the header `Allow` names those there are"),
    )
}

#[derive(Clone)]
struct Around {
    clock: Clock,
    known: Arc<Known>,
    /// Requests so far; the id of the next one in logs.
    asked: Arc<AtomicU64>,
}

/// Around every request: its query, a deadline, a panic, the log's time, cross-origin headers, a count.
async fn around(State(shared): State<Around>, request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS;
    // The pattern, not the path: ids do not belong into metrics.
    let path = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let id = shared.asked.fetch_add(1, Relaxed) + 1;
    let span = tracing::info_span!("request", id, method = %request.method(), path);
    let mut response = match shared.known.check(request.method(), &path, request.uri().query()) {
        _ if preflight => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => answered(request, next).instrument(span).await,
        Err(refusal) => HttpFailure(refusal).into_response(),
    };
    let headers = response.headers_mut();
    common(headers, shared.clock.any_now_ms());
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
    let status = response.status().as_u16().to_string();
    metrics::counter!(crate::metrics::HTTP_REQUESTS, "path" => path, "status" => status).increment(1);
    response
}

async fn answered(request: Request, next: Next) -> Response {
    match tokio::time::timeout(PATIENCE, AssertUnwindSafe(next.run(request)).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!("a request's handler panicked; this is a bug, the message before this one says where");
            HttpFailure(Refusal::new(Code::Internal, "a bug in the server; it is logged there")).into_response()
        }
        Err(_) => HttpFailure(Refusal::unavailable("this took too long; ask for the same again, it is done once"))
            .into_response(),
    }
}
