//! protocol/scenarios: what the other side does, and what a client does then. The SDK's tests run the list, the
//! document's table is made from it, and here it is held against the tables of codes.

use std::collections::BTreeSet;

use natterjack_protocol::{
    Code, Retry,
    client::{
        close::{self, Back},
        frame::ServerFrame,
    },
    codec::Codec,
};
use serde_json::Value;

use super::fixture;

fn all() -> Vec<Value> {
    let path = fixture::root().join("scenarios/connection.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(scenario: &'a Value, field: &str) -> &'a str {
    scenario[field].as_str().unwrap_or_else(|| panic!("{field} is missing: {scenario}"))
}

/// For the document.
pub fn table() -> String {
    let rows: String = all().iter().map(|s| format!("| {} | {} |\n", text(s, "what"), text(s, "then"))).collect();
    format!("| what happens | what the client does |\n|---|---|\n{rows}")
}

/// What the client has to do right after step `i`.
fn next_of(steps: &[Value], i: usize) -> (&str, u64) {
    let next = steps[i + 1..].iter().find(|s| s["client"].is_string()).expect("a scenario ends with the client");
    (next["client"].as_str().unwrap(), next["after_ms"][1].as_u64().unwrap_or(0))
}

fn is(back: Back, (does, until): (&str, u64), told: bool) -> bool {
    match back {
        Back::Never => does == "ends",
        Back::AfterLogin => does == "refreshes",
        Back::Now => does == "connects" && until <= 250,
        Back::Backoff | Back::AfterBye => does == "connects" && (told || until == 500),
    }
}

#[test]
fn every_close_code_is_in_the_list_and_means_what_its_table_says() {
    let mut seen = BTreeSet::new();
    for scenario in all() {
        let steps = scenario["steps"].as_array().unwrap();
        for (i, step) in steps.iter().enumerate().filter(|(_, s)| s["server"] == "closes") {
            let code = u16::try_from(step["code"].as_u64().unwrap()).unwrap();
            // The error before it says more.
            if steps[i - 1]["server"] == "says" {
                continue;
            }
            let own = steps[..i].iter().any(|s| s["client"] == "says_bye");
            let back = if own { Back::Never } else { close::back(code) };
            assert!(is(back, next_of(steps, i), false), "{}: {code}", text(&scenario, "what"));
            seen.insert(code);
        }
    }
    for code in close::ALL.iter().map(|c| c.code).chain([1001, 1011, 1012]) {
        assert!(seen.contains(&code), "no scenario ends with {code}");
    }
}

#[test]
fn a_refused_hello_means_what_the_table_of_errors_says() {
    let mut seen = BTreeSet::new();
    for scenario in all() {
        let steps = scenario["steps"].as_array().unwrap();
        for (i, step) in
            steps.iter().enumerate().filter(|(i, s)| s["frame"]["t"] == "error" && steps[i - 1]["server"] == "upgrades")
        {
            let code: Code = serde_json::from_value(step["frame"]["code"].clone()).unwrap();
            let (back, name) = match code.retry() {
                Retry::Never => (Back::Never, "never"),
                Retry::AfterLogin => (Back::AfterLogin, "login"),
                Retry::Later | Retry::NewCid => (Back::Backoff, "later"),
            };
            let told = step["frame"]["retry_after_ms"].is_u64();
            assert!(is(back, next_of(steps, i), told), "{}", text(&scenario, "what"));
            seen.insert((name, told));
        }
    }
    assert_eq!(seen, BTreeSet::from([("later", false), ("later", true), ("login", false), ("never", false)]));
}

#[test]
fn frames_are_frames_and_waits_are_not_shorter_than_told() {
    for scenario in all() {
        let mut told = 0;
        for step in scenario["steps"].as_array().unwrap() {
            let what = text(&scenario, "what");
            if step["server"] == "says" {
                let mut frame = step["frame"].to_string();
                for (variable, value) in [("\"$r.a\"", "1"), ("\"$r.b\"", "2"), ("$cid.a", CID), ("$cid.b", CID)] {
                    frame = frame.replace(variable, value);
                }
                let read = ServerFrame::decode(Codec::Json, frame.as_bytes()).unwrap_or_else(|e| panic!("{what}: {e}"));
                let known = read.unwrap_or_else(|| panic!("{what}: unknown")).encode(Codec::Json);
                let known: Value = serde_json::from_slice(&known).unwrap();
                assert_eq!(known, serde_json::from_str::<Value>(&frame).unwrap(), "{what}");
                // Of a message: its own rows in the list say when.
                told = if step["frame"]["r"].is_null() {
                    step["frame"]["retry_after_ms"].as_u64().unwrap_or(0)
                } else {
                    0
                };
            } else if step["server"] == "answers" {
                let seconds = step["headers"]["retry-after"].as_str().and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
                told = seconds * 1_000;
            } else if let Some(from) = step["after_ms"][0].as_u64() {
                assert!(step["edge"].is_string() || from >= told, "{what}");
                told = 0;
            }
        }
    }
}

const CID: &str = "019f2314-e9e8-715a-9122-334455667788";
