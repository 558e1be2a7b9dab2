//! By RustCrypto: Rust alone, so that it compiles for wasm32 and asks nothing of the host.

use p256::ecdsa::signature::Verifier as _;
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::pss::Pss;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::key::Algorithm;

/// A public key.
pub(crate) enum Public {
    Rsa(Box<RsaPublicKey>),
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
    P521(Box<p521::ecdsa::VerifyingKey>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl std::fmt::Debug for Public {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Public")
    }
}

fn bad<E>(_: E) -> String {
    "it is no point of its curve".to_owned()
}

impl Public {
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent));
        key.map(|key| Self::Rsa(Box::new(key))).map_err(|error| error.to_string())
    }

    pub(crate) fn p256(point: &[u8]) -> Result<Self, String> {
        p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map(|key| Self::P256(Box::new(key))).map_err(bad)
    }

    pub(crate) fn p384(point: &[u8]) -> Result<Self, String> {
        p384::ecdsa::VerifyingKey::from_sec1_bytes(point).map(|key| Self::P384(Box::new(key))).map_err(bad)
    }

    pub(crate) fn p521(point: &[u8]) -> Result<Self, String> {
        p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map(|key| Self::P521(Box::new(key))).map_err(bad)
    }

    pub(crate) fn ed25519(x: &[u8; 32]) -> Result<Self, String> {
        ed25519_dalek::VerifyingKey::from_bytes(x).map(|key| Self::Ed25519(Box::new(key))).map_err(bad)
    }

    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa(key) => is_rsa(key, algorithm, message, signature),
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::P384(key) => p384::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::P521(key) => p521::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            // Strict: a key of small order signs anything.
            Self::Ed25519(key) => {
                ed25519_dalek::Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
            }
        }
    }
}

fn is_rsa(key: &RsaPublicKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    // Of another length it is another signature.
    if signature.len() != key.size() {
        return false;
    }
    let verified = match algorithm {
        Algorithm::Rs256 => key.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message), signature),
        Algorithm::Rs384 => key.verify(Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(message), signature),
        Algorithm::Rs512 => key.verify(Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(message), signature),
        Algorithm::Ps256 => key.verify(Pss::new::<Sha256>(), &Sha256::digest(message), signature),
        Algorithm::Ps384 => key.verify(Pss::new::<Sha384>(), &Sha384::digest(message), signature),
        Algorithm::Ps512 => key.verify(Pss::new::<Sha512>(), &Sha512::digest(message), signature),
        _ => return false,
    };
    verified.is_ok()
}
