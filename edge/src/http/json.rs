//! A body: read as a frame is, but for one thing. To JSON Schema `5.0` is a whole number, and a client that is made
//! from the document may write it so.

use natterjack_protocol::codec::{BadBytes, Codec};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

/// What a double holds exactly.
const MAX: f64 = 9_007_199_254_740_991.0;

/// One JSON object. The error names the field, never the value.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadBytes> {
    Codec::Json.read(bytes).or_else(|why| match whole(bytes) {
        Some(bytes) => Codec::Json.read(&bytes),
        None => Err(why),
    })
}

/// The same with whole numbers spelled as such. None: there is nothing to change, or its form is wrong.
fn whole(bytes: &[u8]) -> Option<Vec<u8>> {
    Codec::Json.read::<IgnoredAny>(bytes).ok()?;
    let mut value = serde_json::from_slice(bytes).ok()?;
    spell(&mut value).then(|| value.to_string().into_bytes())
}

/// True: something was changed.
fn spell(value: &mut Value) -> bool {
    match value {
        Value::Array(list) => list.iter_mut().fold(false, |changed, v| spell(v) | changed),
        Value::Object(map) => map.values_mut().fold(false, |changed, v| spell(v) | changed),
        Value::Number(n) if n.is_f64() => match n.as_f64() {
            Some(f) if f.fract() == 0.0 && (0.0..=MAX).contains(&f) => {
                *value = (f as u64).into();
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Login {
        password: u8,
    }

    #[test]
    fn a_whole_number_may_have_a_fraction_of_zeros() {
        for good in
            [r#"{"password":7}"#, r#"{"password":7.0}"#, r#"{"password":7e0,"x":[1.5]}"#, r#"{"password":0.7e1}"#]
        {
            assert_eq!(read(good.as_bytes()), Ok(Login { password: 7 }), "{good}");
        }
        for bad in [
            r#"{"password":7.5}"#,
            r#"{"password":-7.0}"#,
            r#"{"password":7e3}"#,
            r#"{"password":1e400}"#,
            r#"{"password":"7.0"}"#,
        ] {
            assert!(read::<Login>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_names_the_field_and_never_repeats_the_value() {
        let wrong = |text: &str| read::<Login>(text.as_bytes()).unwrap_err().0;
        for text in [r#"{"password":"hunter2"}"#, r#"{"password":"hunter2","x":1.0}"#] {
            let why = wrong(text);
            assert!(why.contains("password") && !why.contains("hunter2"), "{why}");
        }
        assert!(wrong("{}").contains("password"));
        assert!(!wrong("[7]").is_empty() && !wrong("not json").is_empty() && !wrong("").is_empty());
    }
}
