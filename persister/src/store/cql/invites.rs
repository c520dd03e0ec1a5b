//! The table `invites`: how many accounts an invite makes, and under the key of each account's name the id of the
//! account. Every change is a conditional write of the row, which counts its versions.

use std::collections::HashMap;

use natterjack_protocol::UserId;
use scylla::statement::prepared::PreparedStatement;

use super::{int, session::Requests, token, uint};
use crate::{
    store::{ArchiveError, accounts::NewInvite},
    tokens::InviteHash,
};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS invites (
    code blob PRIMARY KEY, uses int, expires bigint, users map<text, text>, version bigint)";

/// Some people at once make all but one of them try again.
const ATTEMPTS: usize = 50;

/// How many uses, until when, who, and which version.
type Row = (i32, i64, Option<HashMap<String, String>>, i64);

pub(super) struct Invites {
    add: PreparedStatement,
    row: PreparedStatement,
    change: PreparedStatement,
}

impl Invites {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            add: r.prepare("INSERT INTO invites (code, uses, expires, version) VALUES (?, ?, ?, 0)").await?,
            row: r.prepare("SELECT uses, expires, users, version FROM invites WHERE code = ?").await?,
            change: r
                .prepare_condition("UPDATE invites SET users = ?, version = ? WHERE code = ? IF version = ?")
                .await?,
        })
    }

    pub(super) async fn add(&self, r: &Requests, new: &NewInvite) -> Result<(), ArchiveError> {
        let uses = i32::try_from(new.uses).unwrap_or(i32::MAX);
        r.write(&self.add, (&new.code.0[..], uses, int(new.expires))).await
    }

    pub(super) async fn take(
        &self,
        r: &Requests,
        code: InviteHash,
        name_key: &str,
        user: &UserId,
        now: u64,
    ) -> Result<Option<UserId>, ArchiveError> {
        for _ in 0..ATTEMPTS {
            let row: Option<Row> = r.read_one(&self.row, (&code.0[..],)).await?;
            let Some((uses, expires, users, version)) = row else { return Ok(None) };
            let mut users = users.unwrap_or_default();
            if let Some(taken) = users.get(name_key) {
                return token("invites.users", taken).map(Some);
            }
            if uint(expires) <= now || users.len() >= usize::try_from(uses).unwrap_or(0) {
                return Ok(None);
            }
            users.insert(name_key.to_owned(), user.to_string());
            if self.change(r, code, &users, version).await? {
                return Ok(Some(user.clone()));
            }
        }
        Err(busy())
    }

    pub(super) async fn give_back(&self, r: &Requests, code: InviteHash, name_key: &str) -> Result<(), ArchiveError> {
        for _ in 0..ATTEMPTS {
            let row: Option<Row> = r.read_one(&self.row, (&code.0[..],)).await?;
            let Some((_, _, Some(mut users), version)) = row else { return Ok(()) };
            if users.remove(name_key).is_none() || self.change(r, code, &users, version).await? {
                return Ok(());
            }
        }
        Err(busy())
    }

    async fn change(
        &self,
        r: &Requests,
        code: InviteHash,
        users: &HashMap<String, String>,
        version: i64,
    ) -> Result<bool, ArchiveError> {
        r.decide(&self.change, (users, version + 1, &code.0[..], version)).await
    }
}

fn busy() -> ArchiveError {
    ArchiveError::Unavailable("an invite is used all the time".into())
}
