//! Ranges of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
//!
//! An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) is the IPv4 address, in ranges and in what is looked up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses, its host bits cleared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

/// Why text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address range; write it as 10.0.0.0/8 or fd00::/8")]
pub struct InvalidCidr(pub String);

impl Cidr {
    /// The range of `length` leading bits of `address`; `None` when the address has fewer.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (address, length) = match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() && length >= 96 => (address.to_canonical(), length - 96),
            other => (other, length),
        };
        (length <= width(address)).then(|| Self { network: mask(address, length), length })
    }

    /// How many leading bits count.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// The first address.
    #[must_use]
    pub fn network(self) -> IpAddr {
        self.network
    }

    /// Whether the address is inside.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && mask(address, self.length) == self.network
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all but its `length` leading bits cleared.
#[must_use]
pub fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(length))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & keep).into())
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(length))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & keep))
        }
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let length = match length {
            // `parse` would take a sign.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| invalid())?,
            Some(_) => return Err(invalid()),
            None => width(address),
        };
        Self::new(address, length).ok_or_else(invalid)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether any of the ranges has the address.
#[must_use]
pub fn any_contains(ranges: &[Cidr], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_parse_and_contain() {
        let range: Cidr = "10.1.2.3/8".parse().unwrap();
        assert_eq!(range.to_string(), "10.0.0.0/8");
        assert!(range.contains("10.255.0.1".parse().unwrap()));
        assert!(range.contains("::ffff:10.9.9.9".parse().unwrap()), "an IPv4 address in IPv6 clothes is the IPv4 address");
        assert!(!range.contains("11.0.0.1".parse().unwrap()));
        assert!(!range.contains("a00::".parse().unwrap()));
        assert_eq!("::1".parse::<Cidr>().unwrap().length(), 128);
        assert_eq!("::ffff:10.0.0.0/104".parse::<Cidr>().unwrap().to_string(), "10.0.0.0/8");
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("255.255.255.255".parse().unwrap()));
        assert!("::/0".parse::<Cidr>().unwrap().contains("ff::".parse().unwrap()));
        assert!(!"::/0".parse::<Cidr>().unwrap().contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "fd00::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "a.example",
            "1.2.3.4/-1",
            " 10.0.0.0/8",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?} was taken");
        }
    }
}
