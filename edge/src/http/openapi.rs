//! The description of the HTTP side, made from the handlers. `docs/openapi.json` is the same text; a test keeps it so.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

pub mod schema;

#[derive(OpenApi)]
#[openapi(
    info(title = "Natterjack", description = "HTTP beside the WebSocket at /v1/ws. Every error is a Refusal."),
    modifiers(&Bearer),
    paths(
        super::accounts::register, super::accounts::login, super::accounts::login_external, super::accounts::refresh, super::accounts::logout,
        super::accounts::find, super::accounts::profile,
        super::contacts::list, super::contacts::change, super::contacts::block, super::contacts::unblock,
        super::groups::create, super::groups::show, super::groups::rename, super::groups::add, super::groups::remove,
        super::groups::role, super::groups::leave,
        super::threads::list, super::messages::page, super::messages::send, super::sync::get, super::sync::post,
        super::edges::list, super::edges::health, super::edges::ready, super::edges::metrics,
    )
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        api.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

pub fn json() -> String {
    let mut text = Description::openapi().to_pretty_json().expect("a description is plain JSON");
    text.push('\n');
    text
}

pub async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NATTERJACK_UPDATE_DOCS=1 cargo test -p natterjack-edge` writes the file anew.
    #[test]
    fn the_file_in_the_tree_is_what_is_served() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        if std::env::var_os("NATTERJACK_UPDATE_DOCS").is_some() {
            std::fs::write(&path, json()).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == json(), "docs/openapi.json is old: run this test with NATTERJACK_UPDATE_DOCS=1");
    }

    /// Whoever adds a route describes it.
    #[test]
    fn every_route_is_described() {
        let source = include_str!("../http.rs");
        let text = json();
        let routes: Vec<&str> = source.lines().filter_map(|l| l.trim().strip_prefix(".route(\"")?.split('"').next()).collect();
        assert!(routes.len() > 15);
        for route in routes.into_iter().filter(|r| *r != "/v1/openapi.json") {
            assert!(text.contains(&format!("\"{route}\": {{")), "{route}");
        }
    }
}
