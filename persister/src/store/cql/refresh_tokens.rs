//! The tables `refresh_tokens` (by hash; used ones are kept until they expire, so that a reuse is recognised) and `refresh_families`.
//!
//! A token is used by one conditional write. The server forgets what has expired by itself, a day late: until then it is refused by
//! its time.

use std::time::{SystemTime, UNIX_EPOCH};

use natterjack_protocol::Token;
use scylla::statement::prepared::PreparedStatement;

use super::{int, session::Requests, token, uint};
use crate::{
    store::{
        StoreError,
        accounts::{Family, Rotated},
    },
    tokens::RefreshHash,
};

pub(super) const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS refresh_tokens (hash blob PRIMARY KEY, family text, expires bigint, used boolean)";

pub(super) const FAMILIES_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS refresh_families (
    family text PRIMARY KEY, user text, device text, expires bigint, revoked boolean)";

/// A day: longer than any clock is wrong.
const LATE: u64 = 24 * 3_600;
/// The most a server takes is twenty years.
const LONGEST: u64 = 10 * 365 * 24 * 3_600;

pub(super) struct RefreshTokens {
    put: PreparedStatement,
    withdraw: PreparedStatement,
    token: PreparedStatement,
    use_up: PreparedStatement,
    put_family: PreparedStatement,
    family: PreparedStatement,
    revoke: PreparedStatement,
}

struct Stored {
    family: Family,
    revoked: bool,
    used: bool,
    expires: u64,
    family_expires: u64,
}

impl RefreshTokens {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, StoreError> {
        Ok(Self {
            put: r.prepare("INSERT INTO refresh_tokens (hash, family, expires) VALUES (?, ?, ?) USING TIMESTAMP 1 AND TTL ?").await?,
            // Nobody was given it, and no other has its hash.
            withdraw: r.prepare("DELETE FROM refresh_tokens USING TIMESTAMP 2 WHERE hash = ?").await?,
            token: r.prepare("SELECT family, expires, used FROM refresh_tokens WHERE hash = ?").await?,
            use_up: r
                .prepare_condition("UPDATE refresh_tokens USING TTL ? SET used = true WHERE hash = ? IF family = ? AND used = null")
                .await?,
            put_family: r
                .prepare("INSERT INTO refresh_families (family, user, device, expires) VALUES (?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?")
                .await?,
            family: r.prepare("SELECT user, device, expires, revoked FROM refresh_families WHERE family = ?").await?,
            revoke: r.prepare("UPDATE refresh_families USING TTL ? SET revoked = true WHERE family = ?").await?,
        })
    }

    pub(super) async fn open(&self, r: &Requests, family: &Family, first: RefreshHash, expires: u64) -> Result<(), StoreError> {
        self.keep_family(r, family, expires).await?;
        self.put(r, &family.id, first, expires).await
    }

    /// `name`: of the user, by whom the token is.
    pub(super) async fn rotate(
        &self,
        r: &Requests,
        old: RefreshHash,
        new: RefreshHash,
        now: u64,
        expires: u64,
        name: impl AsyncFnOnce(&Family) -> Result<Option<String>, StoreError>,
    ) -> Result<Rotated, StoreError> {
        let Some(token) = self.stored(r, old).await? else { return Ok(Rotated::Unknown) };
        if token.revoked {
            return Ok(Rotated::Revoked);
        }
        // Before the expiry: a used token that has expired since still betrays who stole it.
        if token.used {
            self.revoke_family(r, &token).await?;
            return Ok(Rotated::Reused(token.family));
        }
        if token.expires <= now {
            return Ok(Rotated::Expired);
        }
        let Some(name) = name(&token.family).await? else { return Ok(Rotated::Unknown) };
        // All that can fail comes before the old one is used up; of a new one that nobody gets nothing comes.
        self.keep_family(r, &token.family, expires.max(token.family_expires)).await?;
        self.put(r, &token.family.id, new, expires).await?;
        let values = (ttl(token.expires), &old.0[..], token.family.id.as_str());
        if r.decide(&self.use_up, values).await? {
            return Ok(Rotated::Done { family: token.family, name });
        }
        r.write(&self.withdraw, (&new.0[..],)).await?;
        self.revoke_family(r, &token).await?;
        Ok(Rotated::Reused(token.family))
    }

    pub(super) async fn revoke(&self, r: &Requests, hash: RefreshHash) -> Result<Option<Family>, StoreError> {
        let Some(token) = self.stored(r, hash).await? else { return Ok(None) };
        self.revoke_family(r, &token).await?;
        Ok(Some(token.family))
    }

    async fn put(&self, r: &Requests, family: &Token, hash: RefreshHash, expires: u64) -> Result<(), StoreError> {
        r.write(&self.put, (&hash.0[..], family.as_str(), int(expires), ttl(expires))).await
    }

    /// It lives as long as the newest of its tokens.
    async fn keep_family(&self, r: &Requests, family: &Family, expires: u64) -> Result<(), StoreError> {
        let Family { id, user, device } = family;
        r.write(&self.put_family, (id.as_str(), user.as_str(), device.as_str(), int(expires), int(expires), ttl(expires))).await
    }

    async fn revoke_family(&self, r: &Requests, token: &Stored) -> Result<(), StoreError> {
        r.write(&self.revoke, (ttl(token.family_expires.max(token.expires)), token.family.id.as_str())).await
    }

    async fn stored(&self, r: &Requests, hash: RefreshHash) -> Result<Option<Stored>, StoreError> {
        let row: Option<(Option<String>, Option<i64>, Option<bool>)> = r.read_one(&self.token, (&hash.0[..],)).await?;
        let Some((Some(id), Some(expires), used)) = row else { return Ok(None) };
        let row: Option<(Option<String>, Option<String>, Option<i64>, Option<bool>)> = r.read_one(&self.family, (&id,)).await?;
        let Some((Some(user), Some(device), Some(family_expires), revoked)) = row else { return Ok(None) };
        let family = Family {
            id: token("refresh_tokens.family", &id)?,
            user: token("refresh_families.user", &user)?,
            device: token("refresh_families.device", &device)?,
        };
        let (revoked, used) = (revoked.unwrap_or(false), used.unwrap_or(false));
        Ok(Some(Stored { family, revoked, used, expires: uint(expires), family_expires: uint(family_expires) }))
    }
}

/// Seconds until the server may forget it.
fn ttl(expires: u64) -> i32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let seconds = (expires / 1_000).saturating_sub(now).saturating_add(LATE).min(LONGEST);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}
