//! By aws-lc-rs, which the host is built with anyway.

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};

use crate::key::Algorithm;

/// A public key.
#[derive(Debug)]
pub(crate) enum Public {
    /// Modulus and exponent, without zeros in front.
    Rsa(Vec<u8>, Vec<u8>),
    Curve(Box<ParsedPublicKey>),
}

fn trimmed(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn curve(algorithm: &'static dyn VerificationAlgorithm, point: &[u8]) -> Result<Public, String> {
    ParsedPublicKey::new(algorithm, point).map(|key| Public::Curve(Box::new(key))).map_err(|_| "it is no point of its curve".to_owned())
}

impl Public {
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        Ok(Self::Rsa(trimmed(modulus), trimmed(exponent)))
    }

    pub(crate) fn p256(point: &[u8]) -> Result<Self, String> {
        curve(&signature::ECDSA_P256_SHA256_FIXED, point)
    }

    pub(crate) fn p384(point: &[u8]) -> Result<Self, String> {
        curve(&signature::ECDSA_P384_SHA384_FIXED, point)
    }

    pub(crate) fn p521(point: &[u8]) -> Result<Self, String> {
        curve(&signature::ECDSA_P521_SHA512_FIXED, point)
    }

    pub(crate) fn ed25519(x: &[u8; 32]) -> Result<Self, String> {
        curve(&signature::ED25519, x)
    }

    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signed: &[u8]) -> bool {
        let (modulus, exponent) = match self {
            Self::Curve(key) => return key.verify_sig(message, signed).is_ok(),
            Self::Rsa(modulus, exponent) => (modulus, exponent),
        };
        let parameters: &'static RsaParameters = match algorithm {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return false,
        };
        RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signed).is_ok()
    }
}
