//! The description of the HTTP side, made from the routes. `docs/openapi.json` is the same text; a test keeps it so.

use axum::{
    Extension,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use natterjack_protocol::{Code, Refusal, client::schema, schema::Time};
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

mod answers;
pub mod place;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Natterjack",
        description = "HTTP beside the WebSocket at /v1/ws. Bodies are JSON objects. Fields that are not described \
            are ignored, on both sides; query parameters that are not described are refused. A field or parameter \
            without a value is left out, never null or empty. Every answer that is not 2xx is a Refusal."
    ),
    components(schemas(Refusal, Code, Time)),
    modifiers(&Bearer)
)]
pub struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        api.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The document of these routes.
pub fn document(routes: &utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(routes).expect("a description is plain JSON");
    answers::complete(&mut document);
    document
}

/// As it is served and stands in the tree.
#[derive(Clone)]
pub struct SchemaText(Bytes);

impl SchemaText {
    pub fn of(document: &Value) -> Self {
        let mut text = serde_json::to_string_pretty(document).expect("a description is plain JSON");
        text.push('\n');
        Self(text.into())
    }
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "edges", operation_id = "describe",
    responses((status = 200, body = Object)))]
pub async fn serve(Extension(SchemaText(text)): Extension<SchemaText>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The frames of the socket, likewise.
#[derive(Clone)]
pub struct FramesText(SchemaText);

impl FramesText {
    pub fn current() -> Self {
        Self(SchemaText::of(&schema::frames()))
    }
}

/// The frames of the socket, as JSON Schema (2020-12).
#[utoipa::path(get, path = "/v1/frames.schema.json", tag = "edges", operation_id = "describeFrames",
    responses((status = 200, body = Object)))]
pub async fn serve_frames(Extension(FramesText(SchemaText(text))): Extension<FramesText>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests;
