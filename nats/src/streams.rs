//! The streams of an installation: how those of the log and of the buckets are made, compared with what is wanted, and
//! which ids they have given. `provision` and `generation` say when.

use std::time::Duration;

use natterjack_protocol::{MsgId, Times};

use crate::{
    config::NatsConfig,
    kv::KvError,
    layout_store::LayoutError,
    log_readers, subjects,
    wire::{
        client::Nats,
        jetstream::{self, DiscardPolicy, JsError, RetentionPolicy, StorageType, StreamConfig, code},
    },
};

/// Milliseconds since 1970 at the start of 2026: ids count from here, and an earlier clock is a wrong clock.
pub const EPOCH_MS: u64 = 1_767_225_600_000;
/// For a server whose free disk nobody told us.
const FALLBACK_MAX_BYTES: i64 = 4 << 30;

/// Ids that may have been given above the highest that anybody remembers. 2^32 is 49,000 entries a second of one
/// partition over the 24 h that the log keeps; one nats-server stores fewer. Of the 2^53 ids there are, a new
/// generation takes as many as 17 minutes do.
pub(crate) const FORGOTTEN: u64 = 1 << 32;

/// What an archive knows beside the log: a new generation has a higher number and higher ids. Zero: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdFloor {
    pub generation: u32,
    pub id: MsgId,
}

#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("the clock says a time before 2026 ({0} ms since 1970); set it, ids are made from it")]
    Clock(u64),
    #[error("nats-server {0} is too old; 2.14 or later is needed")]
    ServerTooOld(String),
    #[error("{0}")]
    Payload(String),
    #[error("{name} exists and differs: {}; change the configuration back", .differences.join(", "))]
    Drift { name: String, differences: Vec<String> },
    #[error("{name}: {reason}")]
    Create { name: String, reason: String },
    #[error("generation {generation} is not yet read to its end by {reader}, and a further one has to wait for that: \
        {}", log_readers::advice(.reader))]
    Unread { generation: u32, reader: String },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("JetStream does not answer: {0}; is it on (-js)?")]
    JetStream(#[from] JsError),
}

pub(crate) fn wall_clock() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Ids of a later generation are always larger, and stay below 2^53 until 2095: 12 bits are 4 M entries a second and
/// partition.
pub fn first_seq(now_ms: u64, highest_before: u64) -> u64 {
    (now_ms.saturating_sub(EPOCH_MS) << 12).max(highest_before + 1)
}

/// The largest id any partition of any generation has given.
pub(crate) async fn highest_id(nats: &Nats) -> Result<u64, ProvisionError> {
    let mut highest = 0;
    for name in names(nats).await?.iter().filter(|n| n.starts_with(subjects::STREAM_PREFIX)) {
        if let Some(info) = jetstream::stream_info(nats, name).await? {
            highest = highest.max(info.state.last_seq);
        }
    }
    Ok(highest)
}

/// A stream of an installation that is there already, if there is any: of the log, or of a bucket.
pub async fn existing_stream(nats: &Nats) -> Result<Option<String>, ProvisionError> {
    let ours = |n: &String| n.starts_with(subjects::STREAM_PREFIX) || *n == subjects::bucket_stream(subjects::CONTROL);
    Ok(names(nats).await?.into_iter().find(ours))
}

