//! The tables `users` (by id), `logins` (by issuer and subject) and `deletions` (accounts on which something hangs
//! yet); with `names` they say who is who.
//!
//! An account with a password is decided by one conditional write, the row of its name, which has all that a login
//! needs. The row by id is written before it: one without a name is an account nobody got, under an id nobody knows.
//!
//! An account of an external login is decided by the row in `logins`, which gives it its id; then it gets a name, then
//! the row by id, which says that it is whole. Whoever finds it half made goes on under the same id. Its name has no
//! secret, so no password fits it.
//!
//! Another name, or a deletion, is decided by the row by id, on the condition that the name is still the one that was
//! read. Both may be cut off anywhere, and are done by repeating them.

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_protocol::{UserId, client::http::Profile};
use scylla::statement::prepared::PreparedStatement;

use super::{int, names::NameTable, session::Requests, token, uint};
use crate::store::{
    ArchiveError,
    accounts::{
        Account, Added, DELETIONS, Deletion, Joined, Login, NameHold, NewExternal, NewUser, PASSWORD, Prefix, Renamed,
        name_key, no_name,
    },
};

/// `former`: the key of the name before, until that is given up. `issuer`, `subject`: of an external login.
pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS users (user text PRIMARY KEY, name text, created bigint, \
                                 disabled boolean, deleted boolean, former text, issuer text, subject text)";

pub(super) const LOGINS_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS logins (
    issuer text, subject text, user text, PRIMARY KEY ((issuer, subject)))";

/// In one partition: there are hardly ever any.
pub(super) const DELETIONS_SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS deletions (part text, user text, since bigint, PRIMARY KEY (part, user))";

/// Users that are asked about at once.
const AT_ONCE: usize = 32;

pub(super) struct Users {
    names: NameTable,
    add: PreparedStatement,
    add_external: PreparedStatement,
    forget: PreparedStatement,
    claim_login: PreparedStatement,
    external: PreparedStatement,
    ties: PreparedStatement,
    forget_login: PreparedStatement,
    by_id: PreparedStatement,
    account: PreparedStatement,
    first_accounts: PreparedStatement,
    next_accounts: PreparedStatement,
    disable: PreparedStatement,
    rename: PreparedStatement,
    given_up: PreparedStatement,
    delete: PreparedStatement,
    begin_deletion: PreparedStatement,
    deletions: PreparedStatement,
    end_deletion: PreparedStatement,
}

