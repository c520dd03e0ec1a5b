//! The tables `refresh_tokens` (by hash), `refresh_uses` (by the hash of a token that was used: when, and the token in
//! its place; kept until the used one expires, so that a reuse is recognised), `refresh_salts` (by hash: of which a
//! token was made), `refresh_families` (one for each login), `open_logins` (those of a user that are not over) and
//! `login_devices` (which devices somebody has logged in with; as long as the families).
//!
//! A token is used by one conditional write, the row in `refresh_uses`. All that can fail comes before it, the next
//! token and its salt included: of one that nobody gets nothing comes. Whoever finds the row there takes the next token
//! that it names. The server forgets what has expired by itself, a day late: until then it is refused by its time.

use natterjack_protocol::{DeviceId, Token, UserId};
use natterjack_runtime::clock::wall_ms;
use scylla::statement::prepared::PreparedStatement;

use super::{corrupt, int, session::Requests, token, uint};
use crate::{
    store::{
        ArchiveError,
        accounts::{Family, LOGINS, NextToken, OpenLogin, Rotated, Use},
    },
    tokens::{RefreshHash, Salt},
};

/// `used`: of builds before `refresh_uses`.
pub(super) const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS refresh_tokens (hash blob PRIMARY KEY, family text, expires bigint, used boolean)";

pub(super) const USES_SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS refresh_uses (hash blob PRIMARY KEY, next blob, at bigint)";

pub(super) const SALTS_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS refresh_salts (hash blob PRIMARY KEY, salt blob)";

pub(super) const FAMILIES_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS refresh_families (
    family text PRIMARY KEY, user text, device text, since bigint, expires bigint, revoked boolean)";

/// Which logins of a user are not over.
pub(super) const OPEN_LOGINS_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS open_logins (
    user text, device text, family text, since bigint, expires bigint, PRIMARY KEY (user, device, family))";

pub(super) const DEVICES_SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS login_devices (user text, device text, expires bigint, PRIMARY KEY ((user, device)))";

/// A day: longer than this machine's clock and the server's, by which it expires, are apart.
const LATE: u64 = 24 * 3_600;
/// A day, like the rest: none is asked for after a minute.
const SALT_SECONDS: i32 = 24 * 3_600;
/// The most a server takes is twenty years.
const LONGEST: u64 = 10 * 365 * 24 * 3_600;

pub(super) struct RefreshTokens {
    put: PreparedStatement,
    withdraw: PreparedStatement,
    token: PreparedStatement,
    put_salt: PreparedStatement,
    salt: PreparedStatement,
    use_up: PreparedStatement,
    use_of: PreparedStatement,
    put_family: PreparedStatement,
    put_device: PreparedStatement,
    device: PreparedStatement,
    family: PreparedStatement,
    put_open: PreparedStatement,
    open_logins: PreparedStatement,
    open_logins_of: PreparedStatement,
    close: PreparedStatement,
    revoke: PreparedStatement,
}

/// User, device, since when, until when, and whether it is revoked.
type FamilyRow = Option<(Option<String>, Option<String>, Option<i64>, Option<i64>, Option<bool>)>;

struct Stored {
    family: Family,
    since: u64,
    revoked: bool,
    used_before: bool,
    expires: u64,
    family_expires: u64,
}

