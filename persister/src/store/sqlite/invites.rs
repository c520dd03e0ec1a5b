//! Tables `invites` and `invite_uses` (one row for each account that was, or is being, made with one).

use natterjack_protocol::UserId;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{int, users::id};
use crate::{store::accounts::NewInvite, tokens::InviteHash};

pub(super) const SCHEMA: &str = "
CREATE TABLE invites (
    code BLOB PRIMARY KEY,
    uses INTEGER NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE invite_uses (
    code BLOB NOT NULL REFERENCES invites (code),
    name_key TEXT NOT NULL,
    user TEXT NOT NULL,
    PRIMARY KEY (code, name_key)
) WITHOUT ROWID;
";

pub(super) fn add(tx: &Transaction<'_>, new: &NewInvite) -> rusqlite::Result<()> {
    let values = params![new.code.0, new.uses, int(new.expires)];
    tx.execute("INSERT INTO invites (code, uses, expires) VALUES (?1, ?2, ?3)", values).map(drop)
}

pub(super) fn take(
    tx: &Transaction<'_>,
    code: InviteHash,
    name_key: &str,
    user: &UserId,
    now: u64,
) -> rusqlite::Result<Option<UserId>> {
    let taken = tx
        .prepare_cached("SELECT user FROM invite_uses WHERE code = ?1 AND name_key = ?2")?
        .query_row(params![code.0, name_key], |r| id(r, 0))
        .optional()?;
    if taken.is_some() {
        return Ok(taken);
    }
    let put = tx.execute(
        "INSERT INTO invite_uses (code, name_key, user) SELECT code, ?2, ?3 FROM invites i WHERE code = ?1 AND \
         expires > ?4 \
         AND uses > (SELECT COUNT(*) FROM invite_uses u WHERE u.code = i.code)",
        params![code.0, name_key, user.as_str(), int(now)],
    )?;
    Ok((put > 0).then(|| user.clone()))
}

pub(super) fn give_back(tx: &Transaction<'_>, code: InviteHash, name_key: &str) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM invite_uses WHERE code = ?1 AND name_key = ?2", params![code.0, name_key]).map(drop)
}
