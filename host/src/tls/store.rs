//! Secrets, read and checked: keys with their certificates, and roots of trust.
//!
//! A [`SecretStore`] is an immutable value. It is built from the configuration and a way to read files, all of it or nothing; a mistake names the
//! secret and the field. Nothing here, errors and debug output included, repeats a byte of a private key.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use weir_model::config::data_source::Source;
use weir_model::config::secret::Kind;
use weir_model::config::{DataSource, KeyPair, Secret, TrustRoots};

use super::peer::CertificateFacts;
use super::provider;

/// What is wrong with a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret `{secret}`: {field}: {problem}")]
pub struct SecretError {
    /// Its name.
    pub secret: String,
    /// Path below it, for example `keyPair.privateKey`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
}

/// How the bytes behind a file name are had; relative names are the caller's to resolve.
pub type ReadFile<'a> = dyn Fn(&str) -> io::Result<Vec<u8>> + 'a;

/// A key with its certificates, ready to be used.
pub struct KeyEntry {
    /// Name of the secret.
    pub name: Box<str>,
    /// What handshakes use.
    pub key: Arc<CertifiedKey>,
    /// Facts of each certificate, the key's own first.
    pub chain: Vec<CertificateFacts>,
}

impl KeyEntry {
    /// Facts of the key's own certificate.
    #[must_use]
    pub fn leaf(&self) -> Option<&CertificateFacts> {
        self.chain.first()
    }
}

impl std::fmt::Debug for KeyEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyEntry").field("name", &self.name).field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// Roots of trust with their revocation lists.
#[derive(Debug)]
pub struct RootsEntry {
    /// Name of the secret.
    pub name: Box<str>,
    /// What verifiers use.
    pub roots: Arc<RootCertStore>,
    /// Revocation lists, checked to be readable.
    pub revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    /// Facts of each root; of those that can be read.
    pub facts: Vec<CertificateFacts>,
    /// Changes whenever what is trusted changes.
    pub digest: [u8; 32],
}

/// All secrets of a snapshot, by name.
#[derive(Debug, Default)]
pub struct SecretStore {
    keys: BTreeMap<Box<str>, Arc<KeyEntry>>,
    roots: BTreeMap<Box<str>, Arc<RootsEntry>>,
}

impl SecretStore {
    /// Reads every secret.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    pub fn build(secrets: &[Secret], read: &ReadFile<'_>) -> Result<Self, Vec<SecretError>> {
        let mut store = Self::default();
        let mut errors = Vec::new();
        for secret in secrets {
            let outcome = match &secret.kind {
                Some(Kind::KeyPair(pair)) => read_key_pair(&secret.name, pair, read).map(|entry| {
                    store.keys.insert(secret.name.as_str().into(), Arc::new(entry));
                }),
                Some(Kind::TrustRoots(roots)) => read_roots(&secret.name, roots, read).map(|entry| {
                    store.roots.insert(secret.name.as_str().into(), Arc::new(entry));
                }),
                None => Err(("".into(), "needs keyPair or trustRoots".into())),
            };
            if let Err((field, problem)) = outcome {
                errors.push(SecretError { secret: secret.name.clone(), field, problem });
            }
        }
        if errors.is_empty() { Ok(store) } else { Err(errors) }
    }

    /// A key by the name of its secret.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&Arc<KeyEntry>> {
        self.keys.get(name)
    }

    /// Roots of trust by the name of their secret.
    #[must_use]
    pub fn roots(&self, name: &str) -> Option<&Arc<RootsEntry>> {
        self.roots.get(name)
    }

    /// All keys, by name.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<KeyEntry>> {
        self.keys.values()
    }

    /// All roots of trust, by name.
    pub fn all_roots(&self) -> impl Iterator<Item = &Arc<RootsEntry>> {
        self.roots.values()
    }
}

/// The field and what is wrong with it.
type Problem = (String, String);

fn problem(field: &str, what: impl Into<String>) -> Problem {
    (field.to_owned(), what.into())
}

/// The bytes of a source; `None` where it is absent.
fn bytes(source: Option<&DataSource>, field: &str, read: &ReadFile<'_>) -> Result<Option<Vec<u8>>, Problem> {
    match source.and_then(|source| source.source.as_ref()) {
        None => Ok(None),
        Some(Source::Inline(text)) => Ok(Some(text.as_bytes().to_vec())),
        Some(Source::InlineBytes(bytes)) => Ok(Some(bytes.to_vec())),
        Some(Source::File(path)) => read(path).map(Some).map_err(|error| problem(field, format!("cannot read {path}: {error}"))),
    }
}

