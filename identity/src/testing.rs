//! Certificates for tests, each with the flaw a test asks for and otherwise sound.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::bundle::{BundleSet, TrustBundle};
use crate::crypto;
use crate::key::PrivateKey;
use crate::spiffe_id::TrustDomain;
use crate::svid::X509Svid;

/// How long before and after the middle of its life a certificate of these tests is valid.
pub(crate) const HALF_LIFE: Duration = Duration::from_secs(3600);

/// A signing certificate with its key.
pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a root named `name` that is valid now.
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    /// Makes a root that `change` was applied to.
    pub(crate) fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params(name);
        change(&mut params);
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// Makes an authority below this one that `change` was applied to.
    pub(crate) fn intermediate(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params(name);
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// Issues a sound leaf for `id`.
    pub(crate) fn leaf(&self, id: &str) -> CertificateDer<'static> {
        self.leaf_with(id, |_| {})
    }

    /// Issues a leaf that `change` was applied to.
    pub(crate) fn leaf_with(
        &self,
        id: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        self.leaf_and_key(id, change).0
    }

    /// Issues a leaf that acts as an authority all the same.
    pub(crate) fn rogue(&self, id: &str) -> Self {
        let (der, key) = self.leaf_and_key(id, |params| {
            params.distinguished_name.push(DnType::CommonName, "rogue");
        });
        let mut params = leaf_params(id);
        params.distinguished_name.push(DnType::CommonName, "rogue");
        // The issuing side believes to be an authority; its certificate says otherwise.
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { der, issuer: Issuer::new(params, key.rcgen().unwrap()) }
    }

    /// Takes certificates back: a revocation list in DER.
    pub(crate) fn revoke(&self, taken: &[&CertificateDer<'_>]) -> Vec<u8> {
        let now = time::OffsetDateTime::now_utc();
        let entry = |der: &&CertificateDer<'_>| RevokedCertParams {
            serial_number: SerialNumber::from_slice(
                x509_parser::parse_x509_certificate(der).unwrap().1.raw_serial(),
            ),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::hours(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: taken.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    /// Issues a sound SVID.
    pub(crate) fn svid(&self, id: &str) -> Arc<X509Svid> {
        let (der, key) = self.leaf_and_key(id, |_| {});
        Arc::new(X509Svid::from_chain(vec![der], key, None).unwrap())
    }

    pub(crate) fn leaf_and_key(
        &self,
        id: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, PrivateKey) {
        let key = PrivateKey::generate().unwrap();
        let mut params = leaf_params(id);
        change(&mut params);
        let der = params.signed_by(&key.rcgen().unwrap(), &self.issuer).unwrap().der().clone();
        (der, key)
    }

    /// Returns the certificate as PEM.
    pub(crate) fn pem(&self) -> String {
        crate::der::certificates_pem(std::slice::from_ref(&self.der))
    }

    /// Returns this authority as the bundle of `trust_domain`.
    pub(crate) fn bundle(&self, trust_domain: &str) -> TrustBundle {
        TrustBundle::new(TrustDomain::parse(trust_domain).unwrap(), vec![self.der.clone()]).unwrap()
    }

    /// Returns this authority as the only bundle there is.
    pub(crate) fn bundles(&self, trust_domain: &str) -> BundleSet {
        [self.bundle(trust_domain)].into_iter().collect()
    }
}

/// Puts an extension with this object identifier into a certificate.
pub(crate) fn extension(oid: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// Writes a DER value shorter than 128 bytes.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
}

/// Replaces the names of a certificate by these contents of GeneralName, tag and all.
pub(crate) fn set_names(params: &mut CertificateParams, names: &[Vec<u8>]) {
    params.subject_alt_names.clear();
    params.custom_extensions.push(extension(&SUBJECT_ALT_NAME, true, &der(0x30, &names.concat())));
}

/// Writes a URI name with any bytes in it.
pub(crate) fn uri(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    der(0x86, bytes.as_ref())
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - HALF_LIFE).into();
    params.not_after = (SystemTime::now() + HALF_LIFE).into();
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number =
        Some(SerialNumber::from(crypto::random::<16>().unwrap().map(|byte| byte | 1).to_vec()));
    params.not_before = (SystemTime::now() - HALF_LIFE).into();
    params.not_after = (SystemTime::now() + HALF_LIFE).into();
    params.use_authority_key_identifier_extension = true;
    params
}

pub(crate) const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];
pub(crate) const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
pub(crate) const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
pub(crate) const EXTENDED_KEY_USAGE: [u64; 4] = [2, 5, 29, 37];
