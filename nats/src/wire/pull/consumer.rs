//! An ephemeral consumer: no acknowledgements, in memory.

use std::time::Duration;

use serde::Serialize;

use super::nanos;
use crate::wire::{
    client::Nats,
    jetstream::{self, JsError},
    rfc3339,
};

/// A forgotten consumer is removed by the server after this long without a pull.
const INACTIVE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliverFrom {
    /// The newest value of each subject, then changes.
    LastPerSubject,
    Sequence(u64),
    Time(u64),
}

#[derive(Serialize)]
struct CreateRequest<'a> {
    stream_name: &'a str,
    config: ConsumerConfig<'a>,
}

#[derive(Serialize)]
struct ConsumerConfig<'a> {
    name: &'a str,
    deliver_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt_start_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt_start_time: Option<String>,
    ack_policy: &'static str,
    replay_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_subject: Option<&'a str>,
    inactive_threshold: u64,
    num_replicas: u8,
    mem_storage: bool,
}

/// A consumer that the server has made.
pub(crate) struct Consumer {
    pub(super) stream: String,
    pub(super) name: String,
}

impl Consumer {
    pub(crate) async fn make(
        nats: &Nats,
        stream: &str,
        filter: Option<&str>,
        from: DeliverFrom,
    ) -> Result<Self, JsError> {
        let name = format!("r{:016x}", rand::random::<u64>());
        let (deliver_policy, opt_start_seq, opt_start_time) = match from {
            DeliverFrom::LastPerSubject => ("last_per_subject", None, None),
            DeliverFrom::Sequence(seq) => ("by_start_sequence", Some(seq.max(1)), None),
            DeliverFrom::Time(ms) => ("by_start_time", None, Some(rfc3339::format_ms(ms))),
        };
        let config = ConsumerConfig {
            name: &name,
            deliver_policy,
            opt_start_seq,
            opt_start_time,
            ack_policy: "none",
            replay_policy: "instant",
            filter_subject: filter,
            inactive_threshold: nanos(INACTIVE),
            num_replicas: 1,
            mem_storage: true,
        };
        let subject = match filter {
            Some(f) => format!("CONSUMER.CREATE.{stream}.{name}.{f}"),
            None => format!("CONSUMER.CREATE.{stream}.{name}"),
        };
        let _: serde_json::Value =
            jetstream::api(nats, &subject, &CreateRequest { stream_name: stream, config }).await?;
        Ok(Self { stream: stream.to_owned(), name })
    }
}
