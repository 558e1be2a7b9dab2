//! Keys as cosign has them: ECDSA on P-256; the private one in a PEM of its own, encrypted with a password by scrypt and NaCl's secretbox; the public one as
//! PEM of an SPKI.
//!
//! Always: a password is needed, though it may be empty, as for cosign; what is read is bounded in what it makes scrypt cost. What it does not do: other
//! curves, RSA, keys in hardware or in a KMS, keyless signatures.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use serde::{Deserialize, Serialize};

const PRIVATE: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// What older versions of cosign wrote.
const PRIVATE_OLD: &str = "ENCRYPTED COSIGN PRIVATE KEY";
const PLAIN: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// An SPKI of a point on P-256 is this, and the point.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

fn bad(why: impl Into<String>) -> KeyError {
    KeyError(why.into())
}

/// A private key.
pub struct Key {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What is within the PEM.
#[derive(Serialize, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let failed = |_| bad("the system has no randomness");
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).map_err(failed)?;
        Self::of_pkcs8(document.as_ref())
    }

    fn of_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der);
        let pair = pair.map_err(|error| bad(format!("the key is none of ECDSA on P-256: {error}")))?;
        Ok(Self { pair, pkcs8: der.to_vec() })
    }

    /// Reads what [`Key::to_pem`] or cosign wrote, or PKCS#8 without a password.
    ///
    /// # Errors
    /// When it is none, or the password is another.
    pub fn from_pem(text: &str, password: &[u8]) -> Result<Self, KeyError> {
        let (label, bytes) = pem(text)?;
        match label {
            PLAIN => Self::of_pkcs8(&bytes),
            PRIVATE | PRIVATE_OLD => Self::of_pkcs8(&open(&bytes, password)?),
            "EC PRIVATE KEY" => Err(bad("the key is in SEC 1 form; make it PKCS#8: openssl pkcs8 -topk8 -nocrypt -in KEY")),
            "ENCRYPTED PRIVATE KEY" => Err(bad("the key is encrypted as PKCS#8 has it; import it: cosign import-key-pair --key KEY")),
            other => Err(bad(format!("the file holds {other:?}, not a private key"))),
        }
    }

    /// The key as cosign reads it.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn to_pem(&self, password: &[u8]) -> Result<String, KeyError> {
        let random = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).map_err(|_| bad("the system has no randomness"));
        let (mut salt, mut nonce) = ([0; 32], [0; 24]);
        random(&mut salt)?;
        random(&mut nonce)?;
        let params = Params { n: 1 << 16, r: 8, p: 1 };
        let cipher = cipher(password, &salt, &params)?;
        let ciphertext = cipher.encrypt(&nonce.into(), &self.pkcs8[..]).map_err(|_| bad("the key cannot be encrypted"))?;
        let sealed = Sealed {
            kdf: Kdf { name: "scrypt".into(), params, salt: STANDARD.encode(salt) },
            cipher: Cipher { name: "nacl/secretbox".into(), nonce: STANDARD.encode(nonce) },
            ciphertext: STANDARD.encode(ciphertext),
        };
        let sealed = serde_json::to_vec(&sealed).map_err(|error| bad(error.to_string()))?;
        Ok(to_pem(PRIVATE, &sealed))
    }

    /// The public one.
    ///
    /// # Errors
    /// Never for a key that was made or read here.
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().map_err(|_| bad("the key has no public one"))?;
        PublicKey::of_spki(der.as_ref())
    }

    /// Signs a message: an ASN.1 signature over its SHA-256.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| bad("the key does not sign"))?;
        Ok(signature.as_ref().to_vec())
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    point: Vec<u8>,
}

impl PublicKey {
    fn of_spki(der: &[u8]) -> Result<Self, KeyError> {
        match der.strip_prefix(&SPKI[..]) {
            Some(point) if point.len() == 65 && point[0] == 4 => Ok(Self { point: point.to_vec() }),
            _ => Err(bad("the public key is none of ECDSA on P-256")),
        }
    }

    /// Reads the PEM that cosign and openssl write.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        match pem(text)? {
            (PUBLIC, der) => Self::of_spki(&der),
            (PRIVATE | PRIVATE_OLD | PLAIN, _) => Err(bad("the file holds a private key; the public one lies beside it, as .pub")),
            (other, _) => Err(bad(format!("the file holds {other:?}, not a public key"))),
        }
    }

    /// The key as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        to_pem(PUBLIC, &[&SPKI[..], &self.point].concat())
    }

    /// Whether the signature is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(message, signature).is_ok()
    }
}

