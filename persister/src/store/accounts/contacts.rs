//! The rules of contacts: what becomes of a relation, and how many there may be.

use natterjack_protocol::{
    client::http::{ContactChange, ContactState},
    limits,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactOutcome {
    /// What the other is to the actor now, and whether that is new.
    Is {
        state: Option<ContactState>,
        changed: bool,
    },
    /// There is no request to accept.
    NothingToAccept,
    /// The actor has as many contacts and requests as there may be.
    Full,
    /// As many requests as there may be wait for an answer of the other.
    OtherFull,
    NoSuchUser,
}

/// The rule of contacts: what `other` is to the actor after `change`. Both sides follow from it, see [`mirrored`].
/// None: nothing to accept.
pub fn contact_after(now: Option<ContactState>, change: ContactChange) -> Option<Option<ContactState>> {
    use ContactState::{Asked, Contact, Requested};
    match (change, now) {
        (ContactChange::Request, None | Some(Requested)) => Some(Some(Requested)),
        (ContactChange::Request | ContactChange::Accept, Some(Asked | Contact)) => Some(Some(Contact)),
        (ContactChange::Accept, None | Some(Requested)) => None,
        (ContactChange::Remove, _) => Some(None),
    }
}

/// The same relation from the other side.
pub fn mirrored(state: ContactState) -> ContactState {
    match state {
        ContactState::Requested => ContactState::Asked,
        ContactState::Asked => ContactState::Requested,
        ContactState::Contact => ContactState::Contact,
    }
}

/// What a list has at most: the contacts and requests of a user's own, and the requests of others.
pub const CONTACT_ROWS: usize = limits::CONTACTS + limits::CONTACT_REQUESTS;

/// How many rows somebody has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContactRows {
    /// Contacts, and requests made: only the user makes them more.
    pub own: usize,
    /// Requests of others: anybody makes them more, so they have room of their own.
    pub asked: usize,
}

impl ContactRows {
    pub fn count(&mut self, state: ContactState) {
        *(if state == ContactState::Asked { &mut self.asked } else { &mut self.own }) += 1;
    }

    /// Is there room for a relation that was `now` and becomes `after`?
    fn takes(self, now: Option<ContactState>, after: Option<ContactState>) -> bool {
        let asked = |state: Option<ContactState>| state == Some(ContactState::Asked);
        match after {
            None => true,
            Some(_) if asked(after) => asked(now) || self.asked < limits::CONTACT_REQUESTS,
            Some(_) => now.is_some_and(|n| n != ContactState::Asked) || self.own < limits::CONTACTS,
        }
    }
}

/// Whose list has no room for this change, as the actor sees it.
pub fn full(
    now: Option<ContactState>,
    after: Option<ContactState>,
    actor: ContactRows,
    other: ContactRows,
) -> Option<ContactOutcome> {
    if !actor.takes(now, after) {
        return Some(ContactOutcome::Full);
    }
    (!other.takes(now.map(mirrored), after.map(mirrored))).then_some(ContactOutcome::OtherFull)
}

#[cfg(test)]
mod tests {
    use ContactState::{Asked, Contact, Requested};

    use super::*;

    #[test]
    fn both_sides_always_agree() {
        let changes = [ContactChange::Request, ContactChange::Accept, ContactChange::Remove];
        for now in [None, Some(Requested), Some(Asked), Some(Contact)] {
            for change in changes {
                if let Some(after) = contact_after(now, change) {
                    assert_eq!(
                        contact_after(after, change),
                        Some(after),
                        "repeating {change:?} on {now:?} changes nothing"
                    );
                }
                assert_eq!(now.map(mirrored).map(mirrored), now);
            }
        }
    }

    #[test]
    fn what_others_ask_leaves_room_for_ones_own() {
        let rows = |own, asked| ContactRows { own, asked };
        let (none, few, many) =
            (rows(0, 0), rows(0, limits::CONTACT_REQUESTS), rows(limits::CONTACTS, limits::CONTACT_REQUESTS));
        let request = |now, actor, other| full(now, contact_after(now, ContactChange::Request).unwrap(), actor, other);
        assert_eq!(request(None, few, none), None, "who was asked by many asks somebody");
        assert_eq!(request(None, none, few), Some(ContactOutcome::OtherFull));
        assert_eq!(request(None, rows(limits::CONTACTS, 0), none), Some(ContactOutcome::Full));
        assert_eq!(
            request(None, none, rows(limits::CONTACTS, 0)),
            None,
            "a list of contacts that is full can be asked"
        );
        assert_eq!(request(Some(Asked), few, rows(limits::CONTACTS, 0)), None, "the answer to a request");
        assert_eq!(request(Some(Asked), many, none), Some(ContactOutcome::Full));
        assert_eq!(full(Some(Asked), None, many, many), None, "no is always possible");
        assert_eq!(full(Some(Contact), None, many, many), None);
    }

    #[test]
    fn only_who_was_asked_can_accept() {
        assert_eq!(contact_after(Some(Requested), ContactChange::Accept), None);
        assert_eq!(contact_after(None, ContactChange::Accept), None);
        assert_eq!(contact_after(Some(Asked), ContactChange::Accept), Some(Some(Contact)));
        assert_eq!(contact_after(Some(Asked), ContactChange::Request), Some(Some(Contact)), "two requests meet");
    }
}
