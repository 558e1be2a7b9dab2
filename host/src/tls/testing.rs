//! Certificates for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use weir_model::config::data_source::Source;
use weir_model::config::secret::Kind;
use weir_model::config::{DataSource, KeyPair as KeyPairSecret, Secret, TrustRoots};

/// An authority that signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A key with its chain.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
    pub(crate) serial: u64,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    pub(crate) fn leaf(&self, dns: &[&str], uris: &[&str]) -> Leaf {
        self.leaf_with(dns, uris, |_| ())
    }

    pub(crate) fn leaf_with(&self, dns: &[&str], uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(dns.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.distinguished_name.push(DnType::CommonName, "leaf");
        let serial = u64::from(fastrand::u32(1..));
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain_pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf { chain_pem, key_pem: key.serialize_pem(), serial }
    }

    /// A list that revokes these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64]) -> String {
        let now = rcgen::date_time_ymd(2020, 1, 1);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

pub(crate) fn inline(text: &str) -> Option<DataSource> {
    Some(DataSource { source: Some(Source::Inline(text.into())) })
}

pub(crate) fn key_secret(name: &str, leaf: &Leaf) -> Secret {
    let pair = KeyPairSecret { certificate_chain: inline(&leaf.chain_pem), private_key: inline(&leaf.key_pem), ocsp: None };
    Secret { name: name.into(), kind: Some(Kind::KeyPair(pair)) }
}

pub(crate) fn roots_secret(name: &str, authority: &Authority, lists: Option<&str>) -> Secret {
    let roots = TrustRoots { certificates: inline(&authority.pem()), revocation_lists: lists.and_then(inline) };
    Secret { name: name.into(), kind: Some(Kind::TrustRoots(roots)) }
}

/// A store with these secrets.
pub(crate) fn store(secrets: &[Secret]) -> super::store::SecretStore {
    super::store::SecretStore::build(secrets, &|path| panic!("nobody asked for {path}")).unwrap()
}

/// A client's section: trusts `ca`, proves itself with this certificate.
pub(crate) fn client(certificate: &str) -> weir_model::config::UpstreamTls {
    weir_model::config::UpstreamTls { trust_roots: "ca".into(), certificate: certificate.into(), ..Default::default() }
}

/// A server's section with these certificates.
pub(crate) fn server(certificates: &[&str]) -> weir_model::config::DownstreamTls {
    weir_model::config::DownstreamTls { certificates: certificates.iter().map(|name| (*name).to_owned()).collect(), ..Default::default() }
}

/// Demands on clients, verified against `ca`.
pub(crate) fn demand(mode: weir_model::config::client_auth::Mode) -> weir_model::config::ClientAuth {
    weir_model::config::ClientAuth { mode: mode.into(), trust_roots: "ca".into(), ..Default::default() }
}
