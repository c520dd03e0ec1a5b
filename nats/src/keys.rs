//! Every key beside the log: in which bucket it stands, how it is spelled, what it holds, who may write it.
//! `permissions` is made of this table, and [`KvBuckets`] gives each key with its type.

pub mod values;

use std::fmt::Display;

use natterjack_protocol::{
    GroupId, Token, UserId,
    internal::{
        cursors::UserCursors,
        devices::UserDevices,
        kv::{EdgeInfo, PublicKey, RevokedLogin},
        presence::UserSettings,
        thread_settings::UserDrafts,
    },
    log::fold::{GroupState, UserThreads},
};

use crate::{
    kv::{Kv, KvError},
    kv_tree::KvTree,
    layout::Layout,
    nats_role::NatsRole::{self, Channel, Edge, Persister, Presence, Provision},
    subjects,
    typed_key::{KvValue, TypedKey, TypedKeys},
    wire::client::Nats,
};
use values::{Beginning, ClockMark, LastBackup, LeaseHolder, LogReaderList, Position};

/// A bucket, or the shards of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bucket {
    Control,
    Roles,
    Leases,
    Groups,
    Users,
    Sessions,
}

impl Bucket {
    /// `shard` matters to those that have shards.
    fn name(self, shard: u32) -> String {
        match self {
            Self::Control => subjects::CONTROL.into(),
            Self::Roles => subjects::ROLES.into(),
            Self::Leases => subjects::LEASES.into(),
            Self::Groups => subjects::groups_bucket(shard),
            Self::Users => subjects::users_bucket(shard),
            Self::Sessions => subjects::sessions_bucket(shard),
        }
    }

    fn shards(self, kv_shards: u32) -> u32 {
        if matches!(self, Self::Groups | Self::Users | Self::Sessions) { kv_shards } else { 1 }
    }
}

/// Keys of one kind.
#[derive(Debug)]
struct KeyFamily {
    bucket: Bucket,
    /// `*` is a token or a number. `ROLE` is one as well: the role that writes the key, and that alone.
    pattern: &'static str,
    writers: &'static [NatsRole],
}

/// In a pattern, the name of whoever writes the key.
const ROLE: &str = "<role>";

impl KeyFamily {
    const fn new(bucket: Bucket, pattern: &'static str, writers: &'static [NatsRole]) -> Self {
        Self { bucket, pattern, writers }
    }

    /// The pattern with `parts` in the place of its first wildcards. Typed input only: none of them can hold a dot or a
    /// wildcard.
    fn fill(&self, parts: &[&dyn Display]) -> String {
        let mut parts = parts.iter();
        let token = |t: &str| match t {
            "*" | ROLE => parts.next().map_or_else(|| "*".to_owned(), ToString::to_string),
            fixed => fixed.to_owned(),
        };
        self.pattern.split('.').map(token).collect::<Vec<_>>().join(".")
    }
}

/// Whoever may begin a new generation of the log.
const RENEW: &[NatsRole] = &[Channel, Persister, Provision];
/// Whoever folds control entries.
const FOLD: &[NatsRole] = &[Channel, Persister];

/// Of the installation.
const LAYOUT: KeyFamily = KeyFamily::new(Bucket::Control, "generation", RENEW);
const LOG_READERS: KeyFamily = KeyFamily::new(Bucket::Control, "log_readers", RENEW);
const LAST_BACKUP: KeyFamily = KeyFamily::new(Bucket::Control, "backup", &[Persister]);
/// By the key's id.
const SIGNING_KEYS: KeyFamily = KeyFamily::new(Bucket::Control, "keys.*", &[Persister]);
/// By the family of the login's tokens.
const REVOKED: KeyFamily = KeyFamily::new(Bucket::Control, "revoked.*", &[Persister]);
/// By generation.
const BEGINNING: KeyFamily = KeyFamily::new(Bucket::Control, "nothing_before.*", &[Persister]);
/// By generation and partition.
const CLOCK_MARKS: KeyFamily = KeyFamily::new(Bucket::Control, "clock.*.*", RENEW);
const LOST_ENDS: KeyFamily = KeyFamily::new(Bucket::Control, "lost_end.*.*", RENEW);
/// By role, generation and partition.
const POSITIONS: KeyFamily = KeyFamily::new(Bucket::Control, "positions.<role>.*.*", &[Channel, Persister]);
const ROLE_LEASES: KeyFamily = KeyFamily::new(Bucket::Roles, "<role>.*.*", &[Channel, Persister]);
/// By role and shard of the buckets, whose number no generation changes.
const SHARD_LEASES: KeyFamily = KeyFamily::new(Bucket::Roles, "<role>.*", &[Persister, Presence]);
/// By the edge's id.
const EDGES: KeyFamily = KeyFamily::new(Bucket::Leases, "edge.*", &[Edge]);
/// By the group's id.
const GROUPS: KeyFamily = KeyFamily::new(Bucket::Groups, "*", FOLD);
/// By the user's id and the place in the tree.
const THREADS: KeyFamily = KeyFamily::new(Bucket::Users, "*.threads.*", FOLD);
/// Likewise. Made by the persister with the account, restored by it when it was lost, and taken away when the account
/// is deleted.
const CURSORS: KeyFamily = KeyFamily::new(Bucket::Users, "*.cursors.*", &[Edge, Persister]);
/// The persister takes away those of an account that is deleted.
const DRAFTS: KeyFamily = KeyFamily::new(Bucket::Users, "*.drafts", &[Edge, Persister]);
/// The persister takes away those of an account that is deleted.
const SETTINGS: KeyFamily = KeyFamily::new(Bucket::Users, "*.settings", &[Edge, Persister]);
/// By the user's id. The persister takes out the devices whose logins are ended, presence ends sessions of edges that
/// are gone.
const DEVICES: KeyFamily = KeyFamily::new(Bucket::Sessions, "*", &[Edge, Persister, Presence]);

