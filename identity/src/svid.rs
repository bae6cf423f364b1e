//! X.509-SVIDs: a certificate chain that names somebody, with its private key.
//!
//! A value obeys the rules for leaves and its key belongs to its certificate. Whether anybody trusts it is for
//! [`crate::verify()`] to say.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::der;
use crate::key::{KeyError, PrivateKey};
use crate::leaf::Leaf;
use crate::spiffe_id::SpiffeId;
use crate::verify::{MAX_INTERMEDIATES, VerifyError};

/// An identity that this process can prove.
pub struct X509Svid {
    leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKey>,
    hint: Option<String>,
}

impl X509Svid {
    /// Takes certificates that stand one after the other as DER, leaf first, and the leaf's key.
    pub fn from_der(
        chain: &[u8],
        key: impl Into<Arc<PrivateKey>>,
        hint: Option<String>,
    ) -> Result<Self, SvidError> {
        Self::from_chain(der::split_certificates(chain).ok_or(SvidError::Chain)?, key, hint)
    }

    /// Takes certificates, leaf first, and the leaf's key.
    pub fn from_chain(
        chain: Vec<CertificateDer<'static>>,
        key: impl Into<Arc<PrivateKey>>,
        hint: Option<String>,
    ) -> Result<Self, SvidError> {
        let key = key.into();
        if chain.len() > MAX_INTERMEDIATES + 1 {
            return Err(SvidError::TooLong { found: chain.len() });
        }
        let leaf = Leaf::parse(chain.first().ok_or(SvidError::NoCertificate)?)?;
        if leaf.spki != key.public_key_spki() {
            return Err(SvidError::KeyMismatch { id: leaf.id });
        }
        Ok(Self { leaf, chain, key, hint })
    }

    /// Reads the certificates of one PEM text, leaf first, and the key of another, which may be the same text.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, SvidError> {
        let chain = CertificateDer::pem_slice_iter(certificates.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| SvidError::Pem { source })?;
        Self::from_chain(chain, PrivateKey::from_pem(key)?, None)
    }

    /// Returns who this is.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// Returns the certificates, leaf first, without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns the private key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Returns the serial number of the leaf in lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    /// Returns when the leaf begins to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// Returns when the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// Returns the operator's hint what the SVID is meant for.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the certificates one after the other as DER: what the Workload API sends.
    pub fn chain_der(&self) -> Vec<u8> {
        self.chain.iter().flat_map(|certificate| certificate.iter().copied()).collect()
    }

    /// Returns the certificates as PEM.
    pub fn chain_pem(&self) -> String {
        der::certificates_pem(&self.chain)
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", self.id())
            .field("serial", &self.serial())
            .finish_non_exhaustive()
    }
}

/// Why there is no SVID.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The chain is not a row of certificates.
    #[error("certificate chain is not a row of DER certificates")]
    Chain,
    /// There is no certificate.
    #[error("certificate chain is empty")]
    NoCertificate,
    /// The chain is longer than a peer accepts.
    #[error("certificate chain has {found} certificates, too many")]
    TooLong {
        /// How many there are.
        found: usize,
    },
    /// The certificates are not PEM.
    #[error("cannot read the certificates as PEM")]
    Pem {
        /// What was wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// The leaf breaks the rules for SVIDs.
    #[error("leaf is not an X.509-SVID")]
    Leaf {
        /// The rule it breaks.
        #[from]
        source: VerifyError,
    },
    /// The private key is unusable.
    #[error("cannot use the private key of the SVID")]
    Key {
        /// What was wrong.
        #[from]
        source: KeyError,
    },
    /// The private key belongs to another certificate.
    #[error("private key does not belong to the certificate of {id}")]
    KeyMismatch {
        /// Whose certificate it is.
        id: SpiffeId,
    },
}

#[cfg(test)]
mod tests;
