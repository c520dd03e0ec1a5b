//! Tables `refresh_tokens` (by hash; used ones are kept until they expire, so that a reuse is recognised) and
//! `refresh_families`. `used`: when, milliseconds since 1970; 0: not. `next`: the token in its place. `salt`: of which
//! the token itself was made, until it is used: from then on nobody is given it again.

use natterjack_protocol::{DeviceId, Token, UserId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{int, uint, users::id};
use crate::{
    store::accounts::{Family, LOGINS, NextToken, OpenLogin, Rotated, Use},
    tokens::{RefreshHash, Salt},
};

pub(super) const SCHEMA: &str = "
CREATE TABLE refresh_families (
    family TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES users (user),
    device TEXT NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE refresh_tokens (
    hash BLOB PRIMARY KEY,
    family TEXT NOT NULL REFERENCES refresh_families (family),
    used INTEGER NOT NULL DEFAULT 0,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
";

pub(super) const NEXT_SCHEMA: &str = "
ALTER TABLE refresh_tokens ADD COLUMN next BLOB;
ALTER TABLE refresh_tokens ADD COLUMN salt BLOB;
";

pub(super) const DEVICES_SCHEMA: &str = "CREATE INDEX refresh_families_by_device ON refresh_families (user, device);";

/// When the login was made, milliseconds since 1970.
pub(super) const SINCE_SCHEMA: &str = "ALTER TABLE refresh_families ADD COLUMN since INTEGER NOT NULL DEFAULT 0;";

/// Rows that one sweep takes at most: a few milliseconds of the only writer.
const SWEEP: i64 = 2_000;

struct Stored {
    family: Family,
    name: String,
    revoked: bool,
    used: u64,
    expires: u64,
    /// Of the next one, as long as that is not used.
    next_salt: Option<Salt>,
}

pub(super) fn open(tx: &Transaction<'_>, login: &OpenLogin, first: RefreshHash, expires: u64) -> rusqlite::Result<()> {
    let Family { id, user, device } = &login.family;
    tx.prepare_cached("INSERT INTO refresh_families (family, user, device, since) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id.as_str(), user.as_str(), device.as_str(), int(login.since)])?;
    insert(tx, id, first, None, expires)
}

pub(super) fn open_logins(
    c: &Connection,
    user: &UserId,
    device: Option<&DeviceId>,
    now: u64,
) -> rusqlite::Result<Vec<OpenLogin>> {
    let mut found = c.prepare_cached(
        "SELECT f.family, f.device, f.since FROM refresh_families f
         WHERE f.user = ?1 AND (?2 IS NULL OR f.device = ?2) AND f.revoked = 0
         AND EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.family = f.family AND t.used = 0 AND t.expires > ?3)
         LIMIT ?4",
    )?;
    let values = params![user.as_str(), device.map(DeviceId::as_str), int(now), int(LOGINS as u64)];
    let login = |r: &rusqlite::Row<'_>| {
        Ok(OpenLogin {
            family: Family { id: id(r, 0)?, user: user.clone(), device: id(r, 1)? },
            since: uint(r.get(2)?),
        })
    };
    found.query_map(values, login)?.collect()
}

pub(super) fn has_device(c: &Connection, user: &UserId, device: &DeviceId) -> rusqlite::Result<bool> {
    c.prepare_cached("SELECT 1 FROM refresh_families WHERE user = ?1 AND device = ?2")?
        .exists([user.as_str(), device.as_str()])
}

pub(super) fn rotate(tx: &Transaction<'_>, old: RefreshHash, next: NextToken, when: Use) -> rusqlite::Result<Rotated> {
    let Some(token) = stored(tx, old)? else { return Ok(Rotated::Unknown) };
    if token.revoked {
        return Ok(Rotated::Revoked);
    }
    // Before the expiry: a used token that has expired since still betrays who stole it.
    if token.used > 0 {
        if let Some(salt) = token.next_salt.filter(|_| when.in_time(token.used)) {
            return Ok(Rotated::Done { family: token.family, name: token.name, salt });
        }
        revoke_family(tx, &token.family.id)?;
        return Ok(Rotated::Reused(token.family));
    }
    if when.expired(token.expires) {
        return Ok(Rotated::Expired);
    }
    tx.prepare_cached("UPDATE refresh_tokens SET used = ?2, next = ?3, salt = NULL WHERE hash = ?1")?
        .execute(params![old.0, int(when.now.max(1)), next.hash.0])?;
    insert(tx, &token.family.id, next.hash, Some(next.salt), next.expires)?;
    Ok(Rotated::Done { family: token.family, name: token.name, salt: next.salt })
}

pub(super) fn revoke(tx: &Transaction<'_>, hash: RefreshHash) -> rusqlite::Result<Option<Family>> {
    let Some(token) = stored(tx, hash)? else { return Ok(None) };
    revoke_family(tx, &token.family.id)?;
    Ok(Some(token.family))
}

pub(super) fn sweep(tx: &Transaction<'_>, now: u64) -> rusqlite::Result<usize> {
    let gone = tx.execute(
        "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens WHERE expires <= ?1 LIMIT ?2)",
        params![int(now), SWEEP],
    )?;
    if gone > 0 {
        // A revoked family stays as long as one of its tokens: until then each of them has to be refused.
        tx.execute(
            "DELETE FROM refresh_families WHERE NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.family = \
             refresh_families.family)",
            [],
        )?;
    }
    Ok(gone)
}

fn insert(
    tx: &Transaction<'_>,
    family: &Token,
    hash: RefreshHash,
    salt: Option<Salt>,
    expires: u64,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO refresh_tokens (hash, family, expires, salt) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![hash.0, family.as_str(), int(expires), salt.map(|s| s.0)])?;
    Ok(())
}

pub(super) fn revoke_family(tx: &Transaction<'_>, family: &Token) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE refresh_families SET revoked = 1 WHERE family = ?1")?.execute([family.as_str()])?;
    Ok(())
}

fn stored(tx: &Transaction<'_>, hash: RefreshHash) -> rusqlite::Result<Option<Stored>> {
    tx.prepare_cached(
        "SELECT f.family, f.user, f.device, f.revoked, t.used, t.expires, u.name, n.salt
         FROM refresh_tokens t JOIN refresh_families f ON f.family = t.family JOIN users u ON u.user = f.user
         LEFT JOIN refresh_tokens n ON n.hash = t.next WHERE t.hash = ?1",
    )?
    .query_row([hash.0], |r| {
        Ok(Stored {
            family: Family { id: id(r, 0)?, user: id(r, 1)?, device: id(r, 2)? },
            name: r.get(6)?,
            revoked: r.get(3)?,
            used: uint(r.get(4)?),
            expires: uint(r.get(5)?),
            next_salt: r.get::<_, Option<[u8; 32]>>(7)?.map(Salt),
        })
    })
    .optional()
}
