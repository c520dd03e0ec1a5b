//! The machine-readable description of all frames: docs/frames.schema.json, which edges serve as well. For SDKs in
//! other languages.

use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::frame::{ClientFrame, FrameInfo, FrameKind, ServerFrame};
use crate::schema::without_null;

/// JSON Schema (2020-12) of every frame as JSON text, in both directions.
pub fn frames() -> Value {
    let mut definitions = Vec::new();
    ClientFrame::schemas(&mut definitions);
    ServerFrame::schemas(&mut definitions);
    let plain = |schema| serde_json::to_value(schema).expect("a schema is plain JSON");
    let mut definitions: Map<String, Value> =
        definitions.into_iter().map(|(name, schema)| (name, plain(schema))).collect();
    definitions.insert("ClientFrame".into(), direction(plain(ClientFrame::schema()), ClientFrame::DECLARED));
    definitions.insert("ServerFrame".into(), direction(plain(ServerFrame::schema()), ServerFrame::DECLARED));
    let mut document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Natterjack frames",
        "description": "Every frame of the subprotocol natterjack.v1.json, by its type in `t`; natterjack.v1.msgpack \
                        has the same maps. \
            Unknown fields are ignored and unknown types too, by clients. A field without a value is left out, never \
            null. \
            What the frames mean stands in docs/protocol.md.",
        "anyOf": [{ "$ref": "#/$defs/ClientFrame" }, { "$ref": "#/$defs/ServerFrame" }],
        "$defs": definitions,
    });
    without_null(&mut document);
    own_references(&mut document);
    document
}

/// Says of each frame what is declared beside its fields.
fn direction(mut schema: Value, declared: &[FrameInfo]) -> Value {
    schema["discriminator"] = json!({ "propertyName": "t" });
    for (frame, info) in schema["oneOf"].as_array_mut().into_iter().flatten().zip(declared) {
        frame["title"] = info.name.into();
        frame["description"] = info.about.trim().into();
        let (kind, answered_by) = match info.kind {
            FrameKind::Request(by) => ("request", Some(by)),
            FrameKind::Signal(by) => ("signal", by),
            FrameKind::Answer => ("answer", None),
            FrameKind::AnswerOrPush => ("answer or push", None),
            FrameKind::Push => ("push", None),
        };
        frame["x-kind"] = kind.into();
        if let Some(by) = answered_by {
            frame["x-answered-by"] = by.into();
        }
    }
    schema
}

/// What is derived refers to the components of an OpenAPI document.
fn own_references(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(own_references),
        Value::Object(map) => {
            map.values_mut().for_each(own_references);
            if let Some(Value::String(to)) = map.get_mut("$ref") {
                *to = to.replace("#/components/schemas/", "#/$defs/");
            }
        }
        _ => {}
    }
}
