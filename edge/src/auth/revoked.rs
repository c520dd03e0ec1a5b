//! Logins that are over although their access tokens have not expired: what the control bucket says of them. Pure: time is an argument.

use std::collections::HashMap;

use natterjack_protocol::{DeviceId, Token, UserId, codec::Codec, internal::kv::RevokedLogin};

/// How many are kept before anybody looks for those that have expired.
const LOOK: usize = 1_024;

#[derive(Default)]
pub struct Revoked {
    /// Family and until when, milliseconds since 1970.
    families: HashMap<Token, u64>,
    look_at: usize,
}

impl Revoked {
    /// A value of the control bucket; gives whose session is over. A key that is gone says nothing: each family is kept until its last
    /// token has expired, also if the bucket is lost.
    pub fn put(&mut self, family: Token, value: &[u8], now_ms: u64) -> Option<(UserId, DeviceId)> {
        let revoked: RevokedLogin = Codec::Msgpack.decode(value).ok()?;
        if self.families.len() >= self.look_at.max(LOOK) {
            self.families.retain(|_, until| *until > now_ms);
            self.look_at = self.families.len() * 2;
        }
        self.families.insert(family, revoked.until);
        Some((revoked.user, revoked.device))
    }

    pub fn contains(&self, family: &Token) -> bool {
        self.families.contains_key(family)
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::log::VERSION;

    use super::*;

    fn value(until: u64) -> Vec<u8> {
        let id = |s| Token::parse(s).unwrap();
        Codec::Msgpack.encode(&RevokedLogin { v: VERSION, user: id("u"), device: id("d"), until }).to_vec()
    }

    #[test]
    fn kept_until_the_last_token_has_expired_and_not_for_ever() {
        let mut all = Revoked::default();
        let family = |n: usize| Token::parse(&format!("f{n}")).unwrap();
        assert_eq!(all.put(family(0), &value(10_000), 1).unwrap().1.as_str(), "d");
        assert!(all.contains(&family(0)) && !all.contains(&family(1)));
        assert!(all.put(family(1), b"garbage", 1).is_none() && !all.contains(&family(1)));
        for n in 2..10 * LOOK {
            all.put(family(n), &value(100 + n as u64), n as u64);
        }
        assert!(all.families.len() < 3 * LOOK && all.contains(&family(0)));
    }
}
