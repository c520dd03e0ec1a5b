//! Which roles read the log and keep a position in it: a generation is not given up before each of them has read it to
//! its end.
//!
//! `channel` and the persister always count. Any other role writes its name down when it starts, so a switch also waits
//! for readers that the binary which makes it does not know. One that was stopped for good is forgotten by an operator,
//! or by time: entries that have expired (`times.log_max_age_hours`) are waited for by nobody.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    kv::{Kv, KvError},
    subjects,
    wire::client::Nats,
};

pub const CHANNEL: &str = "channel";
/// The one that archives.
pub const PERSISTER: &str = "persister";
const ALWAYS: [&str; 2] = [CHANNEL, PERSISTER];

#[derive(Default, Serialize, Deserialize)]
struct Value {
    v: u8,
    readers: BTreeSet<String>,
}

/// The list, in the control bucket.
pub struct LogReaders(Kv);

impl LogReaders {
    pub fn new(nats: &Nats) -> Self {
        Self(Kv::new(nats, subjects::CONTROL.into()))
    }

    /// By the leader. A list that cannot be read is an error: nobody may conclude that there are no others.
    pub async fn all(&self) -> Result<BTreeSet<String>, KvError> {
        let noted = match self.0.get(subjects::LOG_READERS).await? {
            Some((value, _)) => parse(&value)?,
            None => BTreeSet::new(),
        };
        Ok(noted.into_iter().chain(ALWAYS.map(str::to_owned)).collect())
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
        let mut unreadable = None;
        let merge = |old: Option<&[u8]>| match old.map(parse).transpose() {
            Ok(readers) => {
                let mut readers = readers.unwrap_or_default();
                change(&mut readers).then(|| serde_json::to_vec(&Value { v: 1, readers }).expect("plain values").into())
            }
            Err(e) => {
                unreadable = Some(e);
                None
            }
        };
        self.0.update(subjects::LOG_READERS, merge).await?;
        unreadable.map_or(Ok(()), Err)
    }
}

fn parse(value: &[u8]) -> Result<BTreeSet<String>, KvError> {
    let reason = |e| format!("{} cannot be read: {e}; delete the key, and start every role that reads the log anew", subjects::LOG_READERS);
    let value: Value =
        serde_json::from_slice(value).map_err(|e| KvError::Rejected { bucket: subjects::CONTROL.into(), reason: reason(e) })?;
    Ok(value.readers)
}

/// What to do about a reader for which a switch waits.
pub(crate) fn advice(role: &str) -> String {
    if ALWAYS.contains(&role) {
        return "does it run, and what does its /health say?".into();
    }
    format!("does it run? If it was stopped for good: `natterjack provision --forget-reader {role}`")
}
