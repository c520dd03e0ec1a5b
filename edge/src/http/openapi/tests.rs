use std::collections::HashSet;

use natterjack_protocol::Code;
use serde_json::Value;

use super::*;

fn current() -> Value {
    document(crate::http::routes().get_openapi())
}

/// `NATTERJACK_REGENERATE=1 cargo test --profile fast --workspace --lib` writes the file anew.
#[test]
fn the_file_in_the_tree_is_what_is_served() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let SchemaText(now) = SchemaText::of(&current());
    if std::env::var_os("NATTERJACK_REGENERATE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let there = std::fs::read(&path).unwrap_or_default();
    assert!(there == now, "docs/openapi.json is old: run this test with NATTERJACK_REGENERATE=1");
}

fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    items.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, op)| (format!("{method} {path}"), op))
    })
}

#[test]
fn every_operation_is_described_whole() {
    let document = current();
    let mut ids = HashSet::new();
    for (name, op) in operations(&document) {
        assert!(ids.insert(op["operationId"].as_str().unwrap()), "{name}: its operationId is not its own");
        assert!(op["summary"].is_string() || op["description"].is_string(), "{name} says what it is");
        let in_path = name.matches('{').count();
        let parameters: Vec<&Value> = op["parameters"].as_array().into_iter().flatten().collect();
        assert_eq!(parameters.iter().filter(|p| p["in"] == "path").count(), in_path, "{name}");
        for p in parameters {
            let s = &p["schema"];
            let bounded = ["pattern", "maxLength", "minLength", "maximum", "maxProperties", "enum"]
                .iter()
                .any(|k| !s[k].is_null());
            assert!(bounded || p["name"] == "synced" || p["name"] == "since" || s["type"] == "boolean", "{name}: {p}");
        }
        let statuses = op["responses"].as_object().unwrap();
        assert!(
            statuses.contains_key("500") && statuses.contains_key("503") && !statuses.contains_key("default"),
            "{name}"
        );
        assert_eq!(
            statuses.contains_key("401"),
            !op["security"].is_null() || name.contains("/login") || name.contains("/refresh"),
            "{name}"
        );
        if let Some(body) = op.get("requestBody") {
            assert_eq!(body["required"], true, "{name}");
        }
    }
    assert!(ids.len() >= 28);
}

/// A name that is none would be dropped without a word.
#[test]
fn the_codes_that_operations_name_are_codes() {
    let names = Code::ALL.map(Code::name);
    let routes = serde_json::to_value(crate::http::routes().get_openapi()).unwrap();
    let mut named = 0;
    for (name, op) in operations(&routes) {
        for code in op["x-codes"].as_array().into_iter().flatten() {
            assert!(names.contains(&code.as_str().unwrap()), "{name}: {code}");
            named += 1;
        }
    }
    assert!(named > 20);
}

#[test]
fn nothing_may_be_null_and_every_reference_leads_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Array(list) => list.iter().for_each(|v| walk(v, document)),
            Value::Object(map) => {
                if let Some(to) = map.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                }
                map.values().for_each(|v| walk(v, document));
            }
            Value::String(s) => assert_ne!(s, "null"),
            Value::Null => panic!("a null"),
            Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let document = current();
    walk(&document, &document);
}
