//! Keys: JSON Web Key Sets (RFC 7517), and whether one of their keys made a signature (RFC 7518, RFC 8037).
//!
//! What always holds: a key verifies only what its own type, curve and `alg` allow, whatever a token says; `none` and algorithms with shared secrets do
//! not exist here; a key that cannot be used is left out, with a warning.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::verify::Public;

/// More keys of a set than this are left out.
const MOST_KEYS: usize = 100;
/// What trying keys for one token may cost: about as many milliseconds. A callback has 20 of them.
const MOST_COST: usize = 14;
/// What is shorter can be factored.
const SHORTEST_RSA: usize = 2048;
/// What is longer takes too long.
const LONGEST_RSA: usize = 4096;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// By its name in `alg`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    /// What one try costs: about as many milliseconds, measured in the module.
    fn cost(self) -> usize {
        match self {
            Self::Es512 => 14,
            Self::Es384 => 7,
            Self::Es256 => 3,
            _ => 2,
        }
    }
}

/// A set of keys.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

/// The type and curve of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    kind: Kind,
    public: Public,
}

#[derive(Deserialize)]
struct WrittenSet {
    keys: Vec<serde_json::Value>,
}

/// What is read of a key; whatever else is in it is nobody's business here.
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// What became of a look for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Good,
    Bad,
    /// No key of this set can have made it.
    NoKey,
}

impl Keys {
    /// Reads a set.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let set: WrittenSet = serde_json::from_slice(json).map_err(|error| format!("this is no JSON Web Key Set: {error}"))?;
        let mut keys = Vec::new();
        for (at, written) in set.keys.into_iter().enumerate().take(MOST_KEYS) {
            match serde_json::from_value(written).map_err(|error| error.to_string()).and_then(Key::new) {
                Ok(key) => keys.push(key),
                Err(why) => weir_sdk::warn!("keys[{at}] of a JSON Web Key Set is left out: {why}"),
            }
        }
        match keys.is_empty() {
            true => Err("the JSON Web Key Set has no key that can be used".to_owned()),
            false => Ok(Self(keys)),
        }
    }

    /// Whether one of the keys signed the message.
    pub(crate) fn check(&self, algorithm: Algorithm, id: Option<&str>, message: &[u8], signature: &[u8]) -> Check {
        let can = |key: &&Key| {
            key.kind.can(algorithm)
                && key.algorithm.is_none_or(|own| own == algorithm)
                && id.zip(key.id.as_deref()).is_none_or(|(wanted, own)| wanted == own)
        };
        let mut candidates = self.0.iter().filter(can).take(MOST_COST / algorithm.cost()).peekable();
        if candidates.peek().is_none() {
            return Check::NoKey;
        }
        match candidates.any(|key| key.public.verifies(algorithm, message, signature)) {
            true => Check::Good,
            false => Check::Bad,
        }
    }
}

impl Key {
    fn new(written: Written) -> Result<Self, String> {
        if written.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("it is not for signatures".to_owned());
        }
        let bytes = |name: &str, text: &Option<String>| {
            let text = text.as_deref().ok_or_else(|| format!("{name} is missing"))?;
            URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| format!("{name}: {error}"))
        };
        let point = |width: usize| {
            let (x, y) = (bytes("x", &written.x)?, bytes("y", &written.y)?);
            match x.len() == width && y.len() == width {
                true => Ok([&[4], &x[..], &y].concat()),
                false => Err(format!("x and y must have {width} bytes")),
            }
        };
        let (kind, public) = match (written.kty.as_str(), written.crv.as_deref()) {
            ("RSA", None) => {
                let (modulus, exponent) = (bytes("n", &written.n)?, bytes("e", &written.e)?);
                check_rsa(&modulus, &exponent)?;
                (Kind::Rsa, Public::rsa(&modulus, &exponent)?)
            }
            ("EC", Some("P-256")) => (Kind::P256, Public::p256(&point(32)?)?),
            ("EC", Some("P-384")) => (Kind::P384, Public::p384(&point(48)?)?),
            ("EC", Some("P-521")) => (Kind::P521, Public::p521(&point(66)?)?),
            ("OKP", Some("Ed25519")) => {
                let x: [u8; 32] = bytes("x", &written.x)?.try_into().map_err(|_| "x must have 32 bytes".to_owned())?;
                (Kind::Ed25519, Public::ed25519(&x)?)
            }
            (kty, crv) => return Err(format!("kty {kty:?} with crv {crv:?} is not supported")),
        };
        let algorithm = match written.alg.as_deref() {
            None => None,
            Some(name) => {
                let known = Algorithm::named(name).filter(|algorithm| kind.can(*algorithm));
                Some(known.ok_or_else(|| format!("alg {name:?} is not one of its type"))?)
            }
        };
        Ok(Self { id: written.kid, algorithm, kind, public })
    }
}

/// An RSA key that is neither weak nor slow.
fn check_rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), String> {
    let digits = modulus.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &modulus[at..]);
    let bits = digits.len() * 8 - digits.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(SHORTEST_RSA..=LONGEST_RSA).contains(&bits) {
        return Err(format!("RSA keys have {SHORTEST_RSA} to {LONGEST_RSA} bits, not {bits}"));
    }
    // 3 and 65537 are in use; a long one would take long.
    let is_odd = exponent.last().is_some_and(|last| last & 1 == 1);
    if exponent.len() > 4 || !is_odd || exponent == [1] {
        return Err("its exponent is none of an RSA key".to_owned());
    }
    Ok(())
}

impl Kind {
    /// Whether keys of this type and curve sign by this algorithm.
    fn can(self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Es512};
        match self {
            Self::Rsa => !matches!(algorithm, Es256 | Es384 | Es512 | EdDsa),
            Self::P256 => algorithm == Es256,
            Self::P384 => algorithm == Es384,
            Self::P521 => algorithm == Es512,
            Self::Ed25519 => algorithm == EdDsa,
        }
    }
}
