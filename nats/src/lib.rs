//! Everything Natterjack says to NATS, and the only place that spells a subject, a stream or a bucket.
//!
//! A message passes through `publish` (step 3: into the log), `reader` (steps 4 and 7: out of the log, in order),
//! `fanin` (step 5: live subjects to an edge) and `thread_log` (history and control reads). `provision` makes what
//! they stand on, `generation` changes it while all runs, `keys` (typed by `typed_key`, over `kv`) and `lease` are the
//! state beside the log, `calls` asks other roles, `service` answers. `wire` is our own NATS client below all of it.

pub mod baseline;
mod beginning;
pub mod calls;
mod clock_mark;
mod config;
mod fanin;
mod fence;
mod generation;
mod keys;
mod kv;
mod kv_tree;
mod kv_watch;
mod layout;
mod layout_store;
mod leader_read;
mod lease;
pub mod log_readers;
mod log_usage;
mod lost_end;
mod metrics;
mod nats_role;
pub mod permissions;
mod positions;
pub mod probe;
pub mod provision;
mod publish;
mod reader;
mod role_config;
mod rpc;
pub mod server_config;
pub mod server_time;
mod service;
mod streams;
pub mod subjects;
mod thread_log;
mod typed_key;
mod wire;

pub use clock_mark::ClockMarks;
pub use config::{NatsConfig, TlsFiles};
pub use fanin::{FanIn, FanInEvent, LiveKind, SubscriptionSlot};
pub use fence::Fence;
pub use generation::{renew, renew_above};
pub use keys::{
    KvBuckets,
    values::{Beginning, LastBackup, LeaseHolder, Position},
};
pub use kv::{Kv, KvError};
pub use kv_tree::{KvTree, TreeChange};
pub use kv_watch::{BucketRevision, WatchEvent, WatchProgress};
pub use layout::Layout;
pub use layout_store::LayoutError;
pub use leader_read::{LeaderReader, LogBounds, LogError, LogRecord, NewestEntry};
pub use lease::{EdgeLease, LeaseStanding, LeaseState, RoleLease};
pub use log_readers::LogReaders;
pub use log_usage::LogUsage;
pub use lost_end::LostEnds;
pub use nats_role::NatsRole;
pub use positions::Positions;
pub use provision::{provision, switch};
pub use publish::{PublishAck, PublishError, Publisher};
pub use reader::{
    LogReader, ReadError, ReadFrom,
    record::{LogBatch, Record},
};
pub use role_config::{RoleConfig, RoleStartError};
pub use rpc::RpcError;
pub use server_time::ServerTime;
pub use service::{ServeError, Service, serve};
pub use streams::{EPOCH_MS, IdFloor, ProvisionError, existing_stream, first_seq};
pub use thread_log::ThreadLog;
pub use typed_key::{KeyChange, KvValue, TypedKey, TypedKeys};
pub use wire::{
    client::{Nats, NatsConnectError, check_servers},
    core::{NatsMessage, NatsSendError, NatsSubject, Subscription},
};
