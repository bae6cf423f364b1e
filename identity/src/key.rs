//! Private keys: PKCS#8 in memory that is wiped, usable for TLS and for certificate requests.
//!
//! Keys made here are P-256. Keys read from elsewhere may be of any kind the crypto provider can sign TLS 1.3 with.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, SanType};
use rustls::sign::SigningKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::{self, CryptoError};
use crate::spiffe_id::SpiffeId;

/// The longest key that is read, in bytes. An RSA-8192 key has fewer than 5,000.
pub const MAX_KEY_BYTES: usize = 16 * 1024;

/// A private key. It cannot be printed or cloned; share it behind an `Arc`.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
    signing: Arc<dyn SigningKey>,
}

impl PrivateKey {
    /// Makes a new P-256 key.
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_zeroizing(crypto::generate_p256_pkcs8()?)
    }

    /// Takes an unencrypted PKCS#8 key.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        if der.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLarge { bytes: der.len() });
        }
        Self::from_zeroizing(Zeroizing::new(der.to_vec()))
    }

    /// Reads the one `PRIVATE KEY` section of a PEM text. Other sections, such as certificates, are passed over.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let mut keys = PrivateKeyDer::pem_slice_iter(text.as_bytes());
        let key = keys.next().ok_or(KeyError::NoKey)?.map_err(|source| KeyError::Pem { source })?;
        if keys.next().is_some() {
            return Err(KeyError::SeveralKeys);
        }
        let PrivateKeyDer::Pkcs8(mut key) = key else { return Err(KeyError::NotPkcs8) };
        let read = Self::from_pkcs8_der(key.secret_pkcs8_der());
        key.zeroize();
        read
    }

    /// Returns the key as PKCS#8 DER.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Returns the key as a PEM text with one `PRIVATE KEY` section.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(crate::der::pem("PRIVATE KEY", &self.pkcs8))
    }

    /// Returns the public half as a DER SubjectPublicKeyInfo.
    pub fn public_key_spki(&self) -> &[u8] {
        &self.spki
    }

    /// Returns the key in the form that signs certificates.
    pub fn rcgen(&self) -> Result<rcgen::KeyPair, KeyError> {
        rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(self.pkcs8.as_slice()))
            .map_err(|source| KeyError::Request { source })
    }

    /// Makes a PKCS#10 request (DER) with an empty subject and, where given, `id` as its only name.
    pub fn csr(&self, id: Option<&SpiffeId>) -> Result<Vec<u8>, KeyError> {
        let request_error = |source| KeyError::Request { source };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(id) = id {
            let name = id.as_str().try_into().map_err(request_error)?;
            params.subject_alt_names.push(SanType::URI(name));
        }
        let mut key = self.rcgen()?;
        let request = params.serialize_request(&key).map_err(request_error);
        key.zeroize();
        Ok(request?.der().to_vec())
    }

    pub(crate) fn signing_key(&self) -> Arc<dyn SigningKey> {
        self.signing.clone()
    }

    fn from_zeroizing(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let signing = crypto::signing_key(&pkcs8).map_err(|source| KeyError::Unusable { source })?;
        let spki = signing.public_key().ok_or(KeyError::NoPublicKey)?.to_vec();
        Ok(Self { pkcs8, spki, signing })
    }
}

/// Why there is no private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key is longer than [`MAX_KEY_BYTES`].
    #[error("private key has {bytes} bytes, at most {MAX_KEY_BYTES} are allowed")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// The text is not PEM.
    #[error("cannot read the private key as PEM")]
    Pem {
        /// What was wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// The PEM text has no private key.
    #[error("no PRIVATE KEY section in the PEM text")]
    NoKey,
    /// The PEM text has more than one private key.
    #[error("more than one private key in the PEM text")]
    SeveralKeys,
    /// The key is in one of the older formats.
    #[error("private key is not PKCS#8; convert it with: openssl pkcs8 -topk8 -nodes")]
    NotPkcs8,
    /// The crypto provider does not take the key.
    #[error("private key is malformed or of an unsupported kind")]
    Unusable {
        /// What the provider said.
        source: rustls::Error,
    },
    /// The crypto provider does not tell the public half.
    #[error("private key has no public half")]
    NoPublicKey,
    /// A key or random numbers could not be made.
    #[error("cannot make a private key")]
    Generate {
        /// What failed.
        #[from]
        source: CryptoError,
    },
    /// A certificate request could not be made.
    #[error("cannot make a certificate request")]
    Request {
        /// What failed.
        source: rcgen::Error,
    },
}

#[cfg(test)]
mod tests;
