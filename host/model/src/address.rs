//! Addresses and ranges as configurations write them.
//!
//! Always: what was parsed prints as text that parses to the same. A range holds no host bits, and an IPv4 address that came in
//! an IPv6 coat is the IPv4 address.
//!
//! Deliberately not here: looking names up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// What a Unix socket's path may hold on Linux, without the NUL at its end.
const MAX_UNIX_PATH: usize = 107;

/// Where to listen, or whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A Unix socket. `@name` is in the abstract name space.
    Unix(PathBuf),
    /// A name that DNS knows, and a port.
    Name {
        /// Lower case, without a final dot.
        host: String,
        /// Never 0.
        port: u16,
    },
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing.
    #[error("an address is missing")]
    Empty,
    /// No `:port` at the end.
    #[error("the port is missing")]
    NoPort,
    /// Not a number up to 65,535.
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    /// `:8080`.
    #[error("the host before the port is missing")]
    NoHost,
    /// `::1:80`.
    #[error("an IPv6 address needs brackets around it")]
    NoBrackets,
    /// Neither an IP address nor a name.
    #[error("the host is neither an IP address nor a name")]
    BadHost,
    /// Empty, too long, or with a NUL.
    #[error("a Unix socket's path has 1 to {MAX_UNIX_PATH} bytes, none of them NUL")]
    BadPath,
}

