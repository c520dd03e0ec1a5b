//! Which roles read the log and keep a position in it: a generation is not given up before each of them has read it to
//! its end.
//!
//! `channel` and the persister always count. Any other role writes its name down when it starts, so a switch also waits
//! for readers that the binary which makes it does not know. One that was stopped for good is forgotten by an operator,
//! or by time: entries that have expired (`times.log_max_age_hours`) are waited for by nobody.

use std::collections::BTreeSet;

use crate::{
    keys::{self, values::LogReaderList},
    kv::KvError,
    typed_key::TypedKey,
    wire::client::Nats,
};

pub const CHANNEL: &str = "channel";
/// The one that archives.
pub const PERSISTER: &str = "persister";
const ALWAYS: [&str; 2] = [CHANNEL, PERSISTER];

/// The list, in the control bucket.
pub struct LogReaders(TypedKey<LogReaderList>);

impl LogReaders {
    pub fn new(nats: &Nats) -> Self {
        Self(keys::log_readers(nats))
    }

    /// By the leader.
    pub async fn all(&self) -> Result<BTreeSet<String>, KvError> {
        let noted = self.0.load().await.map_err(unreadable)?.unwrap_or_default();
        Ok(noted.0.into_iter().chain(ALWAYS.map(str::to_owned)).collect())
    }

    /// From here on a switch waits for it.
    pub async fn add(&self, role: &str) -> Result<(), KvError> {
        if ALWAYS.contains(&role) {
            return Ok(());
        }
        self.change(|readers| readers.insert(role.to_owned())).await
    }

    /// A switch waits for it no longer. False: it is not in the list, or always counts.
    pub async fn forget(&self, role: &str) -> Result<bool, KvError> {
        let mut there = false;
        self.change(|readers| {
            there |= readers.remove(role);
            there
        })
        .await?;
        Ok(there)
    }

    async fn change(&self, mut change: impl FnMut(&mut BTreeSet<String>) -> bool) -> Result<(), KvError> {
        let merge = |list: Option<LogReaderList>| {
            let mut list = list.unwrap_or_default();
            change(&mut list.0).then_some(list)
        };
        self.0.merge(merge).await.map_err(unreadable)
    }
}

fn unreadable(e: KvError) -> KvError {
    match e {
        KvError::Corrupt { key, reason } => {
            let reason = format!("{reason}; delete the key, and start every role that reads the log anew");
            KvError::Corrupt { key, reason }
        }
        e => e,
    }
}

/// What to do about a reader for which a switch waits.
pub(crate) fn advice(role: &str) -> String {
    if ALWAYS.contains(&role) {
        return "does it run, and what does its /health say?".into();
    }
    format!("does it run? If it was stopped for good: `natterjack provision --forget-reader {role}`")
}