fn cipher(password: &[u8], salt: &[u8], params: &Params) -> Result<XSalsa20Poly1305, KeyError> {
    // 128 · N · r bytes, N · r · p steps: what cosign writes, and twice as much, is enough.
    if !params.n.is_power_of_two() || params.n < 2 || u64::from(params.n) * u64::from(params.r) > 1 << 20 || params.p > 4 {
        return Err(bad("the key's scrypt parameters are out of bounds"));
    }
    let log_n = u8::try_from(params.n.trailing_zeros()).unwrap_or(u8::MAX);
    let params = scrypt::Params::new(log_n, params.r, params.p, 32).map_err(|error| bad(error.to_string()))?;
    let mut key = [0; 32];
    scrypt::scrypt(password, salt, &params, &mut key).map_err(|error| bad(error.to_string()))?;
    Ok(XSalsa20Poly1305::new(&key.into()))
}

fn open(sealed: &[u8], password: &[u8]) -> Result<Vec<u8>, KeyError> {
    let sealed: Sealed = serde_json::from_slice(sealed).map_err(|error| bad(format!("the encrypted key is damaged: {error}")))?;
    if sealed.kdf.name != "scrypt" || sealed.cipher.name != "nacl/secretbox" {
        return Err(bad(format!(
            "the key is encrypted with {:?} and {:?}, which cosign does not write",
            sealed.kdf.name, sealed.cipher.name
        )));
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| bad("the encrypted key is damaged: no base64"));
    let nonce: [u8; 24] = decode(&sealed.cipher.nonce)?.try_into().map_err(|_| bad("the encrypted key is damaged: its nonce"))?;
    let cipher = cipher(password, &decode(&sealed.kdf.salt)?, &sealed.kdf.params)?;
    cipher.decrypt(&nonce.into(), &decode(&sealed.ciphertext)?[..]).map_err(|_| bad("the password is not the key's (COSIGN_PASSWORD)"))
}

/// Label and bytes of the first block.
fn pem(text: &str) -> Result<(&str, Vec<u8>), KeyError> {
    let none = || bad("the file is no PEM");
    let (_, rest) = text.split_once("-----BEGIN ").ok_or_else(none)?;
    let (label, rest) = rest.split_once("-----").ok_or_else(none)?;
    let (body, _) = rest.split_once("-----END ").ok_or_else(none)?;
    let body: String = body.split_whitespace().collect();
    Ok((label, STANDARD.decode(body).map_err(|_| none())?))
}

fn to_pem(label: &str, bytes: &[u8]) -> String {
    let encoded = STANDARD.encode(bytes);
    let lines: Vec<&str> = encoded.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn a_key_survives_its_file_and_its_password_guards_it() {
        let key = Key::generate().unwrap();
        let text = key.to_pem(b"secret").unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
        assert!(Key::from_pem(&text, b"other").unwrap_err().to_string().contains("COSIGN_PASSWORD"));
        let again = Key::from_pem(&text, b"secret").unwrap();
        let public = PublicKey::from_pem(&key.public().unwrap().to_pem()).unwrap();
        let signature = again.sign(b"message").unwrap();
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"massage", &signature));
        assert!(!Key::generate().unwrap().public().unwrap().verifies(b"message", &signature));
    }

    #[test]
    fn files_that_hold_something_else_say_so() {
        let key = Key::generate().unwrap();
        let public = key.public().unwrap().to_pem();
        assert!(Key::from_pem(&public, b"").unwrap_err().to_string().contains("not a private key"));
        assert!(PublicKey::from_pem(&key.to_pem(b"").unwrap()).unwrap_err().to_string().contains(".pub"));
        for text in ["", "-----BEGIN X-----", "-----BEGIN X-----\n!\n-----END X-----", "hello"] {
            assert!(Key::from_pem(text, b"").is_err() && PublicKey::from_pem(text).is_err(), "{text}");
        }
        let costly = r#"{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":""},"cipher":{"name":"nacl/secretbox","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"ciphertext":""}"#;
        assert!(Key::from_pem(&to_pem(PRIVATE, costly.as_bytes()), b"").unwrap_err().to_string().contains("out of bounds"));
    }

    #[test]
    fn a_key_without_a_password_is_read() {
        let key = Key::generate().unwrap();
        let text = to_pem(PLAIN, &key.pkcs8);
        assert_eq!(Key::from_pem(&text, b"ignored").unwrap().public().unwrap(), key.public().unwrap());
    }
}
