//! The document against the server: each operation with a wrong value for each parameter and field gets the answer
//! that is documented.

use natterjack_testkit::document::{document, judge, resolve};
use serde_json::{Map, Value, json};

use crate::kit::World;

/// So many that nobody's rate limit is met.
const USERS: [&str; 6] = ["ua", "ub", "uc", "ud", "ue", "uf"];

struct Walk {
    world: World,
    tokens: Vec<String>,
    asked: usize,
}

/// What is asked: `path` is as the document has it.
struct Operation {
    method: String,
    path: String,
    described: &'static Value,
}

impl Walk {
    /// The answer, judged.
    async fn ask(&mut self, op: &Operation, path: &str, body: &str) -> (u16, Value) {
        self.asked += 1;
        let token = op.described["security"].is_array().then(|| self.tokens[self.asked % self.tokens.len()].clone());
        self.with(op, path, token.as_deref(), body).await
    }

    async fn with(&self, op: &Operation, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
        let (status, head, answer) = self.world.http(&op.method, path, token, body).await;
        judge(&op.method, path, status, &answer);
        for header in ["natterjack-now: 1", "cache-control: no-store", "access-control-allow-origin: *"] {
            assert!(head.contains(header), "{} {path}: no {header} in {head}", op.method);
        }
        assert!(head.contains("content-type: application/json"), "{} {path}: {head}", op.method);
        (status, answer)
    }

    async fn refused(&mut self, op: &Operation, path: &str, body: &str, code: &str, names: &str) {
        let (status, answer) = self.ask(op, path, body).await;
        let shown = format!("{} {path} {body}: {status} {answer}", op.method);
        assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{shown}");
        assert!(answer["message"].as_str().unwrap().contains(names), "it names {names}: {shown}");
    }
}

fn operations() -> Vec<Operation> {
    let items = document()["paths"].as_object().unwrap().iter();
    let of = |(path, item): (&String, &'static Value)| {
        let path = path.clone();
        let methods = item.as_object().unwrap().iter();
        methods
            .map(move |(m, described)| Operation { method: m.to_uppercase(), path: path.clone(), described })
            .collect::<Vec<_>>()
    };
    items.flat_map(of).collect()
}

fn parameters(op: &Operation, place: &str) -> Vec<(&'static str, &'static Value)> {
    let all = op.described["parameters"].as_array().into_iter().flatten();
    let one = |p: &'static Value| match p["schema"]["properties"].as_object() {
        // An object has a parameter per field.
        Some(fields) => fields.iter().map(|(n, s)| (n.as_str(), s)).collect(),
        None => vec![(p["name"].as_str().unwrap(), &p["schema"])],
    };
    all.filter(|p| p["in"] == place).flat_map(one).collect()
}

/// With a value for each part; `bad` replaces one.
fn filled(op: &Operation, bad: Option<(&str, &str)>) -> String {
    let mut path = op.path.clone();
    for (name, _) in parameters(op, "path") {
        let good = match name {
            "thread" => "dm.ua.ub",
            "id" => "5",
            _ => "ub",
        };
        let value = bad.filter(|(n, _)| *n == name).map_or(good, |(_, v)| v);
        path = path.replace(&format!("{{{name}}}"), value);
    }
    path
}

/// The least that the schema takes.
fn sample(schema: &'static Value) -> Value {
    let schema = resolve(schema);
    let example = [&schema["examples"][0], &schema["example"]].into_iter().find(|e| !e.is_null());
    if let Some(example) = example.filter(|_| schema["type"] != "object") {
        return example.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|e| e.first()) {
        return first.clone();
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let parts = parts.iter().filter_map(|p| sample(p).as_object().cloned());
        return Value::Object(parts.flatten().collect::<Map<_, _>>());
    }
    if let Some(first) = schema["oneOf"].as_array().and_then(|c| c.first()) {
        return sample(first);
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|f| (f.to_owned(), sample(&schema["properties"][f]))).collect::<Map<_, _>>().into()
        }
        Some("array") => json!([sample(&schema["items"])]),
        Some("integer") => json!(1),
        Some("boolean") => json!(true),
        _ => json!("x"),
    }
}

