//! Strings and numbers with a form of their own. `protocol` has the rules and enforces them; here they stand as a schema can say them.
//! Attributes take literals only, so a test holds each number against `protocol`'s.

use natterjack_protocol::limits;
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema},
};

/// Of a user, group, device, session or edge; made by the server.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(pattern = "^[A-Za-z0-9_-]{1,64}$", min_length = 1, max_length = 64, example = "u2q8v1m0c5t7r9x3k")]
pub struct Id(String);

/// `dm.<user>.<user>` with the ids in ascending order, or `group.<group>`.
#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(pattern = r"^(dm\.[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64}|group\.[A-Za-z0-9_-]{1,64})$", max_length = 132, example = "dm.ua.ub")]
pub struct Thread(String);

/// The client's id of a message or change: a UUID of version 7 in the server's time, the same for every attempt.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(
    pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    min_length = 36,
    max_length = 36,
    example = "019f2314-e9e8-715a-9122-334455667788"
)]
pub struct Cid(String);

/// The client's id of the message before. An example of its own, because no message is behind itself.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(
    pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    min_length = 36,
    max_length = 36,
    example = "019f2314-e5d0-7159-9122-334455667788"
)]
pub struct CidBefore(String);

/// The id of a message, its place in its thread: larger is later. 0: none.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(minimum = 0, maximum = 9007199254740991usize, format = Int64, example = 64611942400001u64)]
pub struct MsgId(u64);

/// Milliseconds since 1970.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(minimum = 0, maximum = 9007199254740991usize, format = Int64, example = 1783000000000u64)]
pub struct Time(u64);

/// Milliseconds.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(minimum = 0, maximum = 9007199254740991usize, format = Int64, example = 1000)]
pub struct Millis(u64);

/// How many are wanted at most; 50 if missing.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(minimum = 1, maximum = 200, example = 50)]
pub struct PageLimit(u16);

/// The name of a group: one visible line. Counted when it is composed (NFC) and trimmed.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(
    pattern = r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]+$",
    min_length = 1,
    max_length = 100,
    example = "Teichfreunde"
)]
pub struct GroupName(String);

/// Opaque; of the last answer that had one.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(example = "1.64611942400500.64611942400777")]
pub struct Synced(String);

/// Per thread the newest id up to which this device has everything.
pub struct Cursors;

impl PartialSchema for Cursors {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .description(Some("Per thread the newest id up to which this device has everything."))
            .property_names(Some(Thread::schema()))
            .additional_properties(Some(MsgId::schema()))
            .max_properties(Some(limits::CURSORS_PER_HELLO))
            .examples([serde_json::json!({ "dm.ua.ub": 64_611_942_400_001_u64 })])
            .into()
    }
}

impl ToSchema for Cursors {}

#[cfg(test)]
mod tests {
    use natterjack_protocol::ids;

    use super::*;

    fn says<T: PartialSchema>(keyword: &str) -> serde_json::Value {
        serde_json::to_value(T::schema()).unwrap()[keyword].clone()
    }

    #[test]
    fn the_numbers_are_those_of_protocol() {
        assert_eq!(says::<Id>("maxLength"), ids::TOKEN_MAX);
        assert_eq!(says::<Thread>("maxLength"), "dm.".len() + 2 * ids::TOKEN_MAX + 1);
        assert_eq!((says::<PageLimit>("minimum"), says::<PageLimit>("maximum")), (1.into(), limits::PAGE_MAX.into()));
        assert_eq!(says::<GroupName>("maxLength"), limits::GROUP_NAME_CHARS);
        for max in [says::<MsgId>("maximum"), says::<Time>("maximum"), says::<Millis>("maximum")] {
            assert_eq!(max, (1u64 << 53) - 1);
        }
    }
}
