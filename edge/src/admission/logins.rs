//! How often somebody without a token may try a password, or use a token that only `directory` can judge.
//!
//! Anybody can name a user, and anybody behind the same router has the same address. So a password that does not fit
//! counts for (name, address), and for the name from everywhere with a far higher limit, which bounds a guesser with
//! many addresses. Who is kept out by what others have filled comes in by a device that has logged in before: nobody
//! but its user knows its id, and it has a budget of its own. Refresh tokens and tokens of the external issuer cannot
//! be guessed; each login and each such token has its budget, and an address is only kept from making the archive
//! search without an end.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use natterjack_protocol::{Code, DeviceId, Refusal, limits::USER_NAME_CHARS, text};
use xxhash_rust::xxh3::Xxh3;

use super::{
    keyed_rate::KeyedRateLimiter,
    limits::{Limits, over},
};

const MINUTE: Duration = Duration::from_secs(60);

pub(super) struct LoginLimits {
    registers: KeyedRateLimiter<IpAddr>,
    by_address: KeyedRateLimiter<IpAddr>,
    by_name: KeyedRateLimiter<(String, IpAddr)>,
    anywhere: KeyedRateLimiter<String>,
    by_device: KeyedRateLimiter<(String, DeviceId)>,
    by_token: KeyedRateLimiter<u128>,
    lookups: KeyedRateLimiter<IpAddr>,
    /// Of the hashes of tokens: nobody outside can look for two that meet.
    seed: u64,
}

impl LoginLimits {
    pub fn new(limits: &Limits) -> Self {
        fn minute<K: std::hash::Hash + Eq>(n: u32) -> KeyedRateLimiter<K> {
            KeyedRateLimiter::new(n, MINUTE, n)
        }
        Self {
            registers: minute(limits.registers_per_address),
            by_address: minute(limits.logins_per_address),
            by_name: minute(limits.logins_per_name),
            anywhere: minute(limits.logins_per_name_anywhere),
            by_device: minute(limits.logins_per_device),
            by_token: minute(limits.renewals_per_login),
            lookups: minute(limits.lookups_per_address),
            seed: rand::random(),
        }
    }

    fn hash(&self, token: &str) -> u128 {
        let mut hasher = Xxh3::with_seed(self.seed);
        hasher.update(token.as_bytes());
        hasher.digest128()
    }
}

/// Somebody who has shown no token.
#[derive(Clone, Copy)]
pub struct Visitor<'a> {
    pub(super) logins: &'a LoginLimits,
    pub(super) address: IpAddr,
    /// Under which address they are counted; None: it is exempt.
    pub(super) counted: Option<IpAddr>,
}

/// A password that may be tried now. What was taken for it stays taken unless [`Attempt::ended`] finds that nothing
/// was guessed.
#[must_use]
pub struct Attempt<'a> {
    logins: &'a LoginLimits,
    address: Option<IpAddr>,
    name: Option<(String, IpAddr)>,
    device: Option<(String, DeviceId)>,
}

/// A token that may be used now.
#[must_use]
pub struct TokenUse<'a> {
    logins: &'a LoginLimits,
    token: u128,
}

impl<'a> Visitor<'a> {
    /// A registration that comes again tries a password, so it counts as a login with the name, too.
    pub fn registers(self, name: &str) -> Result<Attempt<'a>, Refusal> {
        if let Some(address) = &self.counted {
            let taken = self.logins.registers.take(address, Instant::now());
            over("registers_per_address", taken, "too many accounts were made from your address")?;
        }
        self.tries(name)
    }

    /// With a password.
    pub fn tries(self, name: &str) -> Result<Attempt<'a>, Refusal> {
        let (logins, now) = (self.logins, Instant::now());
        let mut attempt = Attempt { logins, address: None, name: None, device: None };
        if let Some(address) = self.counted {
            over(
                "logins_per_address",
                logins.by_address.take(&address, now),
                "too many logins from your address in one minute",
            )?;
            attempt.address = Some(address);
        }
        // What is no name has no account, and no password to be guessed.
        let Some(key) = key(name) else { return Ok(attempt) };
        let name = (key, self.counted.unwrap_or(self.address));
        let refused = |limit, taken, attempt: &Attempt<'_>| {
            over(limit, taken, "too many failed logins with this name in one minute")
                .inspect_err(|_| attempt.give_back(now))
        };
        refused("logins_per_name", logins.by_name.take(&name, now), &attempt)?;
        let everywhere = logins.anywhere.take(&name.0, now);
        if everywhere.is_err() {
            logins.by_name.give_back(&name, now);
        }
        refused("logins_per_name_anywhere", everywhere, &attempt)?;
        attempt.name = Some(name);
        Ok(attempt)
    }

    /// With a password, by a device that says that it has logged in before; whether it has, `directory` knows.
    pub fn tries_as(self, name: &str, device: &DeviceId) -> Result<Attempt<'a>, Refusal> {
        self.looks_up()?;
        let device = (key(name).unwrap_or_default(), device.clone());
        over(
            "logins_per_device",
            self.logins.by_device.take(&device, Instant::now()),
            "too many logins of this device in one minute",
        )?;
        Ok(Attempt { logins: self.logins, address: None, name: None, device: Some(device) })
    }

    /// Renews a login, ends it, or begins one with a token of the external issuer.
    pub fn uses(self, token: &str) -> Result<TokenUse<'a>, Refusal> {
        self.looks_up()?;
        let token = self.logins.hash(token);
        over(
            "renewals_per_login",
            self.logins.by_token.take(&token, Instant::now()),
            "this login was renewed too often in one minute",
        )?;
        Ok(TokenUse { logins: self.logins, token })
    }

    fn looks_up(self) -> Result<(), Refusal> {
        let Some(address) = &self.counted else { return Ok(()) };
        let taken = self.logins.lookups.take(address, Instant::now());
        over("lookups_per_address", taken, "too many tokens and devices from your address were looked up in one minute")
    }
}

