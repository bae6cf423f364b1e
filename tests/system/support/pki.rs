//! Certificates made by hand, so that each flaw can stand alone.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

/// A certificate authority of a trust domain.
pub(crate) struct Authority {
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("root of {trust_domain}"));
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = ago(Duration::from_secs(3600));
        params.not_after = hence(Duration::from_secs(24 * 3600));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { trust_domain: trust_domain.to_owned(), issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn id(&self, path: &str) -> String {
        format!("spiffe://{}{path}", self.trust_domain)
    }

    pub(crate) fn bundle_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// A sound SVID for a path of this trust domain.
    pub(crate) fn svid(&self, path: &str) -> Identity {
        self.issue(leaf(&self.id(path)))
    }

    /// A certificate over exactly these parameters.
    pub(crate) fn issue(&self, params: CertificateParams) -> Identity {
        issue(params, &self.issuer, Vec::new())
    }
}

/// A chain and its key.
pub(crate) struct Identity {
    params: CertificateParams,
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// Writes `svid.pem`, `key.pem` and the authority's `bundle.pem` as a sidecar reads them.
    pub(crate) fn write(&self, dir: &Path, authority: &Authority) {
        std::fs::create_dir_all(dir).unwrap();
        let chain: String = self.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect();
        replace(&dir.join("svid.pem"), &chain);
        replace(&dir.join("key.pem"), &pem("PRIVATE KEY", &self.key.serialize_der()));
        replace(&dir.join("bundle.pem"), &authority.bundle_pem());
    }

    /// Signs a certificate with this leaf, as if it were an authority.
    pub(crate) fn issue(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::try_from(self.key.serialize_der()).unwrap();
        issue(params, &Issuer::new(self.params.clone(), key), self.chain.clone())
    }
}

/// The parameters of a sound X.509-SVID; a test changes the one thing that is to be wrong.
pub(crate) fn leaf(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "vouchsafe tests");
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number =
        Some(SerialNumber::from(identity::crypto::random::<16>().unwrap().map(|byte| byte & 0x7f).to_vec()));
    params.not_before = ago(Duration::from_secs(10));
    params.not_after = hence(Duration::from_secs(3600));
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn ago(span: Duration) -> OffsetDateTime {
    OffsetDateTime::from(SystemTime::now() - span)
}

pub(crate) fn hence(span: Duration) -> OffsetDateTime {
    OffsetDateTime::from(SystemTime::now() + span)
}

fn issue(
    params: CertificateParams,
    issuer: &Issuer<'static, KeyPair>,
    above: Vec<CertificateDer<'static>>,
) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
    let chain = std::iter::once(certificate).chain(above).collect();
    Identity { params, chain, key }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Replaces a file in one step, with the mode that a key file needs.
pub(crate) fn replace(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).unwrap();
    std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&partial, path).unwrap();
}