impl Users {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        const ACCOUNT: &str = "SELECT user, name, deleted, created, disabled FROM users";
        Ok(Self {
            names: NameTable::prepare(r).await?,
            add: r.prepare("INSERT INTO users (user, name, created) VALUES (?, ?, ?) USING TIMESTAMP 1").await?,
            add_external: r
                .prepare(
                    "INSERT INTO users (user, name, created, issuer, subject) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP 1",
                )
                .await?,
            // An id is made once: what is forgotten never comes back.
            forget: r.prepare("DELETE FROM users USING TIMESTAMP 2 WHERE user = ?").await?,
            claim_login: r
                .prepare_condition("INSERT INTO logins (issuer, subject, user) VALUES (?, ?, ?) IF NOT EXISTS")
                .await?,
            external: r.prepare("SELECT user FROM logins WHERE issuer = ? AND subject = ?").await?,
            ties: r.prepare("SELECT former, issuer, subject FROM users WHERE user = ?").await?,
            forget_login: r
                .prepare_condition("DELETE FROM logins WHERE issuer = ? AND subject = ? IF user = ?")
                .await?,
            by_id: r.prepare("SELECT user, name, deleted FROM users WHERE user = ?").await?,
            account: r.prepare(&format!("{ACCOUNT} WHERE user = ?")).await?,
            first_accounts: r.prepare(&format!("{ACCOUNT} LIMIT ?")).await?,
            next_accounts: r.prepare(&format!("{ACCOUNT} WHERE token(user) > token(?) LIMIT ?")).await?,
            disable: r.prepare("UPDATE users SET disabled = ? WHERE user = ?").await?,
            rename: r.prepare_condition("UPDATE users SET name = ?, former = ? WHERE user = ? IF name = ?").await?,
            given_up: r.prepare_condition("UPDATE users SET former = null WHERE user = ? IF former = ?").await?,
            delete: r
                .prepare_condition(
                    "UPDATE users SET name = '', deleted = true, issuer = null, subject = null WHERE user = ? IF name \
                     = ?",
                )
                .await?,
            begin_deletion: r.prepare("INSERT INTO deletions (part, user, since) VALUES ('all', ?, ?)").await?,
            deletions: r.prepare("SELECT user, since FROM deletions WHERE part = 'all' LIMIT ?").await?,
            end_deletion: r.prepare("DELETE FROM deletions WHERE part = 'all' AND user = ?").await?,
        })
    }

    pub(super) async fn add(&self, r: &Requests, new: &NewUser) -> Result<Added, ArchiveError> {
        // An invite gives the id that it gave before.
        if self.profile(r, &new.user).await?.is_some_and(|p| p.deleted) {
            return Ok(Added::NameTaken);
        }
        r.write(&self.add, (new.user.as_str(), &new.name, int(new.created))).await?;
        let key = name_key(&new.name);
        if !self.names.claim(r, &new.name, &new.user, &new.secret).await? {
            match self.names.named(r, &key).await? {
                Some(login) if login.user == new.user && login.secret == new.secret => {}
                // The same registration came twice, with the same invite, and this one was later.
                Some(login) if login.user == new.user => return Ok(Added::NameTaken),
                _ => {
                    r.write(&self.forget, (new.user.as_str(),)).await?;
                    return Ok(Added::NameTaken);
                }
            }
        }
        if self.names.keeps(r, &key, &new.user, new.created).await? {
            return Ok(Added::Done);
        }
        r.write(&self.forget, (new.user.as_str(),)).await?;
        Ok(Added::NameTaken)
    }

    pub(super) async fn join(&self, r: &Requests, new: &NewExternal) -> Result<Joined, ArchiveError> {
        let values = (new.issuer.as_str(), new.subject.as_str(), new.user.as_str());
        let first = r.decide_in_a_crowd(&self.claim_login, values).await?;
        let user = if first {
            new.user.clone()
        } else {
            let found = self.external(r, &new.issuer, &new.subject).await?;
            found.ok_or_else(|| ArchiveError::Unavailable("a login that is there was not read".into()))?
        };
        match self.profile(r, &user).await? {
            Some(p) if p.deleted => return Err(changing()),
            Some(profile) => return Ok(Joined { profile, made: false }),
            None => {}
        }
        for name in new.names_of(&user) {
            // Also true if another call for the same login was faster.
            if self.names.take(r, name, &user, "", new.created).await? {
                let values = (user.as_str(), name, int(new.created), new.issuer.as_str(), new.subject.as_str());
                r.write(&self.add_external, values).await?;
                return Ok(Joined { profile: Profile::named(user.clone(), name), made: true });
            }
        }
        Err(no_name())
    }

    pub(super) async fn rename(
        &self,
        r: &Requests,
        user: &UserId,
        name: &str,
        hold: NameHold,
    ) -> Result<Renamed, ArchiveError> {
        let Some(old) = self.profile(r, user).await?.filter(|p| !p.deleted) else { return Ok(Renamed::NoSuchUser) };
        let (key, old_key) = (name_key(name), name_key(&old.name));
        self.finish_rename(r, user, hold).await?;
        if key == old_key {
            self.names.respell(r, name, user).await?;
            return self.called(r, user, name, (&old.name, None)).await.map(|()| Renamed::Done);
        }
        let login = self.names.named(r, &old_key).await?.filter(|l| l.user == *user);
        let secret = login.map(|l| l.secret).unwrap_or_default();
        if !self.names.take(r, name, user, &secret, hold.now).await? {
            return Ok(Renamed::NameTaken);
        }
        self.called(r, user, name, (&old.name, Some(&old_key))).await?;
        // Whoever set another password meanwhile wrote it under the old name.
        if let Some(newer) = self.give_up(r, user, &old_key, hold).await?.filter(|s| *s != secret) {
            self.names.set_secret(r, &key, user, &newer).await?;
        }
        Ok(Renamed::Done)
    }

    /// Gives up the name before this one, where that was cut off. Answers with issuer and subject of an external login.
    async fn finish_rename(
        &self,
        r: &Requests,
        user: &UserId,
        hold: NameHold,
    ) -> Result<Option<(String, String)>, ArchiveError> {
        let ties: Option<(Option<String>, Option<String>, Option<String>)> =
            r.read_one(&self.ties, (user.as_str(),)).await?;
        let Some((former, issuer, subject)) = ties else { return Ok(None) };
        if let Some(former) = former {
            self.give_up(r, user, &former, hold).await?;
        }
        Ok(issuer.zip(subject))
    }

    /// The password that stood with the name in the end.
    async fn give_up(
        &self,
        r: &Requests,
        user: &UserId,
        key: &str,
        hold: NameHold,
    ) -> Result<Option<String>, ArchiveError> {
        self.names.hold(r, key, user, hold).await?;
        let secret = self.names.release(r, key, user).await?;
        r.decide_in_a_crowd(&self.given_up, (user.as_str(), key)).await?;
        Ok(secret)
    }

    async fn called(
        &self,
        r: &Requests,
        user: &UserId,
        name: &str,
        (before, former): (&str, Option<&str>),
    ) -> Result<(), ArchiveError> {
        if r.decide_in_a_crowd(&self.rename, (name, former, user.as_str(), before)).await? {
            return Ok(());
        }
        match self.profile(r, user).await? {
            Some(now) if now.name == name => Ok(()),
            Some(now) if now.deleted => {
                self.names.release(r, &name_key(name), user).await?;
                Err(changing())
            }
            _ => Err(changing()),
        }
    }

    pub(super) async fn delete(&self, r: &Requests, user: &UserId, hold: NameHold) -> Result<bool, ArchiveError> {
        let Some(old) = self.profile(r, user).await? else { return Ok(false) };
        if old.deleted {
            return Ok(true);
        }
        // From here on it is found by whoever looks for deletions.
        r.write(&self.begin_deletion, (user.as_str(), int(hold.now))).await?;
        let external = self.finish_rename(r, user, hold).await?;
        self.give_up(r, user, &name_key(&old.name), hold).await?;
        if let Some((issuer, subject)) = external {
            let values = (issuer.as_str(), subject.as_str(), user.as_str());
            r.decide_in_a_crowd(&self.forget_login, values).await?;
        }
        // The last step forgets the name: before it whoever repeats this finds all there is to do.
        if r.decide_in_a_crowd(&self.delete, (user.as_str(), old.name.as_str())).await?
            || self.profile(r, user).await?.is_none_or(|p| p.deleted)
        {
            return Ok(true);
        }
        Err(changing())
    }

    pub(super) async fn deletions(&self, r: &Requests) -> Result<Vec<Deletion>, ArchiveError> {
        let rows: Vec<(String, i64)> = r.read(&self.deletions, (DELETIONS as i32,)).await?;
        let deletion =
            |(user, since): (String, i64)| Ok(Deletion { user: token("deletions.user", &user)?, since: uint(since) });
        rows.into_iter().map(deletion).collect()
    }

    pub(super) async fn end_deletion(&self, r: &Requests, user: &UserId) -> Result<(), ArchiveError> {
        r.write(&self.end_deletion, (user.as_str(),)).await
    }

    pub(super) async fn login(&self, r: &Requests, issuer: &str, subject: &str) -> Result<Option<Login>, ArchiveError> {
        if issuer == PASSWORD {
            return Ok(self.names.named(r, subject).await?.filter(|l| !l.secret.is_empty()));
        }
        let Some(user) = self.external(r, issuer, subject).await? else { return Ok(None) };
        // None: half made.
        let profile = self.profile(r, &user).await?.filter(|p| !p.deleted);
        Ok(profile.map(|Profile { user, name, .. }| Login { user, name, secret: String::new() }))
    }

    async fn external(&self, r: &Requests, issuer: &str, subject: &str) -> Result<Option<UserId>, ArchiveError> {
        let row: Option<(String,)> = r.read_one(&self.external, (issuer, subject)).await?;
        row.map(|(user,)| token("logins.user", &user)).transpose()
    }

    pub(super) async fn profile(&self, r: &Requests, user: &UserId) -> Result<Option<Profile>, ArchiveError> {
        let row: Option<ProfileColumns> = r.read_one(&self.by_id, (user.as_str(),)).await?;
        row.map(profile).transpose()
    }

    pub(super) async fn account(&self, r: &Requests, user: &UserId) -> Result<Option<Account>, ArchiveError> {
        let row: Option<AccountColumns> = r.read_one(&self.account, (user.as_str(),)).await?;
        row.map(account).transpose()
    }

    /// In the order of the servers' ring.
    pub(super) async fn accounts(
        &self,
        r: &Requests,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Account>, ArchiveError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows: Vec<AccountColumns> = match after {
            None => r.read(&self.first_accounts, (limit,)).await?,
            Some(user) => r.read(&self.next_accounts, (user.as_str(), limit)).await?,
        };
        rows.into_iter().map(account).collect()
    }

    pub(super) async fn set_disabled(&self, r: &Requests, user: &UserId, disabled: bool) -> Result<(), ArchiveError> {
        r.write(&self.disable, (disabled, user.as_str())).await
    }

    pub(super) async fn set_secret(&self, r: &Requests, user: &UserId, secret: &str) -> Result<bool, ArchiveError> {
        let Some(Profile { name, .. }) = self.profile(r, user).await?.filter(|p| !p.deleted) else { return Ok(false) };
        let key = name_key(&name);
        if self.names.named(r, &key).await?.is_none_or(|login| login.user != *user || login.secret.is_empty()) {
            return Ok(false);
        }
        self.names.set_secret(r, &key, user, secret).await
    }

    pub(super) async fn profiles(&self, r: &Requests, users: &[UserId]) -> Result<Vec<Profile>, ArchiveError> {
        let asked: Vec<_> = users.iter().map(|u| self.profile(r, u)).collect();
        let found: Vec<Option<Profile>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    pub(super) async fn find(&self, r: &Requests, begins: &Prefix, limit: usize) -> Result<Vec<Profile>, ArchiveError> {
        self.names.find(r, begins, limit).await
    }
}

fn changing() -> ArchiveError {
    ArchiveError::Unavailable("the account is being renamed or deleted by somebody else".into())
}

/// Id, name, and whether it was deleted.
type ProfileColumns = (String, String, Option<bool>);

/// Likewise, when it was made, and whether it is disabled.
type AccountColumns = (String, String, Option<bool>, i64, Option<bool>);

fn account((user, name, deleted, created, disabled): AccountColumns) -> Result<Account, ArchiveError> {
    Ok(Account {
        profile: profile((user, name, deleted))?,
        created: uint(created),
        disabled: disabled.unwrap_or(false),
    })
}

fn profile((user, name, deleted): ProfileColumns) -> Result<Profile, ArchiveError> {
    Ok(Profile { user: token("users.user", &user)?, name, deleted: deleted.unwrap_or(false) })
}