impl AddressError {
    /// What to write instead.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Empty => "write `HOST:PORT` or `unix:/PATH`",
            Self::NoPort => "add one: `10.0.0.1:8080`, `[::1]:8080`",
            Self::BadPort => "write a number from 1 to 65535",
            Self::NoHost => "write `0.0.0.0:PORT` or `[::]:PORT` for every address of the machine, `127.0.0.1:PORT` for itself alone",
            Self::NoBrackets => "write `[::1]:8080`",
            Self::BadHost => "write `10.0.0.1:8080`, `[::1]:8080` or `unix:/path`",
            Self::BadPath => "choose a shorter path",
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = (1..=MAX_UNIX_PATH).contains(&path.len()) && !path.contains('\0');
            return if fits { Ok(Self::Unix(path.into())) } else { Err(AddressError::BadPath) };
        }
        if let Ok(socket) = text.parse() {
            return Ok(Self::Socket(socket));
        }
        if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || (text.starts_with('[') && text.ends_with(']')) {
            return Err(AddressError::NoPort);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(AddressError::NoBrackets);
        }
        let port: u16 =
            if port.bytes().all(|byte| byte.is_ascii_digit()) { port.parse() } else { "".parse() }.map_err(|_| AddressError::BadPort)?;
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        if host == "*" || host.parse::<IpAddr>().is_ok() || !is_host_name(host) {
            return Err(AddressError::BadHost);
        }
        if port == 0 {
            return Err(AddressError::BadPort);
        }
        Ok(Self::Name { host: host.trim_end_matches('.').to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Whether DNS could know this name: labels of 1 to 63 letters, digits, `-` and `_`, 253 bytes in all, a final dot allowed, and
/// not all digits at the end, which would be an address gone wrong.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric_end = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !numeric_end
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// What stands before the slash.
    #[error("not an IP address")]
    BadAddress,
    /// What stands after it.
    #[error("the length of the prefix is not a number from 0 to {0}")]
    BadPrefix(u8),
}

impl Cidr {
    /// A range; bits of the address beyond the prefix are dropped, and a prefix that is too long is cut.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self { network: IpAddr::V4((u32::from(v4) & mask).into()), prefix }
            }
            IpAddr::V6(v6) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self { network: IpAddr::V6((u128::from(v6) & mask).into()), prefix }
            }
        }
    }

    /// Its first address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits of addresses it fixes.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(v4)) => (u32::from(network) ^ u32::from(v4)).leading_zeros() >= u32::from(self.prefix),
            (IpAddr::V6(network), IpAddr::V6(v6)) => (u128::from(network) ^ u128::from(v6)).leading_zeros() >= u32::from(self.prefix),
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let written: IpAddr = address.parse().map_err(|_| CidrError::BadAddress)?;
        let address = written.to_canonical();
        // A prefix of `::ffff:10.0.0.0/104` counts the bits of the coat.
        let coat = if address.is_ipv4() && written.is_ipv6() { 96 } else { 0 };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let Some(prefix) = prefix else { return Ok(Self::new(address, most)) };
        let digits = (1..=3).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let length = if digits { prefix.parse::<u8>().ok() } else { None };
        let length = length.and_then(|length| length.checked_sub(coat)).filter(|length| *length <= most);
        length.map(|length| Self::new(address, length)).ok_or(CidrError::BadPrefix(most + coat))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Result<Address, AddressError> {
        text.parse()
    }

    #[test]
    fn addresses() {
        assert_eq!(address("127.0.0.1:0"), Ok(Address::Socket(([127, 0, 0, 1], 0).into())));
        assert_eq!(address("[::1]:80").unwrap().to_string(), "[::1]:80");
        assert_eq!(address("unix:/run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!(address("Example.com.:80"), Ok(Address::Name { host: "example.com".into(), port: 80 }));
        for (text, error) in [
            ("", AddressError::Empty),
            ("10.0.0.1", AddressError::NoPort),
            ("example.com", AddressError::NoPort),
            ("[::1]", AddressError::NoPort),
            ("::1:80", AddressError::NoBrackets),
            (":80", AddressError::NoHost),
            ("10.0.0.1:65536", AddressError::BadPort),
            ("a.b:+80", AddressError::BadPort),
            ("a.b:", AddressError::BadPort),
            ("a.b:0", AddressError::BadPort),
            ("*:80", AddressError::BadHost),
            ("10.0.0.256:80", AddressError::BadHost),
            ("a b:80", AddressError::BadHost),
            ("a..b:80", AddressError::BadHost),
            ("unix:", AddressError::BadPath),
        ] {
            assert_eq!(address(text), Err(error), "{text}");
        }
        assert_eq!(address(&format!("unix:/{}", "a".repeat(107))), Err(AddressError::BadPath));
    }

    #[test]
    fn ranges() {
        let range = |text: &str| text.parse::<Cidr>();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let ten = range("10.1.2.3/8").unwrap();
        assert_eq!(ten.to_string(), "10.0.0.0/8");
        assert!(ten.contains(ip("10.255.0.1")) && ten.contains(ip("::ffff:10.0.0.1")));
        assert!(!ten.contains(ip("11.0.0.1")) && !ten.contains(ip("::1")));
        assert!(range("0.0.0.0/0").unwrap().contains(ip("1.2.3.4")));
        assert!(range("::/0").unwrap().contains(ip("::1")));
        assert_eq!(range("10.0.0.1").unwrap().prefix(), 32);
        assert_eq!(range("::ffff:10.0.0.0/104"), range("10.0.0.0/8"));
        for text in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::1/129", "10.0.0.0/0008", "::ffff:10.0.0.0/8"] {
            assert!(matches!(range(text), Err(CidrError::BadPrefix(_))), "{text}");
        }
        assert_eq!(range("10.0.0/8"), Err(CidrError::BadAddress));
    }

    proptest! {
        #[test]
        fn a_printed_address_reads_the_same(text in "[a-z0-9.:\\[\\]*_-]{0,30}|unix:[a-z/@]{1,20}") {
            if let Ok(parsed) = address(&text) {
                prop_assert_eq!(address(&parsed.to_string()), Ok(parsed));
            }
        }

        #[test]
        fn a_range_contains_what_shares_its_prefix(bits: u32, other: u32, prefix in 0u8..=32) {
            let range = Cidr::new(IpAddr::V4(bits.into()), prefix);
            let same = bits.checked_shr(32 - u32::from(prefix)) == other.checked_shr(32 - u32::from(prefix)) || prefix == 0;
            prop_assert_eq!(range.contains(IpAddr::V4(other.into())), same);
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
