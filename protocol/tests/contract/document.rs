//! docs/protocol.md says what the code does: its examples are the fixtures, its tables come from the code, its
//! conversation decodes, and no frame, field or path is missing.

use std::{collections::BTreeSet, fs, time::Duration};

use natterjack_protocol::{
    Code, Times,
    client::{
        close,
        frame::{ClientFrame, FrameInfo, FrameKind, ServerFrame},
    },
    codec::Codec,
    limits,
};
use serde_json::Value;

use super::{fixture, samples, scenarios};

fn path() -> std::path::PathBuf {
    fixture::root().join("../docs/protocol.md")
}

fn document() -> String {
    fs::read_to_string(path()).unwrap()
}

/// JSON text with each field of the outer map on a line of its own; inner values stay on theirs. The order is the
/// wire's.
fn laid_out(json: &str) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0, false, false);
    for c in json.chars() {
        if quoted {
            out.push(c);
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        quoted = c == '"';
        match c {
            '{' | '[' => {
                depth += 1;
                out.push(c);
                if depth == 1 {
                    out.push_str("\n  ");
                }
            }
            '}' | ']' => {
                depth -= 1;
                if depth == 0 {
                    out.push('\n');
                }
                out.push(c);
            }
            ',' if depth == 1 => out.push_str(",\n  "),
            ',' => out.push_str(", "),
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

fn short(json: &str) -> String {
    let line = laid_out(json).replace("\n  ", " ").replace('\n', " ");
    if line.chars().count() <= 110 { line } else { laid_out(json) }
}

fn codes() -> String {
    let rows = Code::ALL
        .map(|c| format!("| `{}` | {} | {} | {} |\n", c.name(), c.http_status(), c.meaning(), c.retry().advice()));
    format!("| code | HTTP | meaning | retry? |\n|---|---|---|---|\n{}", rows.concat())
}

fn frames() -> String {
    let row = |from: &str, f: &FrameInfo| {
        let what = match f.kind {
            FrameKind::Request(by) => format!("request, answered by `{by}` or `error`"),
            FrameKind::Signal(Some(by)) => format!("answered by `{by}`"),
            FrameKind::Signal(None) => "no answer".into(),
            FrameKind::Answer => "answer".into(),
            FrameKind::AnswerOrPush => "answer, or sent by the edge itself".into(),
            FrameKind::Push => "sent by the edge itself".into(),
        };
        format!("| `{}` | {from} | {what} | {} |\n", f.name, f.about.trim())
    };
    let of_client = ClientFrame::DECLARED.iter().map(|f| row("client", f));
    let rows: String = of_client.chain(ServerFrame::DECLARED.iter().map(|f| row("edge", f))).collect();
    format!("| `t` | from | kind | what |\n|---|---|---|---|\n{rows}")
}

fn closes() -> String {
    let rows = close::ALL.map(|c| format!("| {} | {} | {} |\n", c.code, c.reason, c.back.advice()));
    format!("| code | meaning | come back? |\n|---|---|---|\n{}", rows.concat())
}

fn the_limits() -> String {
    let rows = limits::TABLE.map(|l| format!("| `{}` | {} | {} | {} |\n", l.name, l.value, l.unit, l.of));
    format!("| limit | value | unit | of what |\n|---|---|---|---|\n{}", rows.concat())
}

fn times() -> String {
    let t = Times::default();
    let rows: [(&str, Duration, &str); 21] = [
        ("handshake", t.handshake, "TLS and the head of a connection's first request are complete"),
        ("head", t.head, "the head of a later request is complete, from its first byte; else 408"),
        ("body", t.body, "the body of a request is complete; else 408"),
        ("http_idle", t.http_idle, "an HTTP connection waits for its next request"),
        ("stall", t.stall, "an HTTP answer of which nothing is taken is dropped with its connection"),
        ("hello", t.hello, "`hello` has come"),
        ("welcome", t.welcome, "a client waits so long for the answer to its `hello`"),
        ("poll_grace", t.poll_grace, "a device that polls keeps its place for so long after a poll"),
        ("heartbeat", t.heartbeat, "a client sends something at least this often (`heartbeat_ms`)"),
        ("edge_ping", t.edge_ping, "silence after which the edge pings (`edge_ping_ms`), up to a tenth later"),
        ("heartbeat_timeout", t.heartbeat_timeout, "silence after which a socket is closed with 4006 (`silence_ms`)"),
        ("attach", t.attach, "an edge waits this long for each part of an attach"),
        ("cid_ahead", t.cid_ahead, "a cid further ahead of the log's clock is refused with `clock_ahead`"),
        ("cid_fresh", t.cid_fresh, "an older cid is looked for before it is published, which is slower"),
        ("publish_deadline", t.publish_deadline, "a send is answered, at the latest"),
        ("head_after", t.head_after, "a lost last message of a thread shows itself about this long after it"),
        ("sweep", t.sweep, "edges compare what they have shown with the log this often"),
        ("drain", t.drain, "a leaving edge is gone"),
        ("access_token", t.access_token, "life of an access token"),
        ("refresh_token", t.refresh_token, "life of a refresh token that is not used"),
        ("refresh_again", t.refresh_again, "a used refresh token gives the same next one again for so long"),
    ];
    let rows: String =
        rows.iter().map(|(name, d, what)| format!("| `{name}` | {} s | {what} |\n", d.as_secs_f64())).collect();
    format!("| time | default | what |\n|---|---|---|\n{rows}")
}

/// The document with everything generated put in its place.
fn generated(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(mark) = line.strip_prefix("<!-- generated ").and_then(|l| l.strip_suffix(" -->")) else { continue };
        let content = match mark {
            "codes" => codes(),
            "closes" => closes(),
            "frames" => frames(),
            "limits" => the_limits(),
            "times" => times(),
            "scenarios" => scenarios::table(),
            frame => {
                let (direction, name) = frame.split_once('/').expect("direction/name");
                format!("```json\n{}\n```\n", short(&fixture::read(direction, name).json))
            }
        };
        out.push_str(&content);
        lines.by_ref().find(|l| *l == "<!-- end -->").unwrap_or_else(|| panic!("{mark}: no end"));
        out.push_str("<!-- end -->\n");
    }
    out
}

#[test]
fn examples_and_tables_are_the_codes_own() {
    let text = document();
    let want = generated(&text);
    if fixture::regenerate() {
        fs::write(path(), &want).unwrap();
        return;
    }
    for (have, want) in text.lines().zip(want.lines()) {
        assert_eq!(have, want, "write it anew with NATTERJACK_REGENERATE=1");
    }
    assert_eq!(text, want);
}

/// The part below the heading `## of`, and in it the one below `### name`.
fn section<'a>(text: &'a str, of: &str, name: &str) -> &'a str {
    let part = text.split("\n## ").find(|s| s.starts_with(of)).unwrap_or_else(|| panic!("no part {of}"));
    part.split("\n### ").find(|s| s.starts_with(name)).unwrap_or_else(|| panic!("{of} lacks {name}"))
}

fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                // Not the threads that are keys of cursors.
                if !key.contains('.') {
                    into.insert(key.clone());
                }
                keys(value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|v| keys(v, into)),
        _ => {}
    }
}

#[test]
fn every_frame_and_every_field_is_described() {
    let text = document();
    for f in samples::all() {
        let of = match f.direction.as_str() {
            "client" => "Frames of the client",
            "server" => "Frames of the server",
            _ => continue,
        };
        let json: Value = serde_json::from_str(&f.json).unwrap();
        let t = json["t"].as_str().unwrap();
        let section = section(&text, of, &format!("`{t}`"));
        assert!(section.contains("```json"), "{t} has no example");
        for key in json.as_object().unwrap().keys().filter(|k| *k != "t") {
            assert!(section.contains(&format!("`{key}`")) || t == "event", "{of}, {t}: `{key}` is not described");
        }
        let mut all = BTreeSet::new();
        keys(&json, &mut all);
        all.remove("t");
        for key in all {
            let rows = [format!("| `{key}` |"), format!("| `{key}`? |")];
            assert!(rows.iter().any(|row| text.contains(row)), "{t}: `{key}` is in no table");
        }
    }
    for kind in [
        "text",
        "emoji",
        "image",
        "video",
        "file",
        "audio",
        "custom",
        "edit",
        "recall",
        "reaction",
        "dm_started",
        "blocked",
        "unblocked",
        "group_created",
        "group_renamed",
        "member_added",
        "member_removed",
        "member_left",
        "role_changed",
        "lost",
        "unknown",
    ] {
        assert_eq!(natterjack_protocol::Kind::parse(kind).as_str(), kind);
        assert!(text.contains(&format!("| `{kind}` |")), "kind {kind}");
    }
}

/// `Anna → edge` is a client's frame, `edge → Anna` a server's: each is what the code says, letter by letter.
#[test]
fn the_conversation_is_spoken() {
    let text = document();
    let part = text.split("\n## ").find(|s| s.starts_with("A whole conversation")).unwrap();
    let mut spoken = BTreeSet::new();
    let mut who = "";
    for line in part.lines() {
        if let Some(speaker) = line.strip_prefix("// ") {
            who = speaker;
        }
        if !line.starts_with('{') {
            continue;
        }
        let again = if who.starts_with("edge") {
            let frame =
                ServerFrame::decode(Codec::Json, line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}")).unwrap();
            frame.encode(Codec::Json)
        } else {
            ClientFrame::decode(Codec::Json, line.as_bytes())
                .unwrap_or_else(|e| panic!("{line}: {e:?}"))
                .encode(Codec::Json)
        };
        assert_eq!(line, std::str::from_utf8(&again).unwrap());
        spoken.insert(serde_json::from_str::<Value>(line).unwrap()["t"].as_str().unwrap().to_owned());
    }
    for t in ["hello", "welcome", "page", "attached", "send", "sent", "event", "ping", "pong", "bye"] {
        assert!(spoken.contains(t), "{t} is not in the conversation");
    }
}

/// The edge's routes, as its own description has them.
#[test]
fn every_path_is_listed() {
    let text = document();
    let described = fs::read_to_string(fixture::root().join("../docs/openapi.json")).unwrap();
    let described: Value = serde_json::from_str(&described).unwrap();
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() > 10);
    for path in paths.keys() {
        assert!(text.contains(&format!("{path}`")), "{path}");
    }
}
