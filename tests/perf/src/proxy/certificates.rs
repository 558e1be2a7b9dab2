//! The authority, server and client certificates of a run: ECDSA P-256, made anew each time.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};

/// The name that the server's certificate is for.
pub(super) const SERVER: &str = "localhost";

/// Writes `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key` into the folder.
pub(super) fn write(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(vec!["authority".to_owned()])?;
    authority.distinguished_name.push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    for (name, host, usage) in
        [("server", SERVER, ExtendedKeyUsagePurpose::ServerAuth), ("client", "client.localhost", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut certificate = CertificateParams::new(vec![host.to_owned()])?;
        // Two certificates of one name would be taken for one.
        certificate.distinguished_name.push(DnType::CommonName, host);
        certificate.extended_key_usages = vec![usage];
        fs::write(folder.join(format!("{name}.pem")), certificate.signed_by(&key, &authority)?.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}
