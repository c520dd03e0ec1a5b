//! Every subject, stream and bucket by name; the keys of buckets are spelled in `keys`. Input is typed (`Token`,
//! `Thread`, numbers), so nothing a client sends can become a wildcard.

use natterjack_protocol::{GroupId, Thread, Token, UserId};

/// Every partition's heartbeat of `channel`.
pub const BEATS: &str = "beat.*";
/// Requests `rpc::HistoryRequest`, a queue group of the same name.
pub const HISTORY: &str = "svc.history";
/// Requests `rpc::LossesRequest`, a queue group of the same name.
pub const LOSSES: &str = "svc.losses";
/// Requests `rpc::DirectoryRequest`, a queue group of the same name.
pub const DIRECTORY: &str = "svc.directory";
/// Requests `operator::OperatorRequest`, a queue group of the same name.
pub const OPERATORS: &str = "svc.operators";

/// The stream of `baseline`.
pub(crate) const BASELINE: &str = "BASELINE";
pub(crate) const LEASES: &str = "leases";
pub(crate) const ROLES: &str = "roles";
pub(crate) const CONTROL: &str = "control";
/// What the names of the shards of these begin with.
pub(crate) const USERS: &str = "users-";
pub(crate) const SESSIONS: &str = "sessions-";

/// Where messages and operations of a thread are stored.
pub fn chat(generation: u32, p: u32, thread: &Thread) -> String {
    format!("chat.{generation}.{p}.{}", thread.spelled())
}

/// Where the control entries of a thread are stored.
pub fn ctl(generation: u32, p: u32, thread: &Thread) -> String {
    format!("ctl.{generation}.{p}.{thread}")
}

/// The only subject of a partition that is over: nobody publishes there but `provision`, once, behind everything that
/// was stored.
pub fn end(generation: u32, p: u32) -> String {
    format!("end.{generation}.{p}")
}

/// What a subject of the log says about the entry stored under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntrySubject {
    pub generation: u32,
    pub partition: u32,
    pub thread: Thread,
    pub control: bool,
}

pub fn parse_entry(subject: &str) -> Option<EntrySubject> {
    let (kind, rest) = subject.split_once('.')?;
    let control = match kind {
        "chat" => false,
        "ctl" => true,
        _ => return None,
    };
    let (generation, rest) = rest.split_once('.')?;
    let (partition, thread) = rest.split_once('.')?;
    Some(EntrySubject {
        generation: generation.parse().ok()?,
        partition: partition.parse().ok()?,
        thread: thread.parse().ok()?,
        control,
    })
}

pub fn live_user(uid: &UserId) -> String {
    format!("live.user.{uid}.e")
}

/// Events and ephemeral messages in one subscription.
pub fn live_user_all(uid: &UserId) -> String {
    format!("live.user.{uid}.*")
}

pub fn live_user_x(uid: &UserId) -> String {
    format!("live.user.{uid}.x")
}

pub fn live_group(gid: &GroupId) -> String {
    format!("live.group.{gid}.e")
}

pub fn live_group_all(gid: &GroupId) -> String {
    format!("live.group.{gid}.*")
}

pub fn live_group_x(gid: &GroupId) -> String {
    format!("live.group.{gid}.x")
}

/// The subjects a thread's events go to: both users of a DM (once, if they are the same), a group's own.
pub fn live_subjects_of(thread: &Thread) -> Vec<String> {
    match thread {
        Thread::Dm { .. } => thread.dm_users().map(live_user).collect(),
        Thread::Group { gid } => vec![live_group(gid)],
    }
}

/// The subjects a thread's ephemeral messages go to.
pub fn live_x_subjects_of(thread: &Thread) -> Vec<String> {
    match thread {
        Thread::Dm { .. } => thread.dm_users().map(live_user_x).collect(),
        Thread::Group { gid } => vec![live_group_x(gid)],
    }
}

pub fn beat(p: u32) -> String {
    format!("beat.{p}")
}

/// The partition of a beat's subject.
pub fn parse_beat(subject: &str) -> Option<u32> {
    subject.strip_prefix("beat.")?.parse().ok()
}

/// Request and reply; served by the holder of the partition on the connection that publishes its frames.
pub fn heads(generation: u32, p: u32) -> String {
    format!("svc.channel.heads.{generation}.{p}")
}

/// Requests `rpc::EdgeRequest` to one edge.
pub fn edge_service(id: &Token) -> String {
    format!("svc.edge.{id}")
}

/// Batches `PresenceBatch` of the holder of the shard.
pub fn presence(shard: u32) -> String {
    format!("presence.{shard}")
}

/// Every shard's.
pub const PRESENCE: &str = "presence.*";

/// Requests `PresenceRequest`; served by the holder of the shard on the connection that publishes its batches.
pub fn presence_service(shard: u32) -> String {
    format!("svc.presence.{shard}")
}

/// The stream of a partition.
pub fn stream(generation: u32, p: u32) -> String {
    format!("CHAT-{generation}-{p}")
}

/// The prefix all streams of the log share, of every generation.
pub(crate) const STREAM_PREFIX: &str = "CHAT-";

