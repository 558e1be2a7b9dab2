//! Makes keys, key sets and tokens, by another library than the filter's own.

#![allow(dead_code, reason = "each test uses a part")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key that signs.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str, usize),
    Ed(Ed25519KeyPair),
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn ec(curve: &'static str) -> Self {
        let (algorithm, width) = match curve {
            "P-256" => (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, 32),
            "P-384" => (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, 48),
            _ => (&signature::ECDSA_P521_SHA512_FIXED_SIGNING, 66),
        };
        Self::Ec(EcdsaKeyPair::generate(algorithm).unwrap(), curve, width)
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    /// The public key.
    pub(crate) fn jwk(&self, more: &Value) -> Value {
        let mut jwk = match self {
            Self::Rsa(key) => {
                // DER of 2048 bits: two headers of four bytes, a zero, the modulus; the exponent's header, and its three bytes.
                let der = key.public_key().as_ref();
                json!({ "kty": "RSA", "n": base64url(&der[9..265]), "e": base64url(&der[der.len() - 3..]) })
            }
            Self::Ec(key, curve, width) => {
                let point = key.public_key().as_ref();
                json!({ "kty": "EC", "crv": curve, "x": base64url(&point[1..=*width]), "y": base64url(&point[1 + width..]) })
            }
            Self::Ed(key) => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().as_ref()) }),
        };
        let more = more.as_object().unwrap().clone();
        jwk.as_object_mut().unwrap().extend(more);
        jwk
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut signed = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signed).unwrap();
                signed
            }
            Self::Ec(key, ..) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let signed = self.sign(header["alg"].as_str().unwrap(), message.as_bytes());
        format!("{message}.{}", base64url(signed))
    }
}

/// A key set as text.
pub(crate) fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
