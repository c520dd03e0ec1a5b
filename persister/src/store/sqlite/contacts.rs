//! Table `contacts`: one row per side of a relation. Both sides change in one transaction.

use natterjack_protocol::{
    UserId,
    client::http::{Contact, ContactChange, ContactState},
};
use rusqlite::{Connection, OptionalExtension, Transaction, params, types::Type};

use super::{int, users::id};
use crate::store::accounts::contacts::{CONTACT_ROWS, ContactOutcome, ContactRows, contact_after, full, mirrored};

pub(super) const SCHEMA: &str = "
CREATE TABLE contacts (
    user TEXT NOT NULL REFERENCES users (user),
    other TEXT NOT NULL REFERENCES users (user),
    state TEXT NOT NULL,
    PRIMARY KEY (user, other)
) WITHOUT ROWID;
";

pub(super) fn of(c: &Connection, user: &UserId) -> rusqlite::Result<Vec<Contact>> {
    c.prepare_cached(
        "SELECT c.other, u.name, c.state FROM contacts c JOIN users u ON u.user = c.other WHERE c.user = ?1 ORDER BY \
         u.name_key LIMIT ?2",
    )?
    .query_map(params![user.as_str(), int(CONTACT_ROWS as u64)], |r| {
        Ok(Contact { user: id(r, 0)?, name: r.get(1)?, state: state(2, &r.get::<_, String>(2)?)? })
    })?
    .collect()
}

/// Refusals are found before the first write: this either writes both sides or nothing.
pub(super) fn change(
    tx: &Transaction<'_>,
    actor: &UserId,
    other: &UserId,
    change: ContactChange,
) -> rusqlite::Result<ContactOutcome> {
    for user in [actor, other] {
        let known = tx
            .prepare_cached("SELECT 1 FROM users WHERE user = ?1 AND (deleted = 0 OR ?2)")?
            .exists(params![user.as_str(), change == ContactChange::Remove])?;
        if !known {
            return Ok(ContactOutcome::NoSuchUser);
        }
    }
    let now = tx
        .prepare_cached("SELECT state FROM contacts WHERE user = ?1 AND other = ?2")?
        .query_row(params![actor.as_str(), other.as_str()], |r| state(0, &r.get::<_, String>(0)?))
        .optional()?;
    let Some(after) = contact_after(now, change) else { return Ok(ContactOutcome::NothingToAccept) };
    if after == now {
        return Ok(ContactOutcome::Is { state: now, changed: false });
    }
    if let Some(full) = full(now, after, rows(tx, actor)?, rows(tx, other)?) {
        return Ok(full);
    }
    match after {
        None => {
            let mut delete = tx.prepare_cached("DELETE FROM contacts WHERE user = ?1 AND other = ?2")?;
            delete.execute([actor.as_str(), other.as_str()])?;
            delete.execute([other.as_str(), actor.as_str()])?;
        }
        Some(mine) => {
            let mut put =
                tx.prepare_cached("INSERT OR REPLACE INTO contacts (user, other, state) VALUES (?1, ?2, ?3)")?;
            put.execute([actor.as_str(), other.as_str(), spelling(mine)])?;
            put.execute([other.as_str(), actor.as_str(), spelling(mirrored(mine))])?;
        }
    }
    Ok(ContactOutcome::Is { state: after, changed: true })
}

fn rows(tx: &Transaction<'_>, user: &UserId) -> rusqlite::Result<ContactRows> {
    let mut rows = ContactRows::default();
    let mut all = tx.prepare_cached("SELECT state FROM contacts WHERE user = ?1")?;
    for found in all.query_map([user.as_str()], |r| state(0, &r.get::<_, String>(0)?))? {
        rows.count(found?);
    }
    Ok(rows)
}

fn spelling(state: ContactState) -> &'static str {
    match state {
        ContactState::Requested => "requested",
        ContactState::Asked => "asked",
        ContactState::Contact => "contact",
    }
}

fn state(column: usize, text: &str) -> rusqlite::Result<ContactState> {
    match text {
        "requested" => Ok(ContactState::Requested),
        "asked" => Ok(ContactState::Asked),
        "contact" => Ok(ContactState::Contact),
        other => Err(rusqlite::Error::FromSqlConversionFailure(
            column,
            Type::Text,
            format!("no state of a contact: {other}").into(),
        )),
    }
}
