//! Before step 2: how often, and how many at once. Each edge counts for itself; what is refused is told when to come
//! back.
//!
//! Two sorts of limits, because there are two ways to be too much: an address that nobody has vouched for
//! (connections; `logins`), and a user with a good token (sends, requests, connects), wherever they come from. What
//! keeps somebody out is never counted under something that a stranger elsewhere can name.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use natterjack_protocol::{Code, Refusal, UserId, limits};
use natterjack_runtime::networks::{Network, any_contains, first, plain};
use serde::{Deserialize, Serialize};

use super::{
    address_quota::{AddressQuota, HeldQuota},
    client_address,
    forwarded::{Sign, Unheeded},
    keyed_rate::KeyedRateLimiter,
    logins::{LoginLimits, Visitor},
};

/// A rate holds as much at once as comes in so many units of time: a device that wakes up asks for several things.
const REQUESTS_AT_ONCE: u32 = 10;
const SENDS_AT_ONCE: u32 = 2;
/// Somebody else of the address has to go first; nobody knows when.
const PLACE_AGAIN_MS: u64 = 5_000;

/// 0 everywhere: no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Their addresses are not limited.
    pub exempt: Vec<Network>,
    /// Their `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// At once.
    pub connections_per_address: u32,
    /// Of request bodies and of answers that are not taken, at once.
    pub bytes_per_address: u32,
    /// A minute, as the next eight.
    pub connects_per_address: u32,
    pub connects_per_user: u32,
    pub registers_per_address: u32,
    /// With a password, right or wrong.
    pub logins_per_address: u32,
    /// Those that fail, from one address.
    pub logins_per_name: u32,
    /// Those that fail, from all addresses together.
    pub logins_per_name_anywhere: u32,
    /// Of a device that is known, when the three above refuse.
    pub logins_per_device: u32,
    /// Uses of one login's refresh tokens, or of one token of the external issuer.
    pub renewals_per_login: u32,
    /// Tokens and devices that are looked up.
    pub lookups_per_address: u32,
    /// A second, as the next.
    pub sends_per_user: u32,
    pub requests_per_user: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let network = |s: &str| s.parse().expect("a network, as a test shows");
        Self {
            exempt: vec![network("127.0.0.0/8"), network("::1")],
            trusted_proxies: Vec::new(),
            connections_per_address: 2_000,
            bytes_per_address: 64 << 20,
            connects_per_address: 3_000,
            connects_per_user: 600,
            registers_per_address: 30,
            logins_per_address: 120,
            logins_per_name: 30,
            logins_per_name_anywhere: 300,
            logins_per_device: 30,
            renewals_per_login: 30,
            lookups_per_address: 6_000,
            sends_per_user: 1_000,
            requests_per_user: 100,
        }
    }
}

struct Inner {
    limits: Limits,
    places: AddressQuota,
    /// Of connections that have not said who they are.
    ungreeted: AddressQuota,
    bytes: AddressQuota,
    connects: KeyedRateLimiter<IpAddr>,
    connects_of: KeyedRateLimiter<UserId>,
    logins: LoginLimits,
    unheeded: Unheeded,
    sends: KeyedRateLimiter<UserId>,
    requests: KeyedRateLimiter<UserId>,
}

/// Clones share it.
#[derive(Clone)]
pub struct AdmissionLimits(Arc<Inner>);

