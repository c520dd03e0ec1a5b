//! docs/frames.schema.json: it is what the declarations say, every frame is valid by it, and what the decoder refuses
//! is not.

use std::fs;

use jsonschema::Validator;
use natterjack_protocol::{
    client::{
        frame::{ClientFrame, FrameInfo, FrameKind, ServerFrame},
        schema,
    },
    codec::Codec,
    limits,
};
use serde_json::{Value, json};

use super::{fixture, samples};

#[test]
fn the_file_in_the_tree_is_what_is_declared() {
    let path = fixture::root().join("../docs/frames.schema.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&schema::frames()).unwrap());
    if fixture::regenerate() {
        fs::write(&path, &now).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == now, "docs/frames.schema.json is old: run this test with NATTERJACK_REGENERATE=1");
}

fn validator(direction: &str) -> Validator {
    let mut document = schema::frames();
    document.as_object_mut().unwrap().remove("anyOf");
    document["$ref"] = format!("#/$defs/{direction}").into();
    jsonschema::draft202012::new(&document).unwrap()
}

type Decodes = fn(&[u8]) -> bool;

fn directions() -> [(&'static str, Validator, Decodes, Vec<Value>); 2] {
    let client: Decodes = |bytes| ClientFrame::decode(Codec::Json, bytes).is_ok();
    let server: Decodes = |bytes| matches!(ServerFrame::decode(Codec::Json, bytes), Ok(Some(_)));
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let of_client = samples::client().into_iter().map(|(_, _, f)| json(&f.encode(Codec::Json))).collect();
    let of_server = samples::server().into_iter().map(|(_, _, f)| json(&f.encode(Codec::Json))).collect();
    [
        ("ClientFrame", validator("ClientFrame"), client, of_client),
        ("ServerFrame", validator("ServerFrame"), server, of_server),
    ]
}

#[test]
fn every_frame_is_valid() {
    for (direction, validator, _, frames) in directions() {
        for frame in frames {
            let errors: Vec<String> = validator.iter_errors(&frame).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{direction} {frame}: {errors:?}");
        }
    }
}

/// `value`, and in it each value at any depth, replaced by what is broken.
fn broken(value: &Value, into: &mut Vec<Value>) {
    let wrong = [Value::Null, json!([]), json!({}), json!("?"), json!(-1), json!(1.5), json!(true)];
    into.extend(wrong);
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let mut without = map.clone();
                without.remove(key);
                into.push(without.into());
                let mut all = Vec::new();
                broken(inner, &mut all);
                into.extend(all.into_iter().map(|b| {
                    let mut with = map.clone();
                    with.insert(key.clone(), b);
                    with.into()
                }));
            }
        }
        Value::Array(list) => {
            for (at, inner) in list.iter().enumerate() {
                let mut all = Vec::new();
                broken(inner, &mut all);
                into.extend(all.into_iter().map(|b| {
                    let mut with = list.clone();
                    with[at] = b;
                    with.into()
                }));
            }
        }
        _ => {}
    }
}

/// A missing field, another type, `null`: whatever the decoder refuses is not valid.
#[test]
fn what_the_decoder_refuses_is_not_valid() {
    for (direction, validator, decodes, frames) in directions() {
        let mut refused = 0;
        for frame in frames {
            let mut all = Vec::new();
            broken(&frame, &mut all);
            for bad in all.iter().filter(|bad| !decodes(bad.to_string().as_bytes())) {
                refused += 1;
                assert!(!validator.is_valid(bad), "{direction}: refused, and valid: {bad}");
            }
        }
        assert!(refused > 300, "{direction} {refused}");
    }
}

/// The limits of fields, each at its end and one beyond.
#[test]
fn bounds_are_those_of_the_code() {
    let validator = validator("ClientFrame");
    let send = |kind: &str, body: Value| {
        let cid = "019f2314-e9e8-715a-9122-334455667788";
        json!({ "t": "send", "r": 1, "cid": cid, "thread": "dm.a.b", "kind": kind, "body": body })
    };
    let history = |field: &str, value: Value| json!({ "t": "history", "r": 1, "thread": "group.g", field: value });
    let text = |n: usize| send("text", json!({ "text": "x".repeat(n) }));
    let hello = |device: &str| json!({ "t": "hello", "token": "x", "device": device });
    let number = limits::NUMBER_MAX;
    for good in [
        text(1),
        text(limits::TEXT_CHARS),
        history("limit", limits::PAGE_MAX.into()),
        history("before", number.into()),
        hello(&"d".repeat(64)),
        json!({ "t": "ping", "unknown": [1, { "x": "y" }] }),
    ] {
        assert!(validator.is_valid(&good), "{good:.200}");
    }
    for bad in [
        text(0),
        text(limits::TEXT_CHARS + 1),
        send("text", json!({ "text": " \n\u{200b}" })),
        send("image", json!({ "text": "a caption" })),
        send("reaction", json!({ "emoji": "👍" })),
        send("member_added", json!({ "users": ["a"] })),
        send("custom", json!({ "data": "AAE" })),
        history("limit", 0.into()),
        history("limit", (limits::PAGE_MAX + 1).into()),
        history("before", (number + 1).into()),
        history("thread", "room.a".into()),
        history("r", (u64::from(u32::MAX) + 1).into()),
        hello(&"d".repeat(65)),
        hello("a.b"),
        json!({ "t": "hullo" }),
        json!({ "r": 1 }),
    ] {
        assert!(!validator.is_valid(&bad), "{bad:.200}");
    }
}

/// Each row of the declarations has its branch, in the same order, and the answers that it names are frames.
#[test]
fn every_declared_frame_is_in_the_schema() {
    let document = schema::frames();
    let server: Vec<&str> = ServerFrame::DECLARED.iter().map(|d| d.name).collect();
    let both: [(&str, &[FrameInfo]); 2] =
        [("ClientFrame", ClientFrame::DECLARED), ("ServerFrame", ServerFrame::DECLARED)];
    for (direction, declared) in both {
        let branches = document["$defs"][direction]["oneOf"].as_array().unwrap();
        assert_eq!(branches.len(), declared.len());
        for (branch, info) in branches.iter().zip(declared) {
            let parts = branch["allOf"].as_array().map_or_else(|| vec![branch], |parts| parts.iter().collect());
            let tags: Vec<&Value> = parts.iter().filter_map(|p| p.pointer("/properties/t/enum/0")).collect();
            assert_eq!(tags, [info.name], "{branch}");
            assert_eq!(branch["title"], info.name);
            if let FrameKind::Request(by) | FrameKind::Signal(Some(by)) = info.kind {
                assert!(server.contains(&by), "{} is answered by {by}", info.name);
            }
            let numbered = parts.iter().any(|p| {
                p.pointer("/properties/r").is_some()
                    || p["$ref"].as_str().is_some_and(|to| {
                        document
                            .pointer(to.trim_start_matches('#'))
                            .is_some_and(|d| d.to_string().contains("RequestNumber"))
                    })
            });
            assert_eq!(
                numbered,
                !matches!(info.kind, FrameKind::Signal(_) | FrameKind::Push),
                "{direction} {}: r",
                info.name
            );
        }
    }
}
