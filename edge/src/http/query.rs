//! The query of a request, read strictly: a parameter that the document does not have, one that stands there twice,
//! and bad encoding are refused. A misspelled `?befor=` would otherwise be answered with the newest page.

use std::collections::{HashMap, HashSet};

use axum::{
    extract::FromRequestParts,
    http::{Method, request::Parts},
};
use natterjack_protocol::Refusal;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, IntoDeserializer},
};
use serde_json::Value;

use super::extract::HttpFailure;

/// What a double holds exactly.
const MAX: u64 = (1 << 53) - 1;

pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpFailure> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(e) => {
                let text = e.body_text();
                let why = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                Err(HttpFailure(Refusal::invalid(format!("query: {why}"))))
            }
        }
    }
}

/// A whole number in decimal digits: no sign, no leading zero, no fraction, below 2^53.
pub fn number<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(d)?;
    let number =
        digits(&text).ok_or_else(|| D::Error::custom(format!("a whole number from 0 to {MAX} in decimal digits")))?;
    let number: Result<T, D::Error> = T::deserialize(number.into_deserializer());
    number.map(Some).map_err(|_| D::Error::custom("the number is too large"))
}

pub fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|n| plain && *n <= MAX)
}

/// The parameters of every operation under `/v1`, as the document lists them. Paths outside of it are for operators,
/// whose load balancers may add what they like.
pub struct Known(HashMap<(Method, String), HashSet<String>>);

impl Known {
    pub fn of(document: &Value) -> Self {
        let mut known = HashMap::new();
        for (path, item) in
            document["paths"].as_object().into_iter().flatten().filter(|(path, _)| path.starts_with("/v1/"))
        {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let Ok(method) = Method::from_bytes(method.to_ascii_uppercase().as_bytes()) else { continue };
                let parameters =
                    operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query");
                let names = parameters.flat_map(names).map(str::to_owned).collect();
                known.insert((method, path.clone()), names);
            }
        }
        Self(known)
    }

    pub fn check(&self, method: &Method, route: &str, query: Option<&str>) -> Result<(), Refusal> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let (Some(query), Some(names)) =
            (query.filter(|q| !q.is_empty()), self.0.get(&(method.clone(), route.to_owned())))
        else {
            return Ok(());
        };
        let mut seen = HashSet::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name)?;
            decoded(value)?;
            if !names.contains(&name) {
                let mut known: Vec<&str> = names.iter().map(String::as_str).collect();
                known.sort_unstable();
                let known =
                    if known.is_empty() { "none are known".into() } else { format!("known are {}", known.join(", ")) };
                return Err(Refusal::invalid(format!("query: a parameter that this request does not have; {known}")));
            }
            if !seen.insert(name.clone()) {
                return Err(Refusal::invalid(format!("query: {name} stands there twice")));
            }
        }
        Ok(())
    }
}

/// An object has a parameter per field.
fn names(parameter: &Value) -> Vec<&str> {
    match parameter["schema"]["properties"].as_object() {
        Some(fields) => fields.keys().map(String::as_str).collect(),
        None => parameter["name"].as_str().into_iter().collect(),
    }
}

fn decoded(text: &str) -> Result<String, Refusal> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let hex = rest
                    .get(..2)
                    .filter(|h| h.iter().all(u8::is_ascii_hexdigit))
                    .and_then(|h| std::str::from_utf8(h).ok());
                let byte = hex.and_then(|h| u8::from_str_radix(h, 16).ok());
                rest = rest.get(2..).unwrap_or_default();
                byte.ok_or_else(|| Refusal::invalid("query: % is followed by two hexadecimal digits"))?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| Refusal::invalid("query: not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(query: &str) -> Result<(), String> {
        let document = json!({ "paths": { "/v1/x": { "get": { "parameters": [
            { "in": "query", "name": "limit" }, { "in": "path", "name": "thread" },
            { "in": "query", "name": "place", "schema": { "properties": { "before": {} } } },
        ] } } } });
        Known::of(&document).check(&Method::GET, "/v1/x", Some(query)).map_err(|r| r.message)
    }

    #[test]
    fn what_the_document_does_not_have_is_refused() {
        for good in ["", "limit=1", "limit=1&before=2", "before=", "%6cimit=1", "limit=%31", "limit=a+b"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "limt=1",
            "thread=1",
            "limit=1&limit=2",
            "limit=1&limit=1",
            "limit=1&%6Cimit=1",
            "limit=1&",
            "&",
            "=1",
            "place=1",
            "LIMIT=1",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for bad in ["limit=%", "limit=%4", "limit=%zz", "limit=%+1", "limit=%ff", "%ff=1", "limit=%c3%28"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check("befor=1").unwrap_err().contains("known are before, limit"));
    }

    #[test]
    fn a_number_has_one_spelling() {
        for (good, n) in [("0", 0), ("7", 7), ("9007199254740991", MAX)] {
            assert_eq!(digits(good), Some(n));
        }
        for bad in [
            "",
            "+1",
            "-1",
            "01",
            "00",
            "1.0",
            "1e3",
            " 1",
            "1 ",
            "0x1",
            "9007199254740992",
            "18446744073709551616",
            "١",
            "1_0",
        ] {
            assert_eq!(digits(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered(query in "[ -~]{0,40}") {
            let _ = check(&query);
        }
    }
}
