//! Logins that are over although their access tokens have not expired: what the control bucket says of them. Pure:
//! time is an argument.

use std::{collections::HashMap, sync::Arc};

use natterjack_protocol::Token;
use parking_lot::RwLock;

/// How many are kept before anybody looks for those that have expired.
const LOOK: usize = 1_024;

/// Clones share it.
#[derive(Clone, Default)]
pub struct RevokedLogins(Arc<RwLock<Revoked>>);

impl RevokedLogins {
    /// See [`Revoked::put`].
    pub fn put(&self, family: Token, until: u64, now_ms: u64) {
        self.0.write().put(family, until, now_ms);
    }

    pub fn contains(&self, family: &Token) -> bool {
        self.0.read().families.contains_key(family)
    }
}

#[derive(Default)]
struct Revoked {
    /// Family and until when, milliseconds since 1970.
    families: HashMap<Token, u64>,
    look_at: usize,
}

impl Revoked {
    /// A key that is gone says nothing: each family is kept until its last token has expired, also if the bucket is
    /// lost.
    fn put(&mut self, family: Token, until: u64, now_ms: u64) {
        if self.families.len() >= self.look_at.max(LOOK) {
            self.families.retain(|_, until| *until > now_ms);
            self.look_at = self.families.len() * 2;
        }
        self.families.insert(family, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_until_the_last_token_has_expired_and_not_for_ever() {
        let all = RevokedLogins::default();
        let family = |n: usize| Token::parse(&format!("f{n}")).unwrap();
        all.put(family(0), 10_000, 1);
        assert!(all.contains(&family(0)) && !all.contains(&family(1)));
        for n in 2..10 * LOOK {
            all.put(family(n), 100 + n as u64, n as u64);
        }
        assert!(all.0.read().families.len() < 3 * LOOK && all.contains(&family(0)));
    }
}
