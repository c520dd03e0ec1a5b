//! The parts of paths, and threads as requests name them. `UserId`, `GroupId` and `ThreadName` refuse what is none.

use natterjack_protocol::{Code, DeviceId, GroupId, MsgId, Refusal, Thread, UserId, thread::BadThread};
use serde::{Deserialize, Deserializer, de::Error as _};
use utoipa::IntoParams;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct UserPath {
    #[param(inline)]
    pub user: UserId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct DevicePath {
    #[param(inline)]
    pub device: DeviceId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct GroupPath {
    #[param(inline)]
    pub group: GroupId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MemberPath {
    #[param(inline)]
    pub group: GroupId,
    #[param(inline)]
    pub user: UserId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct ThreadPath {
    #[param(inline, value_type = Thread)]
    pub thread: ThreadName,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MessagePath {
    #[param(inline, value_type = Thread)]
    pub thread: ThreadName,
    #[param(inline)]
    pub id: MsgId,
}

/// The name of a thread in a request. A DM whose ids are in the wrong order is spelled as the document says, which
/// cannot say the order, and names nothing: it is not found, instead of being wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThreadName {
    Thread(Thread),
    Misordered,
}

impl ThreadName {
    pub fn parse(name: &str) -> Result<Self, BadThread> {
        let misordered = |rest: &str| {
            rest.split_once('.').is_some_and(|(a, b)| ["dm.", b, ".", a].concat().parse::<Thread>().is_ok())
        };
        match name.parse() {
            Ok(thread) => Ok(Self::Thread(thread)),
            Err(_) if name.strip_prefix("dm.").is_some_and(misordered) => Ok(Self::Misordered),
            Err(bad) => Err(bad),
        }
    }

    pub fn thread(self) -> Result<Thread, Refusal> {
        match self {
            Self::Thread(thread) => Ok(thread),
            Self::Misordered => Err(Refusal::new(
                Code::NotFound,
                "thread: there is none of this name; the ids in dm.<user>.<user> are in ascending order",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ThreadName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_thread_and_is_none_is_not_found() {
        assert_eq!(ThreadName::parse("dm.a.b").unwrap().thread(), Ok("dm.a.b".parse().unwrap()));
        assert_eq!(ThreadName::parse("dm.b.a").unwrap().thread().unwrap_err().code, Code::NotFound);
        for bad in ["dm.b", "dm.a.b.c", "dm..a", "dm.b.a.", "group.a.b", "dm.ä.a", "dm.b.*", ""] {
            assert!(ThreadName::parse(bad).is_err(), "{bad}");
        }
    }
}
