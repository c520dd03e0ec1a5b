//! Beside the socket: accounts, people, groups, lists, history, sending, the long poll, discovery. JSON over HTTP/1.1, the same tokens, the same typed errors.

pub mod accounts;
pub mod contacts;
pub mod edges;
pub mod extract;
pub mod groups;
pub mod messages;
pub mod openapi;
pub mod sync;
pub mod threads;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use natterjack_nats::Nats;
use natterjack_protocol::{Refusal, error::Code};
use natterjack_runtime::{Health, telemetry::Metrics};

use crate::{
    auth::Auth, clock::Clock, control::Control, directory::Directory, door::Door, gate::Gate, lease::Edges, pages::Pages, people::People,
    poll::Polls, posts::Posts, threads::ThreadLists,
};
use extract::Failure;

/// What the handlers use, each its part.
pub struct Api {
    pub auth: Auth,
    pub clock: Clock,
    pub gate: Gate,
    pub directory: Directory,
    pub people: People,
    pub control: Control,
    pub pages: Pages,
    pub threads: ThreadLists,
    pub polls: Polls,
    pub posts: Posts,
    pub door: Door,
    pub edges: Edges,
    pub health: Health,
    pub metrics: Option<Metrics>,
    pub nats: Nats,
    pub own_url: String,
}

pub type Shared = State<Arc<Api>>;

/// The log's clock in milliseconds, on every answer: clients mint cids in it.
pub const NOW: HeaderName = HeaderName::from_static("natterjack-now");

/// Longer than anything an answer waits for (`control` until the publish deadline and the fold, a poll for 25 s), so that a slow body
/// ends, too.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn router(api: Api) -> Router {
    let api = Arc::new(api);
    Router::new()
        .route("/v1/register", post(accounts::register))
        .route("/v1/login", post(accounts::login))
        .route("/v1/login/external", post(accounts::login_external))
        .route("/v1/refresh", post(accounts::refresh))
        .route("/v1/logout", post(accounts::logout))
        .route("/v1/users", get(accounts::find))
        .route("/v1/users/{user}", get(accounts::profile))
        .route("/v1/contacts", get(contacts::list))
        .route("/v1/contacts/{user}", post(contacts::change))
        .route("/v1/blocks/{user}", put(contacts::block).delete(contacts::unblock))
        .route("/v1/groups", post(groups::create))
        .route("/v1/groups/{group}", get(groups::show).patch(groups::rename))
        .route("/v1/groups/{group}/members", post(groups::add))
        .route("/v1/groups/{group}/members/{user}", delete(groups::remove))
        .route("/v1/groups/{group}/members/{user}/role", put(groups::role))
        .route("/v1/groups/{group}/leave", post(groups::leave))
        .route("/v1/threads", get(threads::list))
        .route("/v1/threads/{thread}/messages", get(messages::page).post(messages::send))
        .route("/v1/sync", get(sync::get).post(sync::post))
        .route("/v1/edges", get(edges::list))
        .route("/v1/openapi.json", get(openapi::serve))
        .route("/health", get(edges::health))
        .route("/ready", get(edges::ready))
        .route("/metrics", get(edges::metrics))
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_here)
        .layer(middleware::from_fn_with_state(api.clone(), around))
        .with_state(api)
}

async fn nothing_here() -> Failure {
    Failure(Refusal::new(Code::NotFound, "no such path, or not with this method; see /v1/openapi.json"))
}

/// Around every request: a deadline, the log's time, cross-origin headers, a count.
async fn around(State(api): Shared, request: Request, next: Next) -> Response {
    // Any origin, without credentials: what a page may do here hangs on the token it holds, never on a cookie.
    let preflight = request.method() == Method::OPTIONS;
    // The pattern, not the path: ids do not belong into metrics.
    let path = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let mut response = if preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        match tokio::time::timeout(PATIENCE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Failure(Refusal::unavailable("this took too long; look whether it was done before you repeat it")).into_response(),
        }
    };
    let headers = response.headers_mut();
    headers.insert(NOW, HeaderValue::from(api.clock.any_now_ms()));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("natterjack-now, retry-after"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
    metrics::counter!("natterjack_edge_http_requests_total", "path" => path, "status" => response.status().as_u16().to_string())
        .increment(1);
    response
}
