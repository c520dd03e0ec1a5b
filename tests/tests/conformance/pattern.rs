//! Is a frame what a case expects? All of it: a field too much is as wrong as one that is missing.

use base64::{Engine, prelude::BASE64_STANDARD};
use natterjack_protocol::{Cid, Thread, Token, codec::Codec};
use serde_json::{Value, json};

use super::{scope::Scope, template, tree::Tree};

/// Ids of messages are those of 2020 and later.
const AN_ID: i128 = 1 << 40;
const A_TIME: i128 = 1_600_000_000_000;

/// Why it is not. Names that the pattern gives (`$set`) are known afterwards.
pub fn matches(codec: Codec, pattern: &Value, found: &Tree, scope: &mut Scope) -> Result<(), String> {
    let fails = |what: &str| Err(format!("expected {what}: {pattern}, found {}", short(found)));
    match (pattern, found) {
        (Value::Object(map), _) if template::special(map).is_some() => special(codec, pattern, found, scope),
        (Value::Object(want), Tree::Map(have)) => {
            let want: Vec<(String, &Value)> = want.iter().map(|(k, v)| (scope.fill(k), v)).collect();
            for (key, pattern) in &want {
                let maybe = pattern.get("$maybe");
                match have.iter().find(|(k, _)| k == key) {
                    Some((_, found)) => {
                        matches(codec, maybe.unwrap_or(pattern), found, scope).map_err(|why| format!("{key}: {why}"))?
                    }
                    None if maybe.is_some() => {}
                    None => return fails(&format!("the field {key}")),
                }
            }
            match have.iter().find(|(k, _)| !want.iter().any(|(w, _)| w == k)) {
                Some((key, _)) => fails(&format!("no field {key}")),
                None => Ok(()),
            }
        }
        (Value::Array(want), Tree::List(have)) if want.len() == have.len() => {
            want.iter().zip(have).try_for_each(|(pattern, found)| matches(codec, pattern, found, scope))
        }
        (Value::String(want), Tree::Text(have)) if scope.fill(want) == *have => Ok(()),
        (Value::Number(want), Tree::Int(have)) if want.as_i64().map(i128::from) == Some(*have) => Ok(()),
        (Value::Bool(want), Tree::Bool(have)) if want == have => Ok(()),
        _ => fails("this"),
    }
}

fn special(codec: Codec, pattern: &Value, found: &Tree, scope: &mut Scope) -> Result<(), String> {
    let fails = || Err(format!("expected {pattern}, found {}", short(found)));
    if let Some(name) = pattern["$set"].as_str() {
        if let Some(is) = pattern.get("is") {
            matches(codec, &json!({ "$is": is }), found, scope)?;
        }
        match found {
            Tree::Int(n) => scope.set(name, json!(i64::try_from(*n).unwrap())),
            Tree::Text(s) => scope.set(name, json!(s)),
            _ => return fails(),
        }
        return Ok(());
    }
    if let Some(name) = pattern["$get"].as_str() {
        let want = scope.get(name).clone();
        return matches(codec, &want, found, scope);
    }
    if let Some(name) = pattern["$cid"].as_str() {
        let want = scope.cid(name, 0);
        return if is_cid(codec, found) == Some(want) { Ok(()) } else { fails() };
    }
    if let Some(want) = pattern["$bytes"].as_str() {
        let same = match (codec, found) {
            (Codec::Json, Tree::Text(text)) => text == want,
            (Codec::Msgpack, Tree::Bytes(bytes)) => *bytes == BASE64_STANDARD.decode(want).unwrap(),
            _ => false,
        };
        return if same { Ok(()) } else { fails() };
    }
    if let Some(word) = pattern["$holds"].as_str() {
        return if matches!(found, Tree::Text(text) if text.contains(word)) { Ok(()) } else { fails() };
    }
    if let Value::Object(some) = &pattern["$some"] {
        let Tree::Map(have) = found else { return fails() };
        let of = have.iter().filter(|(k, _)| some.contains_key(k)).cloned().collect();
        return matches(codec, &pattern["$some"], &Tree::Map(of), scope);
    }
    let is = match (pattern["$is"].as_str().unwrap_or_else(|| panic!("a pattern of another sort: {pattern}")), found) {
        ("id", Tree::Int(n)) => *n > AN_ID,
        ("time", Tree::Int(n)) => *n > A_TIME,
        ("number", Tree::Int(n)) => *n >= 0,
        ("text", Tree::Text(s)) => !s.is_empty(),
        ("string", Tree::Text(_)) | ("bool", Tree::Bool(_)) | ("list", Tree::List(_)) | ("map", Tree::Map(_)) => true,
        ("token", Tree::Text(s)) => Token::parse(s).is_ok(),
        ("thread", Tree::Text(s)) => s.parse::<Thread>().is_ok(),
        ("cid", v) => is_cid(codec, v).is_some(),
        _ => false,
    };
    if is { Ok(()) } else { fails() }
}

fn is_cid(codec: Codec, found: &Tree) -> Option<Cid> {
    match (codec, found) {
        (Codec::Json, Tree::Text(s)) => s.parse().ok(),
        (Codec::Msgpack, Tree::Bytes(b)) => Cid::from_bytes(b.as_slice().try_into().ok()?).ok(),
        _ => None,
    }
}

pub fn short(tree: &Tree) -> String {
    let long = format!("{tree:?}");
    long.chars().take(600).collect()
}