/// Everything stored in one partition.
pub fn stream_subjects(generation: u32, p: u32) -> Vec<String> {
    vec![format!("chat.{generation}.{p}.>"), format!("ctl.{generation}.{p}.>")]
}

pub(crate) fn baseline(pair: &str) -> String {
    format!("baseline.{pair}")
}

/// The buckets of which there is one for each shard.
pub(crate) fn shard_buckets(kv_shards: u32) -> impl Iterator<Item = String> {
    (0..kv_shards).flat_map(|shard| [groups_bucket(shard), users_bucket(shard), sessions_bucket(shard)])
}

pub fn groups_bucket(shard: u32) -> String {
    format!("groups-{shard}")
}

pub fn users_bucket(shard: u32) -> String {
    format!("{USERS}{shard}")
}

/// Which devices a user has, and where their sessions are.
pub fn sessions_bucket(shard: u32) -> String {
    format!("{SESSIONS}{shard}")
}

pub(crate) fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

pub(crate) fn bucket_key(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// The key of a bucket's message.
pub(crate) fn parse_bucket_key<'a>(bucket: &str, subject: &'a str) -> Option<&'a str> {
    subject.strip_prefix("$KV.")?.strip_prefix(bucket)?.strip_prefix('.')
}

/// The same with wildcards, and what is asked of JetStream: for `permissions`.
pub(crate) mod any {
    pub const CHAT: &str = "chat.*.*.>";
    pub const CTL: &str = "ctl.*.*.>";
    pub const END: &str = "end.*.*";
    pub const LIVE_USER: &str = "live.user.*.*";
    pub const LIVE_USER_E: &str = "live.user.*.e";
    pub const LIVE_USER_X: &str = "live.user.*.x";
    pub const LIVE_GROUP: &str = "live.group.*.*";
    pub const LIVE_GROUP_E: &str = "live.group.*.e";
    pub const LIVE_GROUP_X: &str = "live.group.*.x";
    pub const HEADS: &str = "svc.channel.heads.*.*";
    pub const EDGES: &str = "svc.edge.*";
    pub const PRESENCE_SERVICES: &str = "svc.presence.*";

    pub fn stream_info() -> String {
        "$JS.API.STREAM.INFO.*".into()
    }

    pub fn get(stream: &str) -> String {
        format!("$JS.API.STREAM.MSG.GET.{stream}")
    }

    pub fn get_direct(stream: &str) -> String {
        format!("$JS.API.DIRECT.GET.{stream}")
    }

    /// A consumer of some of a stream's subjects.
    pub fn watch(stream: &str) -> String {
        format!("$JS.API.CONSUMER.CREATE.{stream}.*.>")
    }

    /// A consumer of everything in any stream.
    pub fn read_on() -> String {
        "$JS.API.CONSUMER.CREATE.*.*".into()
    }

    /// From a consumer that is there, and its end.
    pub fn pull() -> [String; 2] {
        ["$JS.API.CONSUMER.MSG.NEXT.*.*".into(), "$JS.API.CONSUMER.DELETE.*.*".into()]
    }

    pub fn make_streams() -> [String; 3] {
        ["$JS.API.STREAM.NAMES".into(), "$JS.API.STREAM.CREATE.*".into(), "$JS.API.STREAM.UPDATE.*".into()]
    }

    /// Every way to what is in a stream.
    pub fn reads_of(stream: &str) -> [String; 4] {
        [
            get(stream),
            get_direct(stream),
            format!("$JS.API.DIRECT.GET.{stream}.>"),
            format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrys_subject_goes_both_ways_and_nothing_else_does() {
        for thread in ["dm.a.b", "dm.a.a", "group.g-1"] {
            let thread: Thread = thread.parse().unwrap();
            for control in [false, true] {
                let subject = if control { ctl(3, 7, &thread) } else { chat(3, 7, &thread) };
                let expected = EntrySubject { generation: 3, partition: 7, thread: thread.clone(), control };
                assert_eq!(parse_entry(&subject), Some(expected));
            }
        }
        for bad in [
            "",
            "chat",
            "chat.1",
            "chat.1.0",
            "chat.1.0.",
            "chat.x.0.dm.a.b",
            "chat.1.0.dm.b.a",
            "live.1.0.dm.a.b",
            "chat.1.0.dm.*.b",
        ] {
            assert_eq!(parse_entry(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_dm_goes_to_both_users_and_notes_to_oneself_once() {
        assert_eq!(live_subjects_of(&"dm.a.b".parse().unwrap()), ["live.user.a.e", "live.user.b.e"]);
        assert_eq!(live_subjects_of(&"dm.a.a".parse().unwrap()), ["live.user.a.e"]);
        assert_eq!(live_subjects_of(&"group.g".parse().unwrap()), ["live.group.g.e"]);
    }

    #[test]
    fn bucket_keys_go_both_ways() {
        assert_eq!(parse_bucket_key("users-1", &bucket_key("users-1", "u.threads")), Some("u.threads"));
        assert_eq!(parse_bucket_key("users-1", &bucket_key("users-11", "u.threads")), None);
    }
}
