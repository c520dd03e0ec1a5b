//! Networks as they stand in a configuration, `10.0.0.0/8`, and who is in them. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Network {
    /// Its first address.
    base: IpAddr,
    bits: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8 or fd00::/8")]
pub struct BadNetwork(String);

/// A socket that takes IPv6 shows an IPv4 peer as `::ffff:a.b.c.d`.
pub fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The first address of the /`bits` that this one is in.
pub fn first(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            IpAddr::V4((a.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)).into())
        }
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(
            a.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0),
        )),
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = plain(address);
        address.is_ipv4() == self.base.is_ipv4() && first(address, self.bits) == self.base
    }
}

/// Of this machine, or of a network that is nobody's on the internet: loopback, private, carrier-grade NAT, link-local.
pub fn is_near(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(a) => {
            let [first, second, ..] = a.octets();
            a.is_loopback() || a.is_private() || a.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unique_local() || a.is_unicast_link_local(),
    }
}

pub fn any_contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|n| n.contains(address))
}

impl FromStr for Network {
    type Err = BadNetwork;

    /// An address alone is a network of one.
    fn from_str(s: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(s.to_owned());
        let (address, bits) = s.split_once('/').map_or((s, None), |(a, b)| (a, Some(b)));
        let base: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |b| b.parse().map_err(|_| bad()))?;
        // A base with bits behind the slash is a typing error more often than not.
        (bits <= most && first(base, bits) == base).then_some(Self { base, bits }).ok_or_else(bad)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl From<Network> for String {
    fn from(n: Network) -> Self {
        n.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;

    fn try_from(s: String) -> Result<Self, BadNetwork> {
        s.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn near_is_what_the_internet_has_not() {
        let near = |s: &str| is_near(s.parse().unwrap());
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
        ] {
            assert!(near(address) && near(&format!("::ffff:{address}")), "{address}");
        }
        assert!(near("::1") && near("fd00::1") && near("fe80::1"));
        for address in
            ["203.0.113.9", "172.32.0.1", "100.128.0.1", "100.63.0.1", "8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8"]
        {
            assert!(!near(address), "{address}");
        }
    }

    #[test]
    fn who_is_in_a_network() {
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe00::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"), "as a socket for both shows it");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in ["", "10", "10.0.0.0/33", "10.0.0.1/8", "::/129", "a/b", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
    }
}
