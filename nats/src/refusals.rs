//! What a client is told when NATS says no: typed errors of this crate as refusals. The details stay in our log.

use natterjack_protocol::{Code, Refusal};

use crate::{kv::KvError, leader_read::LogError, publish::PublishError};

fn unavailable() -> Refusal {
    Refusal::unavailable("the message log does not answer; try again")
}

impl From<PublishError> for Refusal {
    fn from(e: PublishError) -> Self {
        match e {
            PublishError::Conflict => Self::new(Code::Conflict, "somebody else changed this at the same time; read it again"),
            PublishError::StreamFull => Self::unavailable("the message log is full; try again later"),
            PublishError::Deadline(_) | PublishError::Closed => unavailable(),
            PublishError::Rejected(_) => Self::new(Code::Internal, "the message log refused this"),
        }
    }
}

impl From<LogError> for Refusal {
    fn from(e: LogError) -> Self {
        match e {
            LogError::Unavailable(_) | LogError::NoStream(_) => unavailable(),
            LogError::Broken(_) => Self::new(Code::Internal, "the message log could not be read"),
        }
    }
}

impl From<KvError> for Refusal {
    fn from(e: KvError) -> Self {
        match e {
            KvError::Conflict => Self::new(Code::Conflict, "somebody else changed this at the same time; read it again"),
            KvError::NoBucket(_) | KvError::Unavailable { .. } => unavailable(),
            KvError::Rejected { .. } => Self::new(Code::Internal, "this could not be stored"),
            KvError::Corrupt { .. } => Self::new(Code::Internal, "stored state could not be read"),
        }
    }
}
