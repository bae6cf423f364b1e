//! The one place that knows which crypto provider a build has: `ring` or `aws-lc`, never both.
//!
//! The provider is passed as a value; the process default is set once in `main`, for libraries that insist on one.

use std::sync::{Arc, OnceLock};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "aws-lc")]
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

#[cfg(feature = "aws-lc")]
use aws_lc_rs as backend;
#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
use ring as backend;

#[cfg(all(feature = "ring", feature = "aws-lc"))]
compile_error!("choose one crypto provider: feature `ring` or feature `aws-lc`, not both");
#[cfg(not(any(feature = "ring", feature = "aws-lc")))]
compile_error!("choose a crypto provider: feature `ring` or feature `aws-lc`");

pub mod record;
pub mod seal;
pub(crate) mod signature;

/// Returns the crypto provider of this build.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(preferring_the_fastest(build_provider()))).clone()
}

/// Makes this build's provider the process default. A second call changes nothing.
pub fn install_default() {
    if CryptoProvider::get_default().is_none() {
        // Losing a race against another caller leaves the same provider in place.
        let _ = provider().as_ref().clone().install_default();
    }
}

/// Returns the SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.finish()
}

/// A SHA-256 that takes its input in pieces.
pub struct Sha256(backend::digest::Context);

impl Sha256 {
    /// Starts an empty hash.
    pub fn new() -> Self {
        Self(backend::digest::Context::new(&backend::digest::SHA256))
    }

    /// Adds `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash of everything added.
    pub fn finish(self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.0.finish().as_ref());
        hash
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads exactly `N` bytes of lower-case hexadecimal; `None` for anything else.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Returns `N` bytes that nobody can predict.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Returns a number that nobody can predict, from 0 up to but not including 1: what jitter is made from.
pub fn random_fraction() -> Result<f64, CryptoError> {
    let bits = u64::from_le_bytes(random::<8>()?) >> 11;
    Ok(bits as f64 / (1u64 << 53) as f64)
}

/// Why a cryptographic operation did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The system gave no random numbers.
    #[error("system random number generator failed")]
    Random,
    /// Sealing failed: the input is too long for the cipher.
    #[error("cannot seal")]
    Seal,
    /// What is opened was not sealed with this key and these associated data, or was altered.
    #[error("sealed data were altered or belong to another key")]
    Open,
    /// A key could not be made.
    #[error("cannot generate a key")]
    GenerateKey,
}

fn fill_random(bytes: &mut [u8]) -> Result<(), CryptoError> {
    use backend::rand::{SecureRandom, SystemRandom};

    SystemRandom::new().fill(bytes).map_err(|_| CryptoError::Random)
}

/// Makes a P-256 key and returns its PKCS#8 DER.
pub(crate) fn generate_p256_pkcs8() -> Result<zeroize::Zeroizing<Vec<u8>>, CryptoError> {
    use backend::rand::SystemRandom;
    use backend::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
        .map_err(|_| CryptoError::GenerateKey)?;
    Ok(zeroize::Zeroizing::new(key.as_ref().to_vec()))
}

/// Loads a PKCS#8 key for signing. Unlike the provider's own loader this borrows the key and leaves no copy of it behind.
pub(crate) fn signing_key(pkcs8: &[u8]) -> Result<Arc<dyn SigningKey>, rustls::Error> {
    any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)))
}

/// Puts AES-128-GCM with SHA-256 first: processors do both in hardware, SHA-384 they do not. RFC 8446 9.1 asks everyone for it.
fn preferring_the_fastest(mut provider: CryptoProvider) -> CryptoProvider {
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

#[cfg(feature = "aws-lc")]
fn build_provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
fn build_provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

#[cfg(test)]
mod tests;
