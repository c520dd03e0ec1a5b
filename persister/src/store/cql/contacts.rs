//! The tables `relations` (one row per pair, the truth) and `contacts` (a row on each side, what a list is read from).
//!
//! A change is one conditional write of the pair's row, which counts its versions. Both sides follow in one logged
//! batch, with the version as timestamp, so an older change never replaces a newer one. If we die in between, the lists
//! are behind until the change is repeated: repeating one writes the lists again.

use natterjack_protocol::{
    UserId,
    client::http::{Contact, ContactChange, ContactState, Profile},
};
use scylla::statement::prepared::PreparedStatement;

use super::{corrupt, session::Requests, token};
use crate::store::{
    ArchiveError,
    accounts::{
        contacts::{CONTACT_ROWS, ContactOutcome, ContactRows, contact_after, full, mirrored},
        name_key,
    },
};

pub(super) const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS contacts (user text, other text, name text, state text, PRIMARY KEY (user, other))";

/// `state`: what `hi` is to `lo`; empty: nothing any more.
pub(super) const RELATIONS_SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS relations (lo text, hi text, state text, version bigint, PRIMARY KEY ((lo, hi)))";

/// Two people at once make one of them try again, never more often than they press the button.
const ATTEMPTS: usize = 10;

pub(super) struct Contacts {
    of: PreparedStatement,
    states: PreparedStatement,
    relation: PreparedStatement,
    first: PreparedStatement,
    next: PreparedStatement,
    put: PreparedStatement,
    delete: PreparedStatement,
}

impl Contacts {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            of: r.prepare("SELECT other, name, state FROM contacts WHERE user = ?").await?,
            states: r.prepare("SELECT state FROM contacts WHERE user = ?").await?,
            relation: r.prepare("SELECT state, version FROM relations WHERE lo = ? AND hi = ?").await?,
            first: r
                .prepare_condition("INSERT INTO relations (state, version, lo, hi) VALUES (?, ?, ?, ?) IF NOT EXISTS")
                .await?,
            next: r
                .prepare_condition("UPDATE relations SET state = ?, version = ? WHERE lo = ? AND hi = ? IF version = ?")
                .await?,
            put: r
                .prepare("INSERT INTO contacts (name, state, user, other) VALUES (?, ?, ?, ?) USING TIMESTAMP ?")
                .await?,
            delete: r.prepare("DELETE FROM contacts USING TIMESTAMP ? WHERE user = ? AND other = ?").await?,
        })
    }

    pub(super) async fn of(&self, r: &Requests, user: &UserId) -> Result<Vec<Contact>, ArchiveError> {
        let rows: Vec<(String, String, String)> = r.read(&self.of, (user.as_str(),)).await?;
        let mut found = rows
            .into_iter()
            .map(|(other, name, s)| {
                Ok(Contact { user: token("contacts.other", &other)?, name, state: state(&s)?.ok_or_else(|| bad(&s))? })
            })
            .collect::<Result<Vec<_>, ArchiveError>>()?;
        found.sort_by_cached_key(|c| name_key(&c.name));
        found.truncate(CONTACT_ROWS);
        Ok(found)
    }

    pub(super) async fn change(
        &self,
        r: &Requests,
        actor: &Profile,
        other: &Profile,
        change: ContactChange,
    ) -> Result<ContactOutcome, ArchiveError> {
        let ordered = actor.user <= other.user;
        let (lo, hi) = if ordered { (actor, other) } else { (other, actor) };
        // What the other is to the actor, told from what `hi` is to `lo`; and back.
        let turned = |s: Option<ContactState>| if ordered { s } else { s.map(mirrored) };
        for _ in 0..ATTEMPTS {
            let row: Option<(String, i64)> = r.read_one(&self.relation, (lo.user.as_str(), hi.user.as_str())).await?;
            let version = row.as_ref().map(|(_, v)| *v);
            let now = turned(row.map(|(s, _)| state(&s)).transpose()?.flatten());
            let Some(after) = contact_after(now, change) else { return Ok(ContactOutcome::NothingToAccept) };
            if after == now {
                if let Some(version) = version {
                    self.write_lists(r, lo, hi, turned(now), version).await?;
                }
                return Ok(ContactOutcome::Is { state: now, changed: false });
            }
            // Taking a relation away needs no room.
            if after.is_some()
                && let Some(full) = full(now, after, self.rows(r, actor).await?, self.rows(r, other).await?)
            {
                return Ok(full);
            }
            let (spelled, names) = (spelling(turned(after)), (lo.user.as_str(), hi.user.as_str()));
            let decided = match version {
                None => r.decide(&self.first, (spelled, 1_i64, names.0, names.1)).await?,
                Some(v) => r.decide(&self.next, (spelled, v + 1, names.0, names.1, v)).await?,
            };
            if decided {
                self.write_lists(r, lo, hi, turned(after), version.unwrap_or(0) + 1).await?;
                return Ok(ContactOutcome::Is { state: after, changed: true });
            }
        }
        Err(ArchiveError::Unavailable("a relation changes all the time".into()))
    }

    /// With the names as they are now. The version moves on, so that no earlier writing of the lists comes later.
    pub(super) async fn write_again(&self, r: &Requests, one: &Profile, other: &Profile) -> Result<(), ArchiveError> {
        let (lo, hi) = if one.user <= other.user { (one, other) } else { (other, one) };
        let (l, h) = (lo.user.as_str(), hi.user.as_str());
        for _ in 0..ATTEMPTS {
            let row: Option<(String, i64)> = r.read_one(&self.relation, (l, h)).await?;
            let Some((spelled, version)) = row else { return Ok(()) };
            if r.decide(&self.next, (spelled.as_str(), version + 1, l, h, version)).await? {
                return self.write_lists(r, lo, hi, state(&spelled)?, version + 1).await;
            }
        }
        Err(ArchiveError::Unavailable("a relation changes all the time".into()))
    }

    async fn rows(&self, r: &Requests, user: &Profile) -> Result<ContactRows, ArchiveError> {
        let all: Vec<(String,)> = r.read(&self.states, (user.user.as_str(),)).await?;
        let mut rows = ContactRows::default();
        for (text,) in all {
            state(&text)?.into_iter().for_each(|s| rows.count(s));
        }
        Ok(rows)
    }

    async fn write_lists(
        &self,
        r: &Requests,
        lo: &Profile,
        hi: &Profile,
        state: Option<ContactState>,
        version: i64,
    ) -> Result<(), ArchiveError> {
        let (l, h) = (lo.user.as_str(), hi.user.as_str());
        match state {
            Some(s) => {
                let rows = (
                    (hi.name.as_str(), spelling(Some(s)), l, h, version),
                    (lo.name.as_str(), spelling(Some(mirrored(s))), h, l, version),
                );
                r.write_both([&self.put, &self.put], rows).await
            }
            None => r.write_both([&self.delete, &self.delete], ((version, l, h), (version, h, l))).await,
        }
    }
}

fn spelling(state: Option<ContactState>) -> &'static str {
    match state {
        None => "",
        Some(ContactState::Requested) => "requested",
        Some(ContactState::Asked) => "asked",
        Some(ContactState::Contact) => "contact",
    }
}

fn state(text: &str) -> Result<Option<ContactState>, ArchiveError> {
    match text {
        "" => Ok(None),
        "requested" => Ok(Some(ContactState::Requested)),
        "asked" => Ok(Some(ContactState::Asked)),
        "contact" => Ok(Some(ContactState::Contact)),
        other => Err(bad(other)),
    }
}

fn bad(state: &str) -> ArchiveError {
    corrupt("contacts.state", format!("no state of a contact: {state}"))
}
