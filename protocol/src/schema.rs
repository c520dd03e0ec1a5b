//! How ids, numbers and texts look in JSON Schema: in docs/openapi.json and docs/frames.schema.json alike.
//!
//! The types of this crate enforce their rules when they are read; here the same rules stand as a schema can say them.
//! Attributes take literals only, so a test holds each number against `limits`.

pub mod texts;

use std::borrow::Cow;

use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};

use crate::{
    cid::Cid,
    ids::{self, MsgId, Token},
    limits,
    thread::Thread,
};

const CID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";

fn string(description: &str, pattern: &str, length: std::ops::RangeInclusive<usize>, example: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(Some(pattern))
        .min_length(Some(*length.start()))
        .max_length(Some(*length.end()))
        .examples([example])
}

impl PartialSchema for Token {
    fn schema() -> RefOr<Schema> {
        let about = "Of a user, group, device, session or edge; made by the server.";
        string(about, "^[A-Za-z0-9_-]{1,64}$", 1..=ids::TOKEN_MAX, "u2q8v1m0c5t7r9x3k").into()
    }
}

impl ToSchema for Token {
    fn name() -> Cow<'static, str> {
        "Id".into()
    }
}

impl PartialSchema for Thread {
    fn schema() -> RefOr<Schema> {
        let pattern = r"^(dm\.[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64}|group\.[A-Za-z0-9_-]{1,64})$";
        let longest = "dm.".len() + 2 * ids::TOKEN_MAX + 1;
        let about = "`dm.<user>.<user>` with the ids in ascending order, or `group.<group>`.";
        string(about, pattern, "dm.a.b".len()..=longest, "dm.ua.ub").into()
    }
}

impl ToSchema for Thread {}

impl PartialSchema for Cid {
    fn schema() -> RefOr<Schema> {
        let about = "The client's id of a message or change: a UUID of version 7 in the server's time, the same for \
                     every attempt.";
        string(about, CID, 36..=36, "019f2314-e9e8-715a-9122-334455667788").into()
    }
}

impl ToSchema for Cid {}

/// The client's id of the message before. An example of its own, because no message is behind itself.
pub struct CidBefore;

impl PartialSchema for CidBefore {
    fn schema() -> RefOr<Schema> {
        let about =
            "The client's id of the message before. An example of its own, because no message is behind itself.";
        string(about, CID, 36..=36, "019f2314-e5d0-7159-9122-334455667788").into()
    }
}

impl ToSchema for CidBefore {}

fn number(description: &str, min: u64, max: u64, example: u64) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some(description))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(min))
        .maximum(Some(max))
        .examples([example])
}

impl PartialSchema for MsgId {
    fn schema() -> RefOr<Schema> {
        let about = "The id of a message, its place in its thread: larger is later. 0: none.";
        number(about, 0, limits::NUMBER_MAX, 64_611_942_400_001).into()
    }
}

impl ToSchema for MsgId {}

/// Milliseconds since 1970.
pub struct Time;

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        number("Milliseconds since 1970.", 0, limits::NUMBER_MAX, 1_783_000_000_000).into()
    }
}

impl ToSchema for Time {}

/// Milliseconds.
pub struct Millis;

impl PartialSchema for Millis {
    fn schema() -> RefOr<Schema> {
        number("Milliseconds.", 0, limits::NUMBER_MAX, 1_000).into()
    }
}

impl ToSchema for Millis {}

/// The number of a request on a socket.
pub struct RequestNumber;

impl PartialSchema for RequestNumber {
    fn schema() -> RefOr<Schema> {
        number("Chosen by the client; echoed in the answer.", 0, u32::MAX.into(), 1).into()
    }
}

impl ToSchema for RequestNumber {}

/// How many are wanted at most.
pub struct PageLimit;

impl PartialSchema for PageLimit {
    fn schema() -> RefOr<Schema> {
        number("How many are wanted at most; 50 if missing.", 1, limits::PAGE_MAX as u64, limits::PAGE_DEFAULT as u64)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .into()
    }
}

impl ToSchema for PageLimit {}

/// The name of a group.
pub struct GroupName;

impl PartialSchema for GroupName {
    fn schema() -> RefOr<Schema> {
        one_line("The name of a group", limits::GROUP_NAME_CHARS, "Teichfreunde")
    }
}

impl ToSchema for GroupName {}

/// What a user calls a device.
pub struct DeviceName;

impl PartialSchema for DeviceName {
    fn schema() -> RefOr<Schema> {
        one_line("What its user calls the device", limits::DEVICE_NAME_CHARS, "Anna's phone")
    }
}

impl ToSchema for DeviceName {}

/// Name and version of a client.
pub struct AppName;

impl PartialSchema for AppName {
    fn schema() -> RefOr<Schema> {
        one_line("Name and version of the client", limits::APP_CHARS, "Teich 1.4.2")
    }
}

impl ToSchema for AppName {}

fn one_line(what: &str, most: usize, example: &str) -> RefOr<Schema> {
    let about = format!("{what}: one visible line. Counted when it is composed (NFC) and trimmed.");
    string(&about, r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]+$", 1..=most, example).into()
}

/// How far a device is in sync.
pub struct Synced;

impl PartialSchema for Synced {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Opaque; of the last answer that had one."))
            .examples(["1.1795260309.64611942400500.64611942400777"])
            .into()
    }
}

impl ToSchema for Synced {}

/// Per thread the newest id up to which a device has everything.
pub struct Cursors;

impl PartialSchema for Cursors {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Per thread the newest id up to which this device has everything."))
            .property_names(Some(Thread::schema()))
            .additional_properties(Some(MsgId::schema()))
            .max_properties(Some(limits::CURSORS_PER_HELLO))
            .examples([serde_json::json!({ "dm.ua.ub": 64_611_942_400_001_u64 })])
            .into()
    }
}

impl ToSchema for Cursors {}

/// A part of a page that could not be read, from the first id to the last.
pub struct Hole;

impl PartialSchema for Hole {
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new().items(MsgId::schema()).min_items(Some(2)).max_items(Some(2)).into()
    }
}

impl ToSchema for Hole {}

/// Takes `null` out of a document made of derived schemas: a field without a value is left out, on both sides.
pub fn without_null(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(without_null),
        Value::Object(map) => {
            map.values_mut().for_each(without_null);
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("oneOf") {
                choices.retain(|c| c["type"] != "null");
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    map.remove("oneOf");
                    // What is said of the field stays.
                    for (key, value) in only {
                        map.entry(key).or_insert(value);
                    }
                }
            }
        }
        _ => {}
    }
}
