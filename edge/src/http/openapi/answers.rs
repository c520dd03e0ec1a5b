//! Completes the document: what may be answered beside success, from the codes that an operation names in `x-codes`
//! and those that any request may get; the headers of every answer; and nothing is ever null.

use std::collections::BTreeMap;

use natterjack_protocol::{Code, Retry, schema::without_null};
use serde_json::{Map, Value, json};

/// Named by an operation's `extensions`, and taken out here.
const CODES: &str = "x-codes";

/// Where a body is read, HTTP has statuses that say more than the code: too slow, too large, not said to be JSON.
const OF_BODIES: [(u16, Code); 3] = [(408, Code::Unavailable), (413, Code::Invalid), (415, Code::Invalid)];

pub fn complete(document: &mut Value) {
    without_null(document);
    let mut refusals = Map::new();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            let codes = codes(path, operation);
            let Some(responses) = operation["responses"].as_object_mut() else { continue };
            for response in responses.values_mut() {
                response["headers"] = headers(None);
                response["description"] = "As asked.".into();
            }
            for (status, codes) in codes {
                let mut name = codes.iter().map(|c| c.name()).collect::<Vec<_>>().join("-or-");
                if OF_BODIES.iter().any(|(s, _)| *s == status) {
                    name = format!("{name}-{status}");
                }
                responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
                refusals.entry(name).or_insert_with(|| refusal(status, &codes));
            }
        }
    }
    document["components"]["responses"] = refusals.into();
    document["components"]["headers"]["Natterjack-Now"] = json!({
        "description": "The server's time in milliseconds since 1970: make cids in it.",
        "required": true,
        "schema": { "$ref": "#/components/schemas/Time" },
    });
}

/// By status.
fn codes(path: &str, operation: &mut Value) -> BTreeMap<u16, Vec<Code>> {
    let own = operation.as_object_mut().and_then(|o| o.remove(CODES));
    let own: Vec<Code> = own.and_then(|codes| serde_json::from_value(codes).ok()).unwrap_or_default();
    // A request may take too long, its address may have too much of answers, and a bug is answered.
    let mut all = vec![Code::Unavailable, Code::Internal, Code::RateLimited];
    if path.starts_with("/v1/") {
        // At least a parameter that the operation does not have.
        all.push(Code::Invalid);
    }
    if operation.get("security").is_some() {
        all.extend([Code::Unauthorized, Code::TokenExpired]);
    }
    let body = operation.get("requestBody").is_some();
    if body {
        all.push(Code::BadFrame);
    }
    all.extend(own);
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.into_iter().filter(|c| all.contains(c)) {
        by_status.entry(code.http_status()).or_default().push(code);
    }
    if body {
        by_status.extend(OF_BODIES.map(|(status, code)| (status, vec![code])));
    }
    by_status
}

fn refusal(status: u16, codes: &[Code]) -> Value {
    let said: Vec<String> = codes.iter().map(|c| format!("`{}`: {}", c.name(), c.meaning())).collect();
    let names: Vec<&str> = codes.iter().map(|c| c.name()).collect();
    let examples: Map<String, Value> =
        codes.iter().map(|c| (c.name().to_owned(), json!({ "value": example(*c) }))).collect();
    let only = json!({ "type": "object", "properties": { "code": { "enum": names } } });
    json!({
        "description": said.join(" "),
        "headers": headers(Some(status)),
        "content": { "application/json": {
            "schema": { "allOf": [{ "$ref": "#/components/schemas/Refusal" }, only] },
            "examples": examples,
        } },
    })
}

fn example(code: Code) -> Value {
    let mut refusal = json!({ "code": code.name(), "message": code.meaning() });
    if code.retry() == Retry::Later {
        refusal["retry_after_ms"] = 1_000.into();
    }
    if code == Code::ClockAhead {
        refusal["now_ms"] = 1_783_000_000_000_u64.into();
    }
    refusal
}

fn headers(status: Option<u16>) -> Value {
    let mut headers = json!({ "Natterjack-Now": { "$ref": "#/components/headers/Natterjack-Now" } });
    if matches!(status, Some(408 | 429 | 500 | 503)) {
        headers["Retry-After"] = json!({
            "description": "Seconds: `retry_after_ms`, rounded up.", "required": true,
            "schema": { "type": "integer", "minimum": 1 },
        });
    }
    if status == Some(401) {
        headers["WWW-Authenticate"] = json!({ "required": true, "schema": { "type": "string", "enum": ["Bearer"] } });
    }
    headers
}