impl AdmissionLimits {
    pub fn new(limits: Limits) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        let second = |n: u32, at_once: u32| KeyedRateLimiter::new(n, Duration::from_secs(1), n.saturating_mul(at_once));
        Self(Arc::new(Inner {
            places: AddressQuota::new(limits.connections_per_address),
            ungreeted: AddressQuota::new(limits::UNGREETED_PER_ADDRESS as u32),
            bytes: AddressQuota::new(limits.bytes_per_address),
            connects: KeyedRateLimiter::new(limits.connects_per_address, MINUTE, limits.connects_per_address),
            connects_of: KeyedRateLimiter::new(limits.connects_per_user, MINUTE, limits.connects_per_user),
            logins: LoginLimits::new(&limits),
            unheeded: Unheeded::default(),
            sends: second(limits.sends_per_user, SENDS_AT_ONCE),
            requests: second(limits.requests_per_user, REQUESTS_AT_ONCE),
            limits,
        }))
    }

    /// May this proxy say for whom it speaks?
    pub fn trusts(&self, peer: IpAddr) -> bool {
        any_contains(&self.0.limits.trusted_proxies, peer)
    }

    /// Who is behind a connection or request. `forwarded`: the values of `X-Forwarded-For`, in order.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl Iterator<Item = &'a str>) -> IpAddr {
        client_address::address(peer, forwarded, |a| self.trusts(a))
    }

    /// A new connection. The place is given back when dropped; none: this address is not counted.
    pub fn connects(&self, client: IpAddr) -> Result<Option<HeldQuota>, Refusal> {
        let Some(client) = self.counted(client) else { return Ok(None) };
        let place = self.0.places.take(client, 1).ok_or_else(|| {
            refusal("connections_per_address", PLACE_AGAIN_MS, "too many connections from your address; close some")
        })?;
        over(
            "connects_per_address",
            self.0.connects.take(&client, Instant::now()),
            "too many connections from your address in one minute",
        )?;
        Ok(Some(place))
    }

    /// Bytes that wait here for this address, or for more bytes from it. Given back when dropped.
    pub fn holds(&self, client: IpAddr, bytes: usize) -> Result<Option<HeldQuota>, Refusal> {
        let Some(client) = self.counted(client).filter(|_| bytes > 0) else { return Ok(None) };
        let place = self.0.bytes.take(client, bytes as u64);
        let why = "too much is under way from and to your address; read the answers";
        place.map(Some).ok_or_else(|| refusal("bytes_per_address", PLACE_AGAIN_MS, why))
    }

    /// A `hello`.
    pub fn greets(&self, user: &UserId) -> Result<(), Refusal> {
        over(
            "connects_per_user",
            self.0.connects_of.take(user, Instant::now()),
            "you have connected too often in one minute",
        )
    }

    /// A connection that has not said who it is. One address has a part of the places there are; None: it is not
    /// counted.
    pub fn waits(&self, client: IpAddr) -> Result<Option<HeldQuota>, Refusal> {
        let Some(client) = self.counted(client) else { return Ok(None) };
        let why = "too many connections from your address have not said who they are";
        self.0.ungreeted.take(client, 1).map(Some).ok_or_else(|| refusal("ungreeted_per_address", PLACE_AGAIN_MS, why))
    }

    /// For requests that come without a token.
    pub fn logins(&self, client: IpAddr) -> Visitor<'_> {
        Visitor { logins: &self.0.logins, address: plain(client), counted: self.counted(client) }
    }

    /// Looks for a proxy that nobody has named.
    pub fn heed(&self, peer: IpAddr, sign: Option<Sign>) {
        if let Some(sign) = sign {
            self.0.unheeded.note(plain(peer), sign, self.counted(peer).is_none());
        }
    }

    /// The peer that says for whom it speaks and is not believed, if there was one.
    pub fn unheeded(&self) -> Option<IpAddr> {
        self.0.unheeded.peer()
    }

    pub fn sends(&self, user: &UserId) -> Result<(), Refusal> {
        over("sends_per_user", self.0.sends.take(user, Instant::now()), "you send too many messages; slow down")
    }

    /// Over HTTP with a token.
    pub fn asks(&self, user: &UserId) -> Result<(), Refusal> {
        over("requests_per_user", self.0.requests.take(user, Instant::now()), "too many requests; slow down")
    }

    /// Under which address somebody is counted: an IPv6 customer has a /64 at least.
    fn counted(&self, client: IpAddr) -> Option<IpAddr> {
        let client = plain(client);
        let counted = if client.is_ipv6() { first(client, 64) } else { client };
        (!any_contains(&self.0.limits.exempt, client)).then_some(counted)
    }
}