async fn names(nats: &Nats) -> Result<Vec<String>, ProvisionError> {
    #[derive(serde::Deserialize)]
    struct Page {
        #[serde(default)]
        total: usize,
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    let mut all = Vec::new();
    loop {
        let page: Page = jetstream::api(nats, "STREAM.NAMES", &serde_json::json!({ "offset": all.len() })).await?;
        let names = page.streams.unwrap_or_default();
        let last = names.is_empty();
        all.extend(names);
        if last || all.len() >= page.total {
            return Ok(all);
        }
    }
}

pub(crate) fn log_stream(generation: u32, p: u32, first_id: u64, cfg: &NatsConfig, times: &Times) -> StreamConfig {
    StreamConfig {
        name: subjects::stream(generation, p),
        subjects: subjects::stream_subjects(generation, p),
        first_sequence: Some(first_id),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        // A full log refuses; it never drops what was acknowledged.
        discard: DiscardPolicy::New,
        max_bytes: cfg.max_bytes.or(cfg.default_max_bytes).unwrap_or(FALLBACK_MAX_BYTES),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_age: times.log_max_age,
        num_replicas: cfg.replicas.max(1),
        duplicate_window: times.dedupe_window,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        // Of a sender's messages, several at once and in order (ADR 7).
        allow_batch_publish: true,
        ..StreamConfig::default()
    }
}

pub(crate) fn buckets(cfg: &NatsConfig, times: &Times) -> Vec<StreamConfig> {
    // None in memory: it is gone with the only server, and of three that restart all have to come back (ADR 6).
    let lasting = |name: String| bucket(name, cfg, Duration::ZERO);
    let mut all = vec![
        lasting(subjects::CONTROL.into()),
        bucket(subjects::ROLES.into(), cfg, times.role_lease),
        StreamConfig {
            // Watchers of edges are told about an expiry by a marker.
            allow_message_ttl: true,
            subject_delete_marker_ttl: Some(times.edge_lease.max(Duration::from_secs(1))),
            ..bucket(subjects::LEASES.into(), cfg, times.edge_lease)
        },
    ];
    all.extend(subjects::shard_buckets(cfg.kv_shards.max(1)).map(lasting));
    all
}

fn bucket(name: String, cfg: &NatsConfig, max_age: Duration) -> StreamConfig {
    StreamConfig {
        name: subjects::bucket_stream(&name),
        subjects: vec![subjects::bucket_key(&name, ">")],
        storage: StorageType::File,
        max_age,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: 1,
        max_consumers: -1,
        // The newest value replaces the one before; when the disk is full a write is refused.
        discard: DiscardPolicy::New,
        num_replicas: cfg.replicas.max(1),
        // No Msg-Ids are used here; the shortest the server takes.
        duplicate_window: if max_age.is_zero() { Duration::from_secs(1) } else { max_age.min(Duration::from_secs(1)) },
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..StreamConfig::default()
    }
}

pub(crate) async fn create_or_verify(
    nats: &Nats,
    mut wanted: StreamConfig,
    compare_bytes: bool,
) -> Result<(), ProvisionError> {
    let name = wanted.name.clone();
    if let Some(info) = jetstream::stream_info(nats, &name).await? {
        if !compare_bytes {
            wanted.max_bytes = info.config.max_bytes;
        }
        verify(&name, &info.config, &wanted)?;
        return allow_batches(nats, &wanted, info.config).await;
    }
    match jetstream::api::<_, serde_json::Value>(nats, &format!("STREAM.CREATE.{name}"), &wanted).await {
        Ok(_) => {
            tracing::debug!(name, "created");
            Ok(())
        }
        // Two provision at once: whoever was first decided, the other verifies.
        Err(e) if e.err_code() == code::STREAM_NAME_EXISTS => match jetstream::stream_info(nats, &name).await? {
            Some(info) => verify(&name, &info.config, &wanted),
            None => Err(ProvisionError::Create { name, reason: e.to_string() }),
        },
        Err(e) => Err(ProvisionError::Create { name, reason: e.to_string() }),
    }
}

/// Of what an earlier version has made, this alone is brought up to date: it takes nothing away.
async fn allow_batches(nats: &Nats, wanted: &StreamConfig, found: StreamConfig) -> Result<(), ProvisionError> {
    if !wanted.allow_batch_publish || found.allow_batch_publish {
        return Ok(());
    }
    let name = found.name.clone();
    let updated = StreamConfig { allow_batch_publish: true, ..found };
    let _: serde_json::Value = jetstream::api(nats, &format!("STREAM.UPDATE.{name}"), &updated).await?;
    tracing::info!(name, "takes batches now");
    Ok(())
}

fn verify(name: &str, found: &StreamConfig, wanted: &StreamConfig) -> Result<(), ProvisionError> {
    let differences = differences(found, wanted);
    if differences.is_empty() { Ok(()) } else { Err(ProvisionError::Drift { name: name.to_owned(), differences }) }
}

/// What an existing stream must have in common with the wanted one. `first_seq` is the moment of its creation and
/// `max_bytes` follows the disk it was created on, unless it is set.
fn differences(found: &StreamConfig, wanted: &StreamConfig) -> Vec<String> {
    let mut d = Vec::new();
    differ(&mut d, "subjects", &found.subjects, &wanted.subjects);
    differ(&mut d, "storage", &found.storage, &wanted.storage);
    differ(&mut d, "retention", &found.retention, &wanted.retention);
    differ(&mut d, "discard", &found.discard, &wanted.discard);
    differ(&mut d, "max_bytes", &found.max_bytes, &wanted.max_bytes);
    differ(&mut d, "max_messages", &found.max_messages, &wanted.max_messages);
    differ(&mut d, "max_messages_per_subject", &found.max_messages_per_subject, &wanted.max_messages_per_subject);
    differ(&mut d, "max_age", &found.max_age, &wanted.max_age);
    differ(&mut d, "replicas", &found.num_replicas, &wanted.num_replicas);
    differ(&mut d, "duplicate_window", &found.duplicate_window, &wanted.duplicate_window);
    differ(&mut d, "deny_delete", &found.deny_delete, &wanted.deny_delete);
    differ(&mut d, "deny_purge", &found.deny_purge, &wanted.deny_purge);
    differ(&mut d, "allow_direct", &found.allow_direct, &wanted.allow_direct);
    differ(&mut d, "allow_rollup", &found.allow_rollup, &wanted.allow_rollup);
    differ(&mut d, "allow_msg_ttl", &found.allow_message_ttl, &wanted.allow_message_ttl);
    differ(&mut d, "subject_delete_marker_ttl", &found.subject_delete_marker_ttl, &wanted.subject_delete_marker_ttl);
    d
}

pub(crate) fn differ<T: PartialEq + std::fmt::Debug>(differences: &mut Vec<String>, what: &str, found: &T, wanted: &T) {
    if found != wanted {
        differences.push(format!("{what} is {found:?}, wanted {wanted:?}"));
    }
}