fn certificates(source: Option<&DataSource>, field: &str, read: &ReadFile<'_>) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let pem = bytes(source, field, read)?.ok_or_else(|| problem(field, "is missing"))?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let list = parsed.map_err(|_| problem(field, "is no PEM, or broken"))?;
    if list.is_empty() { Err(problem(field, "has no certificate (PEM, `BEGIN CERTIFICATE`)")) } else { Ok(list) }
}

fn read_key_pair(name: &str, pair: &KeyPair, read: &ReadFile<'_>) -> Result<KeyEntry, Problem> {
    const CHAIN: &str = "keyPair.certificateChain";
    const KEY: &str = "keyPair.privateKey";
    let list = certificates(pair.certificate_chain.as_ref(), CHAIN, read)?;
    let mut chain = Vec::with_capacity(list.len());
    for (i, der) in list.iter().enumerate() {
        chain.push(CertificateFacts::read(der).map_err(|error| problem(CHAIN, format!("certificate {}: {error}", i + 1)))?);
    }
    let pem = bytes(pair.private_key.as_ref(), KEY, read)?.ok_or_else(|| problem(KEY, "is missing"))?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| problem(KEY, "has no private key (PEM; PKCS#8, PKCS#1 or SEC1, not encrypted)"))?;
    let mut certified = CertifiedKey::from_der(list, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => problem(KEY, "is not the key of the first certificate"),
        _ => problem(KEY, "is of a kind that is not supported; use ECDSA P-256 or P-384, Ed25519, or RSA of 2,048 bits and more"),
    })?;
    certified.ocsp = bytes(pair.ocsp.as_ref(), "keyPair.ocsp", read)?.filter(|ocsp| !ocsp.is_empty());
    Ok(KeyEntry { name: name.into(), key: Arc::new(certified), chain })
}

