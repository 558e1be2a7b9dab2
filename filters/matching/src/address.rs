//! Addresses and ranges of them.

use std::net::{IpAddr, SocketAddr};

use weir_sdk::schema::{Node, Schema};
use weir_sdk::serde::de::{Deserialize, Deserializer, Error};

/// An address, or a range of them in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    network: u128,
    mask: u128,
    is_v6: bool,
}

/// Addresses and ranges, any of which may hold an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cidrs(pub Vec<Address>);

fn bits(address: IpAddr) -> (u128, bool) {
    // An IPv4 client of a socket for both is not another client.
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, false),
        IpAddr::V6(v6) => (v6.to_bits(), true),
    }
}

impl Address {
    /// Reads `10.0.0.0/8`, `10.1.2.3` or their like of IPv6.
    ///
    /// # Errors
    /// Says what is wrong, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is neither an IP address nor a CIDR range"))?;
        let (network, is_v6) = bits(address);
        let most = if is_v6 { 128 } else { 32 };
        let prefix = match prefix {
            None => most,
            Some(digits) => digits
                .parse::<u32>()
                .ok()
                .filter(|prefix| *prefix <= most)
                .ok_or_else(|| format!("{text:?} has no prefix of 0 to {most}"))?,
        };
        let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - prefix) };
        Ok(Self { network: network & mask, mask, is_v6 })
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, is_v6) = bits(address);
        is_v6 == self.is_v6 && bits & self.mask == self.network
    }
}

impl Cidrs {
    /// Whether an address lies in any of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }
}

/// The IP address of what the ABI calls an address: with a port, or without.
#[must_use]
pub fn address_of(text: &str) -> Option<IpAddr> {
    text.parse::<SocketAddr>().map(|socket| socket.ip()).or_else(|_| text.parse()).ok()
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Cidrs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl Schema for Address {
    const NODE: Node = Node::Text;
}

impl Schema for Cidrs {
    const NODE: Node = Node::List(&Node::Text);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn ranges_hold_what_their_prefix_says() {
        for (range, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "192.0.2.1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ] {
            assert_eq!(Address::parse(range).unwrap().contains(address.parse().unwrap()), holds, "{range} {address}");
        }
        for wrong in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0.0/-1", "example.org"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_may_carry_a_port() {
        for (text, address) in [("192.0.2.1:80", "192.0.2.1"), ("[::1]:80", "::1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1")] {
            assert_eq!(address_of(text), address.parse().ok());
        }
        assert_eq!(address_of("/run/app.sock"), None);
    }
}
