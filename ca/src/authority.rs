//! A signing authority: a self-signed P-256 root and its key.
//!
//! Each has a subject and a key identifier of its own (spiffe.md 6 point 10), so that no verifier
//! has to try several. The key is wiped when the authority is dropped.

use std::time::{Duration, SystemTime};

use identity::{PrivateKey, TrustDomain, crypto};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroize;

use crate::issue::{BACKDATE, ORGANISATION, random_serial, whole_seconds};

pub mod keys;
pub mod rotation;

/// What signs certificates.
pub struct Authority {
    id: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, WipedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// No randomness for a serial number.
    #[error("cannot make a serial number")]
    Random(#[from] crypto::CryptoError),
    /// The key cannot sign certificates.
    #[error("the authority's key cannot sign certificates")]
    Key(#[from] identity::KeyError),
    /// The certificate could not be built.
    #[error("cannot build the authority's certificate")]
    Build(#[from] rcgen::Error),
    /// The stored certificate is unreadable.
    #[error("the stored certificate of the authority is damaged")]
    Certificate,
    /// The key belongs to another certificate.
    #[error("the key is not the one of the authority's certificate")]
    KeyMismatch,
    /// The certificate belongs to another trust domain.
    #[error("the authority's certificate is not for the trust domain {0}")]
    TrustDomain(TrustDomain),
}

impl Authority {
    /// Makes the root of `trust_domain` for `key`, valid from a little before `now` for `ttl`.
    pub fn make(
        trust_domain: &TrustDomain,
        key: &PrivateKey,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let key = WipedKey(key.rcgen()?);
        let mut params = CertificateParams::default();
        let id = crypto::hex(&params.key_identifier(&key));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, ORGANISATION);
        params.distinguished_name.push(DnType::CommonName, format!("authority {id}"));
        params.subject_alt_names = vec![SanType::URI(trust_domain.id().as_str().try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        params.not_before = whole_seconds(now - BACKDATE);
        params.not_after = whole_seconds(now + ttl);
        let certificate = params.self_signed(&key)?.der().clone();
        let (not_before, not_after) = (params.not_before.into(), params.not_after.into());
        Ok(Self { id, certificate, issuer: Issuer::new(params, key), not_before, not_after })
    }

    /// Puts a stored certificate and its key together again.
    pub fn load(trust_domain: &TrustDomain, der: &[u8], key: &PrivateKey) -> Result<Self, AuthorityError> {
        let (_, x509) = X509Certificate::from_der(der).map_err(|_| AuthorityError::Certificate)?;
        if x509.public_key().raw != key.public_key_spki() {
            return Err(AuthorityError::KeyMismatch);
        }
        if !names(&x509, &trust_domain.id()) {
            return Err(AuthorityError::TrustDomain(trust_domain.clone()));
        }
        let certificate = CertificateDer::from(der.to_vec());
        let key = WipedKey(key.rcgen()?);
        Ok(Self {
            id: crypto::hex(&CertificateParams::default().key_identifier(&key)),
            not_before: crate::model::from_unix_seconds(x509.validity().not_before.timestamp()),
            not_after: crate::model::from_unix_seconds(x509.validity().not_after.timestamp()),
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
        })
    }

    /// Its name: the hexadecimal subject key identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The root certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// When it may begin to sign.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When everything it signed has ended.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, impl rcgen::SigningKey> {
        &self.issuer
    }
}

fn names(x509: &X509Certificate<'_>, id: &str) -> bool {
    let names = x509.subject_alternative_name().ok().flatten();
    names.is_some_and(|names| names.value.general_names.contains(&GeneralName::URI(id)))
}

struct WipedKey(KeyPair);

impl PublicKeyData for WipedKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl rcgen::SigningKey for WipedKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

impl Drop for WipedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