fn read_roots(name: &str, of: &TrustRoots, read: &ReadFile<'_>) -> Result<RootsEntry, Problem> {
    const CERTIFICATES: &str = "trustRoots.certificates";
    const LISTS: &str = "trustRoots.revocationLists";
    let list = certificates(of.certificates.as_ref(), CERTIFICATES, read)?;
    let mut roots = RootCertStore::empty();
    let mut hash = Sha256::new();
    for (i, der) in list.iter().enumerate() {
        hash.update(Sha256::digest(der));
        roots.add(der.clone()).map_err(|_| problem(CERTIFICATES, format!("certificate {} cannot be read", i + 1)))?;
    }
    let pem = bytes(of.revocation_lists.as_ref(), LISTS, read)?.unwrap_or_default();
    let parsed: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let revocation_lists = parsed.map_err(|_| problem(LISTS, "is no PEM, or broken"))?;
    if revocation_lists.is_empty() && !pem.iter().all(u8::is_ascii_whitespace) {
        return Err(problem(LISTS, "has no list (PEM, `BEGIN X509 CRL`)"));
    }
    hash.update(b"revoked");
    for crl in &revocation_lists {
        hash.update(Sha256::digest(crl));
    }
    let roots = Arc::new(roots);
    // Builds a verifier once, because that is what reads the lists.
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
    verifier.with_crls(revocation_lists.clone()).build().map_err(|_| problem(LISTS, "has a list that cannot be read"))?;
    let facts = list.iter().filter_map(|der| CertificateFacts::read(der).ok()).collect();
    Ok(RootsEntry { name: name.into(), roots, revocation_lists, facts, digest: hash.finalize().into() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, inline, key_secret, roots_secret};
    use super::*;

    fn no_files(path: &str) -> io::Result<Vec<u8>> {
        panic!("nobody asked for {path}")
    }

    #[test]
    fn keys_and_roots_are_read_with_their_facts() {
        let authority = Authority::new("root");
        let leaf = authority.leaf(&["a.test"], &["spiffe://td/a"]);
        let secrets = [key_secret("key", &leaf), roots_secret("ca", &authority, None)];
        let store = SecretStore::build(&secrets, &no_files).unwrap();
        let key = store.key("key").unwrap();
        assert_eq!(key.leaf().unwrap().dns_san(), Some("a.test"));
        assert_eq!(key.leaf().unwrap().uri_san(), Some("spiffe://td/a"));
        assert_eq!(store.roots("ca").unwrap().roots.len(), 1);
        assert!(store.key("ca").is_none() && store.roots("key").is_none());
        assert!(!format!("{store:?}").contains("PRIVATE"), "debug output has no keys");
    }

    #[test]
    fn files_are_read_through_the_given_function() {
        let authority = Authority::new("root");
        let leaf = authority.leaf(&["a.test"], &[]);
        let file = |path: &str| Some(DataSource { source: Some(Source::File(path.into())) });
        let pair = KeyPair { certificate_chain: file("c.pem"), private_key: file("k.pem"), ocsp: file("o.der") };
        let secrets = [Secret { name: "key".into(), kind: Some(Kind::KeyPair(pair)) }];
        let read = |path: &str| match path {
            "c.pem" => Ok(leaf.chain_pem.clone().into_bytes()),
            "k.pem" => Ok(leaf.key_pem.clone().into_bytes()),
            "o.der" => Ok(vec![1, 2, 3]),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let store = SecretStore::build(&secrets, &read).unwrap();
        assert_eq!(store.key("key").unwrap().key.ocsp.as_deref(), Some(&[1, 2, 3][..]));
        let errors = SecretStore::build(&secrets, &|_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
        assert!(errors[0].to_string().starts_with("secret `key`: keyPair.certificateChain: cannot read c.pem"), "{errors:?}");
    }

    #[test]
    fn every_mistake_is_named_and_no_key_is_shown() {
        let authority = Authority::new("root");
        let (one, two) = (authority.leaf(&["a.test"], &[]), authority.leaf(&["b.test"], &[]));
        let pair =
            |chain: &str, key: &str| Kind::KeyPair(KeyPair { certificate_chain: inline(chain), private_key: inline(key), ocsp: None });
        let roots = |pem: &str, lists: &str| Kind::TrustRoots(TrustRoots { certificates: inline(pem), revocation_lists: inline(lists) });
        let secret = |name: &str, kind| Secret { name: name.into(), kind };
        let broken_key = one.key_pem.replace("-----END", "!!!!\n-----END");
        let secrets = [
            secret("mixed", Some(pair(&one.chain_pem, &two.key_pem))),
            secret("swapped", Some(pair(&one.key_pem, &one.chain_pem))),
            secret("broken", Some(pair(&one.chain_pem, &broken_key))),
            secret("absent", Some(Kind::KeyPair(KeyPair::default()))),
            secret("none", None),
            secret("junk", Some(roots("junk", ""))),
            secret("lists", Some(roots(&authority.pem(), "junk"))),
            secret("good", Some(roots(&authority.pem(), "\n"))),
        ];
        let errors = SecretStore::build(&secrets, &no_files).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|e| (e.secret.as_str(), e.field.as_str())).collect();
        let expected = [
            ("mixed", "keyPair.privateKey"),
            ("swapped", "keyPair.certificateChain"),
            ("broken", "keyPair.privateKey"),
            ("absent", "keyPair.certificateChain"),
            ("none", ""),
            ("junk", "trustRoots.certificates"),
            ("lists", "trustRoots.revocationLists"),
        ];
        assert_eq!(fields, expected);
        let body: Vec<_> = one.key_pem.lines().filter(|line| !line.starts_with("---")).collect();
        assert!(errors.iter().all(|e| body.iter().all(|line| !e.to_string().contains(line))));
    }

    #[test]
    fn the_digest_of_roots_changes_with_what_is_trusted() {
        let (one, two) = (Authority::new("one"), Authority::new("two"));
        let digest = |secret| SecretStore::build(&[secret], &no_files).unwrap().roots("ca").unwrap().digest;
        assert_eq!(digest(roots_secret("ca", &one, None)), digest(roots_secret("ca", &one, None)));
        assert_ne!(digest(roots_secret("ca", &one, None)), digest(roots_secret("ca", &two, None)));
        let crl = one.revoke(&[]);
        assert_ne!(digest(roots_secret("ca", &one, None)), digest(roots_secret("ca", &one, Some(&crl))));
    }
}
