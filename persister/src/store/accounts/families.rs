//! Families of refresh tokens: each is one login. What using a token comes to, and which logins are not over.

use natterjack_protocol::{DeviceId, Token, UserId};

use crate::tokens::{RefreshHash, Salt};

/// The refresh tokens that came from one login, one after the other. `id` stands in the access tokens as `fam`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub id: Token,
    pub user: UserId,
    pub device: DeviceId,
}

/// The token that is to stand in the place of one that is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NextToken {
    pub hash: RefreshHash,
    /// Of which it was made, with the old one.
    pub salt: Salt,
    /// If it is not used until then, milliseconds since 1970.
    pub expires: u64,
}

/// When a refresh token is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The server's time, milliseconds since 1970: what is written down.
    pub now: u64,
    /// The earliest that it may be: what is judged by, so that a clock that has just stepped ends nobody's login.
    pub earliest: u64,
    /// For so long after its first use it may be used again, if the next one was not used meanwhile.
    pub again: u64,
}

impl Use {
    pub fn in_time(&self, at: u64) -> bool {
        self.earliest.saturating_sub(at) <= self.again
    }

    /// Is one that is good until then too old?
    pub fn expired(&self, expires: u64) -> bool {
        expires <= self.earliest
    }
}

/// What using a refresh token comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// The old one is used, and the one that is made of it and this salt stands in its place: the offered one, or that
    /// of an earlier use, whose answer was lost or who came at the same time. With the user's name, because a second
    /// read could fail now.
    Done {
        family: Family,
        name: String,
        salt: Salt,
    },
    /// It was used too long ago, or the next one was used: whoever uses it now or did before is not who it was given
    /// to. The family is revoked.
    Reused(Family),
    Revoked,
    Expired,
    /// Never given, or expired long ago.
    Unknown,
}

/// A login that is not over: none of its tokens was stolen, nobody ended it, and its newest token has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLogin {
    pub family: Family,
    /// When it was made, milliseconds since 1970.
    pub since: u64,
}

/// Logins in one answer of a store. A user has a few for each device; whoever ends all of them asks again.
pub const LOGINS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_again_is_in_time_until_its_end_and_for_a_clock_that_is_behind() {
        let at = |earliest| Use { now: 9_000_000, earliest, again: 60_000 }.in_time(1_000_000);
        assert!(at(1_000_000) && at(1_060_000) && at(999_000));
        assert!(!at(1_060_001));
    }
}