/// Under which a name is counted; none: it cannot be one. Composed, a name has a quarter of what was sent at the very
/// least.
fn key(name: &str) -> Option<String> {
    let name = Some(name).filter(|n| n.len() <= 16 * USER_NAME_CHARS)?;
    text::user_name(name).ok().map(|name| text::user_name_key(&name))
}

impl Attempt<'_> {
    /// Only a wrong guess counts for the name; the work of a hash counts for the address also if it fits.
    pub fn ended<T>(self, result: &Result<T, Refusal>) {
        match result {
            Ok(_) => Attempt { address: None, device: None, ..self }.give_back(Instant::now()),
            // Of a registration: the name is taken, and the password is not the one it was taken with. Of a change: the
            // old password is wrong.
            Err(refusal) if matches!(refusal.code, Code::Unauthorized | Code::Conflict | Code::Forbidden) => {}
            Err(_) => self.untried(),
        }
    }

    /// No password was looked at.
    pub fn untried(self) {
        self.give_back(Instant::now());
    }

    fn give_back(&self, now: Instant) {
        if let Some(address) = &self.address {
            self.logins.by_address.give_back(address, now);
        }
        if let Some(name) = &self.name {
            self.logins.by_name.give_back(name, now);
            self.logins.anywhere.give_back(&name.0, now);
        }
        if let Some(device) = &self.device {
            self.logins.by_device.give_back(device, now);
        }
    }
}

