//! The key of one direction of a TLS 1.3 connection: it seals and opens records where they lie.
//!
//! The nonce of a record is made from its number (RFC 8446 5.3), so that a number is used once with a key: whoever counts
//! never counts back.

use std::fmt;

use backend::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

use super::{CryptoError, backend};

/// How many bytes sealing adds behind a record.
pub const TAG_BYTES: usize = 16;

/// Seals or opens the records of one direction.
pub struct RecordKey {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
}

impl RecordKey {
    /// Takes the key that a handshake or a key update agreed on.
    pub(crate) fn new(secrets: &ConnectionTrafficSecrets) -> Result<Self, CryptoError> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(CryptoError::Seal),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| CryptoError::Seal)?;
        let iv = iv.as_ref().try_into().map_err(|_| CryptoError::Seal)?;
        Ok(Self { key: LessSafeKey::new(key), iv })
    }

    /// Encrypts `body`, the record with this number, and returns its tag.
    pub fn seal(
        &self,
        number: u64,
        header: &[u8],
        body: &mut [u8],
    ) -> Result<impl AsRef<[u8]> + use<>, CryptoError> {
        let sealed = self.key.seal_in_place_separate_tag(self.nonce(number), Aad::from(header), body);
        sealed.map_err(|_| CryptoError::Seal)
    }

    /// Decrypts the record with this number, which stands in `space` from `from` on, to the beginning of `space`.
    /// Returns how long it is.
    pub fn open(
        &self,
        number: u64,
        header: &[u8],
        space: &mut [u8],
        from: usize,
    ) -> Result<usize, CryptoError> {
        let opened = self.key.open_within(self.nonce(number), Aad::from(header), space, from..);
        opened.map(|plain| plain.len()).map_err(|_| CryptoError::Open)
    }

    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        let counted = nonce.iter_mut().skip(NONCE_LEN - size_of::<u64>());
        counted.zip(number.to_be_bytes()).for_each(|(byte, of_number)| *byte ^= of_number);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RecordKey").finish_non_exhaustive()
    }
}
