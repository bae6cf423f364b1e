//! Secrets at rest: AES-256-GCM under a random nonce that stands in front of the sealed bytes.
//!
//! A key seals at most 2^32 times (NIST SP 800-38D 8.3, random nonces): ours seal a file once per rotation.

use backend::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{CryptoError, backend, random};

/// The length of a sealing key in bytes.
pub const KEY_BYTES: usize = 32;

/// How many bytes sealing adds: nonce and tag.
pub const OVERHEAD_BYTES: usize = NONCE_LEN + 16;

/// A key that seals and opens. Wiped on drop.
pub struct SealKey(Zeroizing<[u8; KEY_BYTES]>);

impl SealKey {
    /// Makes a new random key.
    pub fn generate() -> Result<Self, CryptoError> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    /// Takes a key that was kept elsewhere.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the key itself, for the file or credential that keeps it.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Encrypts `plain` and binds it to `aad`, which has to be repeated when opening.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + OVERHEAD_BYTES));
        body.extend_from_slice(plain);
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut *body)
            .map_err(|_| CryptoError::Seal)?;
        Ok([nonce.as_slice(), &body].concat())
    }

    /// Decrypts what [`SealKey::seal`] returned for the same `aad`.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(CryptoError::Open)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain_bytes = self
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), body.as_mut_slice())
            .map_err(|_| CryptoError::Open)?
            .len();
        body.truncate(plain_bytes);
        Ok(body)
    }

    fn cipher(&self) -> Result<LessSafeKey, CryptoError> {
        UnboundKey::new(&AES_256_GCM, self.0.as_slice()).map(LessSafeKey::new).map_err(|_| CryptoError::Seal)
    }
}

#[cfg(test)]
mod tests;
