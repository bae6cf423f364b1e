//! Trust bundles: the keys of a trust domain, read and written as the SPIFFE JWKS document, DER or PEM.
//!
//! A document is taken whole or not at all. An entry of a kind this reader does not know is passed over, as the standard asks;
//! an entry that says it is an X.509 authority and is not readable fails the document.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use crate::jwk;
use crate::revocation::RevocationLists;
use crate::spiffe_id::TrustDomain;

mod document;

pub use document::JwtKey;

/// The longest bundle document in bytes.
pub const MAX_BUNDLE_BYTES: usize = 4 * 1024 * 1024;

/// The most entries in one bundle.
pub const MAX_BUNDLE_KEYS: usize = 1024;

/// How often to ask for a bundle that says nothing about it. Trust Domain and Bundle 4.1.2.
pub const DEFAULT_REFRESH_HINT: Duration = Duration::from_secs(300);

/// The keys of one trust domain. With no keys it says that all are revoked.
#[derive(Clone, PartialEq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    x509: Vec<CertificateDer<'static>>,
    x509_jwks: Vec<Value>,
    jwt: Vec<JwtKey>,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
}

impl TrustBundle {
    /// Makes a bundle of X.509 authorities. Repeated certificates are kept once.
    pub fn new(
        trust_domain: TrustDomain,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        if authorities.len() > MAX_BUNDLE_KEYS {
            return Err(BundleError::TooManyKeys { found: authorities.len() });
        }
        let (mut x509, mut x509_jwks) = (Vec::new(), Vec::new());
        for (index, authority) in authorities.into_iter().enumerate() {
            if !x509.contains(&authority) {
                x509_jwks.push(jwk::x509_authority(&authority).ok_or(BundleError::Authority { index })?);
                x509.push(authority);
            }
        }
        Ok(Self { trust_domain, x509, x509_jwks, jwt: Vec::new(), sequence: None, refresh_hint: None })
    }

    /// Reads certificates that stand one after the other as DER: what the Workload API sends.
    pub fn from_der(trust_domain: TrustDomain, der: &[u8]) -> Result<Self, BundleError> {
        check_length(der)?;
        Self::new(trust_domain, crate::der::split_certificates(der).ok_or(BundleError::Der)?)
    }

    /// Reads the certificates of a PEM text. A text without any is refused: it is far more often a mistake than a revocation.
    pub fn from_pem(trust_domain: TrustDomain, text: &str) -> Result<Self, BundleError> {
        check_length(text.as_bytes())?;
        let authorities = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| BundleError::Pem { source })?;
        if authorities.is_empty() {
            return Err(BundleError::NoCertificate);
        }
        Self::new(trust_domain, authorities)
    }

    /// Reads the SPIFFE JWKS document.
    pub fn from_jwks(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        check_length(json)?;
        document::parse(trust_domain, json)
    }

    /// Writes the SPIFFE JWKS document.
    pub fn to_jwks(&self) -> String {
        document::write(self)
    }

    /// Writes the X.509 authorities as PEM.
    pub fn to_pem(&self) -> String {
        crate::der::certificates_pem(&self.x509)
    }

    /// Returns the X.509 authorities one after the other as DER.
    pub fn authorities_der(&self) -> Vec<u8> {
        self.x509.iter().flat_map(|certificate| certificate.iter().copied()).collect()
    }

    /// Returns the bundle with a sequence number.
    #[must_use]
    pub fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// Returns the bundle with a refresh hint, of which whole seconds are kept.
    #[must_use]
    pub fn with_refresh_hint(mut self, hint: Duration) -> Self {
        self.refresh_hint = Some(Duration::from_secs(hint.as_secs()));
        self
    }

    /// Returns the bundle with JWT keys.
    #[must_use]
    pub fn with_jwt_keys(mut self, keys: Vec<JwtKey>) -> Self {
        self.jwt = keys;
        self
    }

    /// Returns whose keys these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Returns the X.509 authorities.
    pub fn x509_authorities(&self) -> &[CertificateDer<'static>] {
        &self.x509
    }

    /// Returns the keys for JWT-SVIDs.
    pub fn jwt_keys(&self) -> &[JwtKey] {
        &self.jwt
    }

    /// Returns the sequence number.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// Returns how often to ask for a newer bundle.
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// Says whether both bundles hold the same keys.
    pub fn has_same_keys(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain && self.x509 == other.x509 && self.jwt == other.jwt
    }

    /// Says how this bundle stands to `held`, the one in use: what tells a rollback from news.
    pub fn succession(&self, held: &Self) -> Succession {
        let (Some(new), Some(old)) = (self.sequence, held.sequence) else {
            return if self.has_same_keys(held) { Succession::Same } else { Succession::Unordered };
        };
        match new.cmp(&old) {
            std::cmp::Ordering::Greater => Succession::Newer,
            std::cmp::Ordering::Less => Succession::Older,
            std::cmp::Ordering::Equal if self.has_same_keys(held) => Succession::Same,
            std::cmp::Ordering::Equal => Succession::Conflict,
        }
    }
}