const FAMILIES: [&KeyFamily; 18] = [
    &LAYOUT,
    &LOG_READERS,
    &LAST_BACKUP,
    &SIGNING_KEYS,
    &REVOKED,
    &BEGINNING,
    &CLOCK_MARKS,
    &LOST_ENDS,
    &POSITIONS,
    &ROLE_LEASES,
    &SHARD_LEASES,
    &EDGES,
    &GROUPS,
    &THREADS,
    &CURSORS,
    &DRAFTS,
    &SETTINGS,
    &DEVICES,
];

/// The subjects on which `role` may write keys, in an installation with so many shards.
pub(crate) fn written_by(role: NatsRole, kv_shards: u32) -> Vec<String> {
    let mut subjects = Vec::new();
    for family in FAMILIES.iter().filter(|f| f.writers.contains(&role)) {
        let pattern = family.pattern.replace(ROLE, role.name());
        let shards = 0..family.bucket.shards(kv_shards);
        subjects.extend(shards.map(|shard| subjects::bucket_key(&family.bucket.name(shard), &pattern)));
    }
    subjects
}

/// The layout: the one key that is read before anything else is known.
pub(crate) fn layout(nats: &Nats) -> TypedKey<Layout> {
    one(nats, &LAYOUT, 0, &[])
}

pub(crate) fn log_readers(nats: &Nats) -> TypedKey<LogReaderList> {
    one(nats, &LOG_READERS, 0, &[])
}

fn one<T: KvValue>(nats: &Nats, family: &KeyFamily, shard: u32, parts: &[&dyn Display]) -> TypedKey<T> {
    TypedKey::new(Kv::new(nats, family.bucket.name(shard)), family.fill(parts))
}

/// The keys of an installation, by what is in them.
#[derive(Clone)]
pub struct KvBuckets {
    nats: Nats,
    layout: Layout,
}

impl KvBuckets {
    pub fn new(nats: &Nats, layout: Layout) -> Self {
        Self { nats: nats.clone(), layout }
    }

    /// As bytes, for backups.
    pub fn control(&self) -> Kv {
        Kv::new(&self.nats, subjects::CONTROL.into())
    }

    /// The state of a group: the fold of its control entries.
    pub fn group(&self, gid: &GroupId) -> TypedKey<GroupState> {
        one(&self.nats, &GROUPS, self.layout.shard(gid.as_str()), &[gid])
    }

    /// No value: the user does not exist, or the key was lost; never "no threads".
    pub fn threads(&self, uid: &UserId) -> KvTree<UserThreads> {
        self.tree_of(&THREADS, uid)
    }

    /// How far a user has read. No value: lost, or the user does not exist; never "nothing read".
    pub fn cursors(&self, uid: &UserId) -> KvTree<UserCursors> {
        self.tree_of(&CURSORS, uid)
    }

    /// What a user has begun to write.
    pub fn drafts(&self, uid: &UserId) -> TypedKey<UserDrafts> {
        one(&self.nats, &DRAFTS, self.layout.shard(uid.as_str()), &[uid])
    }

    /// Of all users of a shard, by `<uid>.cursors.<place>`.
    pub fn cursors_of_shard(&self, shard: u32) -> TypedKeys<UserCursors> {
        self.all_of(&CURSORS, shard)
    }