impl TokenUse<'_> {
    /// Its login goes on under the next token.
    pub fn renewed(self, next: &str) {
        self.logins.by_token.hand_on(&self.token, self.logins.hash(next), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::limits::AdmissionLimits;

    fn address(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    const HOME: &str = "198.51.100.7";
    const ELSEWHERE: &str = "203.0.113.9";

    fn wrong<T>(_: &T) -> Result<(), Refusal> {
        Err(Refusal::new(Code::Unauthorized, "name and password do not fit"))
    }

    /// Wrong logins from there until one is refused.
    fn guesses(limiter: &AdmissionLimits, from: &str, name: &str) -> usize {
        let from = limiter.logins(address(from));
        std::iter::from_fn(|| from.tries(name).ok().map(|a| a.ended(&wrong(&())))).take(10_000).count()
    }

    #[test]
    fn a_name_is_not_shut_by_failures_elsewhere() {
        let limiter = AdmissionLimits::new(Limits::default());
        assert_eq!(guesses(&limiter, ELSEWHERE, "Alice"), 30);
        let refused = limiter.logins(address(ELSEWHERE)).tries("aLICE").err().unwrap();
        assert_eq!(refused.code, Code::RateLimited);
        assert!(refused.retry_after_ms.is_some_and(|ms| (1_000..=2_000).contains(&ms)), "{refused:?}");
        assert!(limiter.logins(address(HOME)).tries("alice").is_ok(), "from where they are");
        assert!(limiter.logins(address(ELSEWHERE)).tries("bob").is_ok(), "others from there");
        assert!(limiter.logins(address(ELSEWHERE)).registers("ALICE").is_err(), "a registration tries a password, too");
        assert!(limiter.logins(address(ELSEWHERE)).tries_as("alice", &DeviceId::parse("d1").unwrap()).is_ok());
    }

    #[test]
    fn a_guesser_with_many_addresses_is_bounded_and_a_known_device_is_not_concerned() {
        let limiter = AdmissionLimits::new(Limits::default());
        let all: usize = (0..40).map(|n| guesses(&limiter, &format!("203.0.113.{n}"), "alice")).sum();
        assert_eq!(all, 300);
        let home = limiter.logins(address(HOME));
        assert!(home.tries("alice").is_err());
        assert!(home.tries("bob").is_ok(), "what was refused for one name costs the address nothing");
        let (mine, other) = (DeviceId::parse("d1").unwrap(), DeviceId::parse("d2").unwrap());
        let tries = |device| {
            std::iter::from_fn(|| home.tries_as("Alice", device).ok().map(|a| a.ended(&wrong(&())))).take(100).count()
        };
        assert_eq!((tries(&mine), tries(&other)), (30, 30), "each has its own");
    }

    #[test]
    fn a_login_that_fits_and_one_that_nobody_looked_at_cost_a_name_nothing() {
        let limiter = AdmissionLimits::new(Limits {
            logins_per_name: 3,
            logins_per_name_anywhere: 3,
            logins_per_address: 50,
            ..Limits::default()
        });
        let home = limiter.logins(address(HOME));
        (0..40).for_each(|_| home.tries("alice").unwrap().ended(&Ok(())));
        for _ in 0..40 {
            home.tries("alice").unwrap().ended::<()>(&Err(Refusal::unavailable("the store is away")));
        }
        assert_eq!(guesses(&limiter, HOME, "alice"), 3);
        let others = (0..100).filter(|n| home.tries(&format!("user-{n}")).map(|a| a.ended(&Ok(()))).is_ok()).count();
        assert_eq!(others, 50 - 40 - 3, "hashes are work, whatever comes of them");
    }

    #[test]
    fn tries_that_are_under_way_count() {
        let limiter = AdmissionLimits::new(Limits::default());
        let home = limiter.logins(address(HOME));
        let under_way: Vec<_> = std::iter::from_fn(|| home.tries("alice").ok()).collect();
        assert_eq!(under_way.len(), 30);
    }

    #[test]
    fn an_office_renews_its_logins_and_a_login_that_runs_wild_is_stopped() {
        let limiter = AdmissionLimits::new(Limits::default());
        let office = limiter.logins(address(HOME));
        for n in 0..1_500 {
            office.uses(&format!("token-{n}")).unwrap_or_else(|e| panic!("{n}: {e}")).renewed(&format!("next-{n}"));
        }
        assert!(office.tries("alice").is_ok(), "renewals are no logins");
        let (mut token, mut renewed) = ("wild-0".to_owned(), 0);
        while let Ok(used) = office.uses(&token) {
            renewed += 1;
            token = format!("wild-{renewed}");
            used.renewed(&token);
            assert!(renewed < 100);
        }
        assert_eq!(renewed, 30);
        assert!(office.uses("wild-0").is_ok() && office.uses("another").is_ok());
        let guesses = (0..10_000).filter(|n| office.uses(&format!("made up {n}")).is_ok()).count();
        assert!((4_000..5_000).contains(&guesses), "an address cannot make the archive search for ever: {guesses}");
        assert!(office.tries("alice").is_ok() && limiter.logins(address(ELSEWHERE)).uses("token").is_ok());
    }

    #[test]
    fn an_exempt_address_is_not_counted_but_the_name_from_there_is() {
        let limiter = AdmissionLimits::new(Limits {
            registers_per_address: 1,
            logins_per_address: 1,
            lookups_per_address: 1,
            ..Limits::default()
        });
        let here = limiter.logins(address("127.0.0.1"));
        assert!((0..200).all(|n| here.registers(&format!("new-{n}")).is_ok() && here.uses(&format!("t{n}")).is_ok()));
        assert_eq!(guesses(&limiter, "127.0.0.1", "alice"), 30);
        assert_eq!(guesses(&limiter, "::ffff:127.0.0.1", "alice"), 0, "the same address");
        let away = limiter.logins(address(HOME));
        assert!(away.registers("carol").is_ok());
        let refused = away.registers("dora").err().unwrap();
        assert!(refused.retry_after_ms.is_some_and(|ms| (59_000..=60_000).contains(&ms)), "{refused:?}");
    }

    #[test]
    fn a_customer_with_a_whole_network_has_one_address() {
        let limiter = AdmissionLimits::new(Limits::default());
        assert_eq!(guesses(&limiter, "2001:db8:0:1::1", "alice"), 30);
        assert_eq!(guesses(&limiter, "2001:db8:0:1:ffff::2", "alice"), 0);
        assert_eq!(guesses(&limiter, "2001:db8:0:2::1", "alice"), 30);
    }
}