/// How one bundle stands to another of the same trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// It has a higher sequence number.
    Newer,
    /// It has the same keys and does not have another sequence number.
    Same,
    /// It has a lower sequence number: a rollback.
    Older,
    /// It has other keys under the same sequence number, which the standard forbids.
    Conflict,
    /// It has other keys, and at least one of the two has no sequence number.
    Unordered,
}

/// The bundles somebody trusts, one for each trust domain, less what revocation lists take back. Cloning is cheap.
#[derive(Clone, Default, PartialEq)]
pub struct BundleSet(BTreeMap<TrustDomain, Arc<TrustBundle>>, RevocationLists);

impl BundleSet {
    /// Returns a set without bundles: nobody is trusted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the bundle of `trust_domain`, which is given as a value or by name.
    pub fn get(&self, trust_domain: impl AsRef<str>) -> Option<&Arc<TrustBundle>> {
        self.0.get(trust_domain.as_ref())
    }

    /// Puts in a bundle, in the place of an older one of the same trust domain.
    pub fn insert(&mut self, bundle: impl Into<Arc<TrustBundle>>) {
        let bundle = bundle.into();
        self.0.insert(bundle.trust_domain.clone(), bundle);
    }

    /// Takes out the bundle of `trust_domain`: its members are no longer trusted.
    pub fn remove(&mut self, trust_domain: impl AsRef<str>) -> Option<Arc<TrustBundle>> {
        self.0.remove(trust_domain.as_ref())
    }

    /// Returns the bundles in the order of their trust domains.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &Arc<TrustBundle>)> {
        self.0.iter()
    }

    /// Returns how many bundles there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there is no bundle.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes back the certificates on `lists`, and only those.
    #[must_use]
    pub fn without(self, lists: RevocationLists) -> Self {
        Self(self.0, lists)
    }

    /// Returns what takes certificates back.
    pub fn revocation(&self) -> &RevocationLists {
        &self.1
    }
}

impl FromIterator<TrustBundle> for BundleSet {
    fn from_iter<I: IntoIterator<Item = TrustBundle>>(bundles: I) -> Self {
        bundles.into_iter().map(Arc::new).collect()
    }
}

impl FromIterator<Arc<TrustBundle>> for BundleSet {
    fn from_iter<I: IntoIterator<Item = Arc<TrustBundle>>>(bundles: I) -> Self {
        let bundles = bundles.into_iter().map(|bundle| (bundle.trust_domain.clone(), bundle));
        Self(bundles.collect(), RevocationLists::default())
    }
}

impl std::fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.trust_domain)
            .field("x509_authorities", &self.x509.len())
            .field("jwt_keys", &self.jwt.len())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BundleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.values()).finish()
    }
}

/// Why there is no trust bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The document is longer than [`MAX_BUNDLE_BYTES`].
    #[error("trust bundle has {bytes} bytes, at most {MAX_BUNDLE_BYTES} are allowed")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// There are more than [`MAX_BUNDLE_KEYS`] entries.
    #[error("trust bundle has {found} keys, at most {MAX_BUNDLE_KEYS} are allowed")]
    TooManyKeys {
        /// How many there are.
        found: usize,
    },
    /// The document is not the JSON object it should be.
    #[error("trust bundle is not a SPIFFE JWKS document")]
    Json {
        /// What was wrong.
        source: serde_json::Error,
    },
    /// The X.509 entry at this place has no readable certificate.
    #[error("key {index} of the trust bundle: x5c is not base64")]
    X5c {
        /// The place among the keys, from 0.
        index: usize,
    },
    /// The authority at this place is no certificate, or has a key of an unknown kind.
    #[error("authority {index} of the trust bundle is not a certificate with an EC, RSA or Ed25519 key")]
    Authority {
        /// The place among the authorities, from 0.
        index: usize,
    },
    /// The bytes are not a row of certificates.
    #[error("trust bundle is not a row of DER certificates")]
    Der,
    /// The text is not PEM.
    #[error("cannot read the trust bundle as PEM")]
    Pem {
        /// What was wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// The PEM text has no certificate.
    #[error("no CERTIFICATE section in the trust bundle")]
    NoCertificate,
}

fn check_length(bytes: &[u8]) -> Result<(), BundleError> {
    if bytes.len() > MAX_BUNDLE_BYTES { Err(BundleError::TooLarge { bytes: bytes.len() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
