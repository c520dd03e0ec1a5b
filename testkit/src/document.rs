//! `docs/openapi.json` as a judge: every answer that a test gets over HTTP is one that the document has, with the
//! fields it has.

use std::sync::LazyLock;

use serde_json::Value;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../docs/openapi.json")).expect("docs/openapi.json is JSON"));

pub fn document() -> &'static Value {
    &DOCUMENT
}

/// Panics with what does not fit. A path or method that the document does not have is answered with a refusal, which
/// has no description.
#[track_caller]
pub fn judge(method: &str, path: &str, status: u16, body: &Value) {
    let Some(operation) = operation(method, path) else { return };
    let shown = format!("{method} {path}: {status} {body}");
    let response = resolve(&operation["responses"][status.to_string()]);
    assert!(response.is_object(), "not a status of the document: {shown}");
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_object()
        && let Err(why) = fits(schema, body, true)
    {
        panic!("not as the document says, {why}: {shown}");
    }
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let same = |template: &str| {
        let (given, wanted): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), template.split('/').collect());
        given.len() == wanted.len()
            && given.iter().zip(&wanted).all(|(g, w)| g == w || (w.starts_with('{') && !g.is_empty()))
    };
    let (_, item) = DOCUMENT["paths"].as_object()?.iter().find(|(template, _)| same(template))?;
    item.get(method.to_ascii_lowercase())
}

pub fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(to) => {
            resolve(DOCUMENT.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to} leads nowhere")))
        }
        None => value,
    }
}

/// What the schemas of the document use, but for patterns. `whole`: a field that is not described is a fault.
fn fits(schema: &'static Value, value: &Value, whole: bool) -> Result<(), String> {
    let schema = resolve(schema);
    let fault = |what: &str| Err(format!("{what} of {value}"));
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fits(part, value, false)?;
    }
    if let Some(choices) = schema["oneOf"].as_array()
        && !choices.iter().any(|c| fits(c, value, whole).is_ok())
    {
        return fault("none of the choices");
    }
    let right = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !right {
        return fault("type");
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return fault("value");
    }
    let number = |keyword: &str| schema[keyword].as_u64();
    let size = value.as_str().map(|s| s.chars().count() as u64);
    let over = |max: Option<u64>, n: Option<u64>| max.zip(n).is_some_and(|(max, n)| n > max);
    if over(number("maxLength"), size)
        || over(size, number("minLength").filter(|_| size.is_some()))
        || over(number("maximum"), value.as_u64())
    {
        return fault("size");
    }
    for item in value.as_array().into_iter().flatten() {
        if schema["items"].is_object() {
            fits(&schema["items"], item, true)?;
        }
    }
    fields(schema, value, whole)
}

fn fields(schema: &'static Value, value: &Value, whole: bool) -> Result<(), String> {
    let Some(map) = value.as_object() else { return Ok(()) };
    if let Some(missing) =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).find(|f| !map.contains_key(*f))
    {
        return Err(format!("`{missing}` is missing"));
    }
    for (name, value) in map {
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (known @ Value::Object(_), _) => fits(known, value, true).map_err(|e| format!("{name}: {e}"))?,
            (_, any @ Value::Object(_)) => fits(any, value, true).map_err(|e| format!("{name}: {e}"))?,
            _ if whole && schema["properties"].is_object() => return Err(format!("`{name}` is not described")),
            _ => {}
        }
    }
    Ok(())
}
