//! Logins that are over although their access tokens have not expired: what the control bucket says of them. Pure: time is
//! an argument.

use std::collections::HashMap;

use natterjack_protocol::Token;

/// How many are kept before anybody looks for those that have expired.
const LOOK: usize = 1_024;

#[derive(Default)]
pub struct Revoked {
    /// Family and until when, milliseconds since 1970.
    families: HashMap<Token, u64>,
    look_at: usize,
}

impl Revoked {
    /// A key that is gone says nothing: each family is kept until its last token has expired, also if the bucket is lost.
    pub fn put(&mut self, family: Token, until: u64, now_ms: u64) {
        if self.families.len() >= self.look_at.max(LOOK) {
            self.families.retain(|_, until| *until > now_ms);
            self.look_at = self.families.len() * 2;
        }
        self.families.insert(family, until);
    }

    pub fn contains(&self, family: &Token) -> bool {
        self.families.contains_key(family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_until_the_last_token_has_expired_and_not_for_ever() {
        let mut all = Revoked::default();
        let family = |n: usize| Token::parse(&format!("f{n}")).unwrap();
        all.put(family(0), 10_000, 1);
        assert!(all.contains(&family(0)) && !all.contains(&family(1)));
        for n in 2..10 * LOOK {
            all.put(family(n), 100 + n as u64, n as u64);
        }
        assert!(all.families.len() < 3 * LOOK && all.contains(&family(0)));
    }
}