fn properties(schema: &'static Value) -> Vec<(&'static str, &'static Value)> {
    let schema = resolve(schema);
    let parts = schema["allOf"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(schema["oneOf"].as_array().into_iter().flatten().take(1));
    let own = schema["properties"].as_object().into_iter().flatten().map(|(n, s)| (n.as_str(), s));
    parts.flat_map(properties).chain(own).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_it_is_described() {
    let world = World::start(&USERS).await;
    let tokens = USERS.map(|u| world.token(u, "d1", 600)).to_vec();
    let mut walk = Walk { world, tokens, asked: 0 };
    for op in operations() {
        let good = filled(&op, None);
        let body = op.described["requestBody"]["content"]["application/json"]["schema"].as_object().map(|_| {
            let schema = &op.described["requestBody"]["content"]["application/json"]["schema"];
            (schema, sample(schema))
        });
        let sent = body.as_ref().map_or(String::new(), |(_, b)| b.to_string());
        // A poll that waits would wait.
        if op.path != "/v1/sync" {
            let (_, answer) = walk.ask(&op, &good, &sent).await;
            assert_ne!(answer["code"], "bad_frame", "{} {good} {sent}: {answer}", op.method);
        }
        if op.described["security"].is_array() {
            for token in [None, Some("none")] {
                let (status, answer) = walk.with(&op, &good, token, &sent).await;
                assert_eq!((status, answer["code"].as_str()), (401, Some("unauthorized")), "{} {good}", op.method);
            }
        }
        in_path(&mut walk, &op, &sent).await;
        if op.path.starts_with("/v1/") {
            in_query(&mut walk, &op, &good, &sent).await;
        }
        if let Some((schema, value)) = body {
            in_body(&mut walk, &op, &good, schema, &value).await;
        }
    }
    assert!(walk.asked > 250, "{}", walk.asked);
}

async fn in_path(walk: &mut Walk, op: &Operation, sent: &str) {
    let long = "x".repeat(65);
    for (name, _) in parameters(op, "path") {
        let ids = ["a.b", "%20", "a%00", "%2A", "%C3%A4", "a%0A", "%2F", long.as_str()];
        let threads = ["dm.a", "dm.a.b.c", "group.", "room.a", "group.a%20", "dm.%FF.b", "DM.a.b", "dm.a.b%0A"];
        let bad: &[&str] = if name == "thread" { &threads } else { &ids };
        for value in bad {
            walk.refused(op, &filled(op, Some((name, value))), sent, "invalid", "path").await;
        }
        if name == "thread" {
            let (status, answer) = walk.ask(op, &filled(op, Some((name, "dm.ub.ua"))), sent).await;
            assert_eq!((status, answer["code"].as_str()), (404, Some("not_found")), "{answer}");
        }
    }
}

async fn in_query(walk: &mut Walk, op: &Operation, good: &str, sent: &str) {
    walk.refused(op, &format!("{good}?nope=1"), sent, "invalid", "query").await;
    walk.refused(op, &format!("{good}?%zz"), sent, "invalid", "query").await;
    for (name, schema) in parameters(op, "query") {
        let fine = if schema["type"] == "integer" { "1" } else { "ua" };
        walk.refused(op, &format!("{good}?{name}={fine}&{name}={fine}"), sent, "invalid", name).await;
        let mut bad = vec!["%ff", "%C3%28", "%"];
        if schema["type"] == "integer" {
            bad.extend([
                "",
                "x",
                "-1",
                "%2B1",
                "+1",
                "01",
                "1.0",
                "1e3",
                "9007199254740992",
                "18446744073709551616",
                "%D9%A1",
                "null",
            ]);
        }
        if schema["maximum"] == 200 {
            bad.extend(["0", "201", "70000"]);
        }
        if !schema["pattern"].is_null() {
            bad.extend(["", "a.b", ",", "ua,", "%00"]);
        }
        for value in bad {
            let names = if value.contains('%') && !value.starts_with("%2B") {
                ""
            } else {
                "limit before after around at ids cursors wait_ms"
            };
            let (status, answer) = walk.ask(op, &format!("{good}?{name}={value}"), sent).await;
            let shown = format!("{} {good}?{name}={value}: {status} {answer}", op.method);
            assert_eq!((status, answer["code"].as_str()), (400, Some("invalid")), "{shown}");
            let message = answer["message"].as_str().unwrap();
            assert!(names.is_empty() || message.contains(name), "it names the parameter: {shown}");
        }
    }
}

async fn in_body(walk: &mut Walk, op: &Operation, good: &str, schema: &'static Value, value: &Value) {
    let whole = value.to_string();
    let positional = Value::Array(value.as_object().unwrap().values().cloned().collect()).to_string();
    let open = whole.trim_end_matches('}');
    let comma = if open == "{" { "" } else { "," };
    let (twice, half) =
        (format!("{open}{comma}\"extra\":1,\"extra\":2}}"), format!("{open}{comma}\"extra\":\"\\ud800\"}}"));
    let (behind, open_end) = (format!("{whole}x"), format!("{open},}}"));
    let texts = ["", " ", "{", "[]", "null", "5", "\"x\"", "{} {}", "\u{feff}{}"];
    for bad in texts.into_iter().chain([&positional, &behind, &open_end, &twice, &half].map(String::as_str)) {
        walk.refused(op, good, bad, "bad_frame", "").await;
    }
    let fields = properties(schema);
    assert!(!fields.is_empty(), "{}", op.path);
    for (name, described) in fields {
        let wrong = if resolve(described)["type"] == "string" { json!(5) } else { json!("five") };
        for wrong in [wrong, json!([1, [2]]), json!(-1), json!(1.5), Value::Null] {
            let mut changed = value.clone();
            changed[name] = wrong;
            walk.refused(op, good, &changed.to_string(), "bad_frame", name).await;
        }
        let mut without = value.clone();
        if without.as_object_mut().unwrap().remove(name).is_some() {
            walk.refused(op, good, &without.to_string(), "bad_frame", name).await;
        }
    }
    // What is not known is ignored.
    if op.path != "/v1/sync" {
        let more = format!("{open}{comma}\"of a later version\":[1,{{}}]}}");
        let (_, answer) = walk.ask(op, good, &more).await;
        assert_ne!(answer["code"], "bad_frame", "{} {good} {more}: {answer}", op.method);
    }
}