impl RefreshTokens {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            put: r
                .prepare(
                    "INSERT INTO refresh_tokens (hash, family, expires) VALUES (?, ?, ?) USING TIMESTAMP 1 AND TTL ?",
                )
                .await?,
            // Nobody was given it, and no other has its hash.
            withdraw: r.prepare("DELETE FROM refresh_tokens USING TIMESTAMP 2 WHERE hash = ?").await?,
            token: r.prepare("SELECT family, expires, used FROM refresh_tokens WHERE hash = ?").await?,
            put_salt: r.prepare("INSERT INTO refresh_salts (hash, salt) VALUES (?, ?) USING TTL ?").await?,
            salt: r.prepare("SELECT salt FROM refresh_salts WHERE hash = ?").await?,
            use_up: r
                .prepare_condition(
                    "INSERT INTO refresh_uses (hash, next, at) VALUES (?, ?, ?) IF NOT EXISTS USING TTL ?",
                )
                .await?,
            use_of: r.prepare("SELECT next, at FROM refresh_uses WHERE hash = ?").await?,
            put_family: r
                .prepare(
                    "INSERT INTO refresh_families (family, user, device, since, expires) VALUES (?, ?, ?, ?, ?) \
                     USING TIMESTAMP ? AND TTL ?",
                )
                .await?,
            put_device: r
                .prepare(
                    "INSERT INTO login_devices (user, device, expires) VALUES (?, ?, ?) USING TIMESTAMP ? AND TTL ?",
                )
                .await?,
            device: r.prepare("SELECT expires FROM login_devices WHERE user = ? AND device = ?").await?,
            family: r
                .prepare("SELECT user, device, since, expires, revoked FROM refresh_families WHERE family = ?")
                .await?,
            put_open: r
                .prepare(
                    "INSERT INTO open_logins (user, device, family, since, expires) VALUES (?, ?, ?, ?, ?) \
                     USING TIMESTAMP ? AND TTL ?",
                )
                .await?,
            open_logins: r
                .prepare("SELECT device, family, since, expires FROM open_logins WHERE user = ? LIMIT ?")
                .await?,
            open_logins_of: r
                .prepare("SELECT device, family, since, expires FROM open_logins WHERE user = ? AND device = ? LIMIT ?")
                .await?,
            // By the server's clock in microseconds, far above the milliseconds by which the row is written: it never
            // comes back.
            close: r.prepare("DELETE FROM open_logins WHERE user = ? AND device = ? AND family = ?").await?,
            revoke: r.prepare("UPDATE refresh_families USING TTL ? SET revoked = true WHERE family = ?").await?,
        })
    }

    pub(super) async fn open(
        &self,
        r: &Requests,
        login: &OpenLogin,
        first: RefreshHash,
        expires: u64,
    ) -> Result<(), ArchiveError> {
        self.keep_family(r, login, expires).await?;
        self.put(r, &login.family.id, first, expires).await
    }

    pub(super) async fn open_logins(
        &self,
        r: &Requests,
        user: &UserId,
        device: Option<&DeviceId>,
        now: u64,
    ) -> Result<Vec<OpenLogin>, ArchiveError> {
        let (most, of) = (LOGINS as i32, user.as_str());
        let rows: Vec<(String, String, i64, i64)> = match device {
            Some(device) => r.read(&self.open_logins_of, (of, device.as_str(), most)).await?,
            None => r.read(&self.open_logins, (of, most)).await?,
        };
        let login = |(device, id, since, _): (String, String, i64, i64)| {
            let (id, device) = (token("open_logins.family", &id)?, token("open_logins.device", &device)?);
            Ok(OpenLogin { family: Family { id, user: user.clone(), device }, since: uint(since) })
        };
        rows.into_iter().filter(|row| uint(row.3) > now).map(login).collect()
    }

    pub(super) async fn end(&self, r: &Requests, family: &Family) -> Result<(), ArchiveError> {
        let row: FamilyRow = r.read_one(&self.family, (family.id.as_str(),)).await?;
        let expires = row.and_then(|(.., expires, _)| expires).map_or_else(wall_ms, uint);
        self.revoke_family(r, family, expires).await
    }

    /// `name`: of the user, by whom the token is.
    pub(super) async fn rotate(
        &self,
        r: &Requests,
        old: RefreshHash,
        next: NextToken,
        when: Use,
        name: impl AsyncFnOnce(&Family) -> Result<Option<String>, ArchiveError>,
    ) -> Result<Rotated, ArchiveError> {
        let Some(token) = self.stored(r, old).await? else { return Ok(Rotated::Unknown) };
        if token.revoked {
            return Ok(Rotated::Revoked);
        }
        // Before the expiry: a used token that has expired since still betrays who stole it.
        let used = self.use_of(r, old).await?;
        if used.is_none() && !token.used_before && when.expired(token.expires) {
            return Ok(Rotated::Expired);
        }
        let Some(name) = name(&token.family).await? else { return Ok(Rotated::Unknown) };
        let used = match used {
            None if !token.used_before => self.use_up(r, old, &token, next, when).await?,
            used => used,
        };
        let salt = match used {
            Some((hash, _)) if hash == next.hash => Some(next.salt),
            Some((hash, at)) if when.in_time(at) && self.use_of(r, hash).await?.is_none() => self.salt(r, hash).await?,
            _ => None,
        };
        if let Some(salt) = salt {
            return Ok(Rotated::Done { family: token.family, name, salt });
        }
        self.revoke_family(r, &token.family, token.family_expires.max(token.expires)).await?;
        Ok(Rotated::Reused(token.family))
    }

    /// How the token is used afterwards: as offered, or as by somebody who was faster.
    async fn use_up(
        &self,
        r: &Requests,
        old: RefreshHash,
        token: &Stored,
        next: NextToken,
        when: Use,
    ) -> Result<Option<(RefreshHash, u64)>, ArchiveError> {
        let login = OpenLogin { family: token.family.clone(), since: token.since };
        self.keep_family(r, &login, next.expires.max(token.family_expires)).await?;
        self.put(r, &token.family.id, next.hash, next.expires).await?;
        r.write(&self.put_salt, (&next.hash.0[..], &next.salt.0[..], SALT_SECONDS)).await?;
        let values = (&old.0[..], &next.hash.0[..], int(when.now), ttl(token.expires));
        if r.decide_in_a_crowd(&self.use_up, values).await? {
            return Ok(Some((next.hash, when.now)));
        }
        let used = self
            .use_of(r, old)
            .await?
            .ok_or_else(|| ArchiveError::Unavailable("the use of a token was not read".into()))?;
        if used.0 != next.hash {
            r.write(&self.withdraw, (&next.hash.0[..],)).await?;
        }
        Ok(Some(used))
    }

    /// The token in its place, and since when.
    async fn use_of(&self, r: &Requests, hash: RefreshHash) -> Result<Option<(RefreshHash, u64)>, ArchiveError> {
        let row: Option<(Vec<u8>, i64)> = r.read_one(&self.use_of, (&hash.0[..],)).await?;
        row.map(|(next, at)| Ok((RefreshHash(bits("refresh_uses.next", &next)?), uint(at)))).transpose()
    }

    async fn salt(&self, r: &Requests, hash: RefreshHash) -> Result<Option<Salt>, ArchiveError> {
        let row: Option<(Vec<u8>,)> = r.read_one(&self.salt, (&hash.0[..],)).await?;
        row.map(|(salt,)| Ok(Salt(bits("refresh_salts.salt", &salt)?))).transpose()
    }

    pub(super) async fn revoke(&self, r: &Requests, hash: RefreshHash) -> Result<Option<Family>, ArchiveError> {
        let Some(token) = self.stored(r, hash).await? else { return Ok(None) };
        self.revoke_family(r, &token.family, token.family_expires.max(token.expires)).await?;
        Ok(Some(token.family))
    }

    async fn put(&self, r: &Requests, family: &Token, hash: RefreshHash, expires: u64) -> Result<(), ArchiveError> {
        r.write(&self.put, (&hash.0[..], family.as_str(), int(expires), ttl(expires))).await
    }

    /// It lives as long as the newest of its tokens.
    async fn keep_family(&self, r: &Requests, login: &OpenLogin, expires: u64) -> Result<(), ArchiveError> {
        let Family { id, user, device } = &login.family;
        let (id, user, device) = (id.as_str(), user.as_str(), device.as_str());
        let (since, until, ttl) = (int(login.since), int(expires), ttl(expires));
        r.write(&self.put_device, (user, device, until, until, ttl)).await?;
        r.write(&self.put_open, (user, device, id, since, until, until, ttl)).await?;
        r.write(&self.put_family, (id, user, device, since, until, until, ttl)).await
    }

    pub(super) async fn has_device(
        &self,
        r: &Requests,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<bool, ArchiveError> {
        let row: Option<(i64,)> = r.read_one(&self.device, (user.as_str(), device.as_str())).await?;
        Ok(row.is_some())
    }

    /// If we die between the two, it is listed and ended once more.
    async fn revoke_family(&self, r: &Requests, family: &Family, expires: u64) -> Result<(), ArchiveError> {
        r.write(&self.revoke, (ttl(expires), family.id.as_str())).await?;
        r.write(&self.close, (family.user.as_str(), family.device.as_str(), family.id.as_str())).await
    }

    async fn stored(&self, r: &Requests, hash: RefreshHash) -> Result<Option<Stored>, ArchiveError> {
        let row: Option<(Option<String>, Option<i64>, Option<bool>)> = r.read_one(&self.token, (&hash.0[..],)).await?;
        let Some((Some(id), Some(expires), used)) = row else { return Ok(None) };
        let row: FamilyRow = r.read_one(&self.family, (&id,)).await?;
        let Some((Some(user), Some(device), since, Some(family_expires), revoked)) = row else { return Ok(None) };
        let family = Family {
            id: token("refresh_tokens.family", &id)?,
            user: token("refresh_families.user", &user)?,
            device: token("refresh_families.device", &device)?,
        };
        let (revoked, used_before) = (revoked.unwrap_or(false), used.unwrap_or(false));
        let since = since.map_or(0, uint);
        Ok(Some(Stored {
            family,
            since,
            revoked,
            used_before,
            expires: uint(expires),
            family_expires: uint(family_expires),
        }))
    }
}

fn bits(column: &str, bytes: &[u8]) -> Result<[u8; 32], ArchiveError> {
    bytes.try_into().map_err(|_| corrupt(column, format!("{} bytes, not 32", bytes.len())))
}

/// Seconds until the server may forget it.
fn ttl(expires: u64) -> i32 {
    let seconds = (expires / 1_000).saturating_sub(wall_ms() / 1_000).saturating_add(LATE).min(LONGEST);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}
