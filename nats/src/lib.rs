//! Everything Natterjack says to NATS, and the only place that spells a subject, a stream or a bucket.
//!
//! A message passes through `publish` (step 3: into the log), `reader` (steps 4, 7, 8: out of the log, in order), `fanin`
//! (step 5: live subjects to an edge) and `log` (history and control reads). `provision` makes what they stand on, `generation`
//! changes it while all runs, `kv` and `lease` hold the state beside the log, `service` answers requests between roles.

pub mod baseline;
pub mod beginning;
pub mod clock_mark;
pub mod config;
pub mod connect;
pub mod fanin;
pub mod fence;
pub mod generation;
pub(crate) mod inbox;
pub(crate) mod js;
pub mod kv;
pub mod kv_state;
pub mod kv_watch;
pub mod layout;
pub mod lease;
pub mod log;
pub mod log_readers;
pub(crate) mod login;
pub mod lost_end;
pub mod permissions;
pub mod positions;
pub mod probe;
pub mod provision;
pub mod publish;
pub(crate) mod pull;
pub mod reader;
mod refusals;
mod room;
pub mod server;
pub mod service;
pub mod subjects;
pub mod tail;
pub mod time;
pub(crate) mod tls;
pub(crate) mod wire_time;

pub use beginning::Beginning;
pub use clock_mark::ClockMarks;
pub use config::{NatsConfig, TlsFiles};
pub use connect::{ConnectError, Nats, RpcError};
pub use fanin::{FanIn, FanInEvent, Slot, Tail8};
pub use fence::Fence;
pub use generation::{Above, renew, switch};
pub use kv::{Buckets, Kv, KvError};
pub use kv_watch::{WatchEvent, Watching};
pub use layout::Layout;
pub use lease::{EdgeLease, LeaseState, RoleLease};
pub use log::Log;
pub use log_readers::LogReaders;
pub use lost_end::LostEnds;
pub use permissions::Role;
pub use positions::{Position, Positions};
pub use provision::{ProvisionError, provision};
pub use publish::{PublishError, Publisher, Stored};
pub use reader::{Batch, LogReader, ReadError, Record, Start};
pub use room::Room;
pub use service::{Service, serve};
pub use tail::{LogBounds, LogRecord, Tail, TailError};
pub use time::ServerTime;