    /// What a user chose.
    pub fn settings(&self, uid: &UserId) -> TypedKey<UserSettings> {
        one(&self.nats, &SETTINGS, self.layout.shard(uid.as_str()), &[uid])
    }

    /// Of all users of a shard, by `<uid>.settings`.
    pub fn settings_of_shard(&self, shard: u32) -> TypedKeys<UserSettings> {
        self.all_of(&SETTINGS, shard)
    }

    /// A user's devices, and where their sessions are.
    pub fn devices(&self, uid: &UserId) -> TypedKey<UserDevices> {
        one(&self.nats, &DEVICES, self.layout.shard(uid.as_str()), &[uid])
    }

    /// Of each shard, when the bucket was made that has the devices of its users, milliseconds since 1970.
    pub async fn sessions_made_ms(&self) -> Result<Vec<u64>, KvError> {
        let mut made = Vec::new();
        for shard in 0..self.layout.kv_shards {
            made.push(Kv::new(&self.nats, Bucket::Sessions.name(shard)).made_ms().await?);
        }
        Ok(made)
    }

    /// Of all users of a shard, by the user's id.
    pub fn devices_of_shard(&self, shard: u32) -> TypedKeys<UserDevices> {
        self.all_of(&DEVICES, shard)
    }

    /// The public keys that sign access tokens, by their ids.
    pub fn signing_keys(&self) -> TypedKeys<PublicKey> {
        self.all(&SIGNING_KEYS)
    }

    pub fn signing_key(&self, kid: &Token) -> TypedKey<PublicKey> {
        self.of(&SIGNING_KEYS, &[kid])
    }

    /// Logins that are over, by the family of their tokens.
    pub fn revoked_logins(&self) -> TypedKeys<RevokedLogin> {
        self.all(&REVOKED)
    }

    pub fn revoked_login(&self, family: &Token) -> TypedKey<RevokedLogin> {
        self.of(&REVOKED, &[family])
    }

    /// The edges that live, by their ids.
    pub fn edges(&self) -> TypedKeys<EdgeInfo> {
        self.all(&EDGES)
    }

    pub fn edge(&self, id: &Token) -> TypedKey<EdgeInfo> {
        self.of(&EDGES, &[id])
    }

    pub fn last_backup(&self) -> TypedKey<LastBackup> {
        self.of(&LAST_BACKUP, &[])
    }

    /// Before the streams of this generation nothing was ever stored.
    pub fn beginning(&self) -> TypedKey<Beginning> {
        self.of(&BEGINNING, &[&self.layout.generation])
    }

    /// Who reads a partition for `role`.
    pub fn role_lease(&self, role: &str, p: u32) -> TypedKey<LeaseHolder> {
        self.of(&ROLE_LEASES, &[&role, &self.layout.generation, &p])
    }

    /// Who speaks of a shard for `role`.
    pub(crate) fn shard_lease(&self, role: &str, shard: u32) -> TypedKey<LeaseHolder> {
        self.of(&SHARD_LEASES, &[&role, &shard])
    }

    /// How far `role` has got in a partition.
    pub fn position(&self, role: &str, p: u32) -> TypedKey<Position> {
        self.of(&POSITIONS, &[&role, &self.layout.generation, &p])
    }

    pub(crate) fn clock_mark(&self, p: u32) -> TypedKey<ClockMark> {
        self.of(&CLOCK_MARKS, &[&self.layout.generation, &p])
    }

    /// Up to where a partition was known that may have lost its end.
    pub(crate) fn lost_end(&self, p: u32) -> TypedKey<Position> {
        self.of(&LOST_ENDS, &[&self.layout.generation, &p])
    }

    fn of<T: KvValue>(&self, family: &KeyFamily, parts: &[&dyn Display]) -> TypedKey<T> {
        one(&self.nats, family, 0, parts)
    }

    fn tree_of<T>(&self, family: &KeyFamily, uid: &UserId) -> KvTree<T> {
        let bucket = family.bucket.name(self.layout.shard(uid.as_str()));
        KvTree::new(Kv::new(&self.nats, bucket), family.fill(&[uid]).trim_end_matches(".*").to_owned())
    }

    fn all<T: KvValue>(&self, family: &KeyFamily) -> TypedKeys<T> {
        self.all_of(family, 0)
    }

    fn all_of<T: KvValue>(&self, family: &KeyFamily, shard: u32) -> TypedKeys<T> {
        TypedKeys::new(Kv::new(&self.nats, family.bucket.name(shard)), family.fill(&[]))
    }
}

#[cfg(test)]
mod tests;