pub(super) fn over(limit: &'static str, taken: Result<(), Duration>, why: &str) -> Result<(), Refusal> {
    taken.map_err(|wait| refusal(limit, u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1), why))
}

fn refusal(limit: &'static str, retry_after_ms: u64, why: &str) -> Refusal {
    metrics::counter!(crate::metrics::LIMITED, "limit" => limit).increment(1);
    Refusal { retry_after_ms: Some(retry_after_ms), ..Refusal::new(Code::RateLimited, why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn an_exempt_address_is_not_counted_and_who_is_not_exempt_leaves_room_to_others() {
        let limiter = AdmissionLimits::new(Limits { connections_per_address: 1, ..Limits::default() });
        let (home, away, other) = (address("127.0.0.1"), address("192.0.2.1"), address("192.0.2.2"));
        assert!((0..5).all(|_| limiter.connects(home).is_ok_and(|p| p.is_none())));
        let waiting: Vec<_> = (0..limits::UNGREETED_PER_ADDRESS).map(|_| limiter.waits(away).unwrap()).collect();
        assert!(
            limiter.waits(away).is_err()
                && limiter.waits(other).is_ok_and(|p| p.is_some())
                && limiter.waits(home).is_ok_and(|p| p.is_none())
        );
        assert!(waiting.len() * 4 <= limits::UNGREETED, "four addresses at least");
        drop(waiting);
        assert!(limiter.waits(away).is_ok());
    }

    #[test]
    fn places_come_back_and_a_network_of_one_customer_is_one() {
        let limiter = AdmissionLimits::new(Limits { connections_per_address: 2, ..Limits::default() });
        let (a, b) = (address("2001:db8:0:1::1"), address("2001:db8:0:1:ffff::2"));
        let places = (limiter.connects(a).unwrap(), limiter.connects(b).unwrap());
        assert!(limiter.connects(a).is_err() && limiter.connects(address("2001:db8:0:2::1")).is_ok());
        drop(places.0);
        assert!(limiter.connects(b).is_ok());
        // As a socket for both sorts shows them.
        let (c, d) = (address("::ffff:192.0.2.1"), address("::ffff:192.0.2.2"));
        let _two = (limiter.connects(c).unwrap(), limiter.connects(c).unwrap());
        assert!(limiter.connects(c).is_err() && limiter.connects(d).is_ok());
    }

    #[test]
    fn what_waits_is_counted_in_bytes() {
        let limiter = AdmissionLimits::new(Limits { bytes_per_address: 1_000, ..Limits::default() });
        let (home, away) = (address("127.0.0.1"), address("192.0.2.1"));
        let held = limiter.holds(away, 900).unwrap();
        assert!(
            limiter.holds(away, 101).is_err()
                && limiter.holds(away, 100).is_ok()
                && limiter.holds(address("192.0.2.2"), 1_000).is_ok()
        );
        drop(held);
        assert!(limiter.holds(away, 1_000).is_ok() && limiter.holds(home, usize::MAX).is_ok_and(|p| p.is_none()));
    }

    #[test]
    fn nothing_is_limited_by_zero() {
        let limiter = AdmissionLimits::new(Limits {
            connections_per_address: 0,
            connects_per_address: 0,
            registers_per_address: 0,
            logins_per_address: 0,
            logins_per_name: 0,
            logins_per_name_anywhere: 0,
            sends_per_user: 0,
            ..Limits::default()
        });
        let (away, user) = (address("192.0.2.1"), UserId::parse("u").unwrap());
        let places: Vec<_> = (0..2_500).map(|_| limiter.connects(away)).collect();
        assert!(
            places.iter().all(Result::is_ok)
                && (0..10_000).all(|_| limiter.logins(away).registers("alice").is_ok() && limiter.sends(&user).is_ok())
        );
    }
}
