//! The key that seals: a credential of the service manager, else a file that is made at first start.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use identity::crypto::seal::{KEY_BYTES, SealKey};
use identity::crypto::{CryptoError, Sha256};
use identity::durable::{self, DurableError};
use zeroize::Zeroizing;

/// The name of the credential that the sealing key is made from.
pub(crate) const SEAL_CREDENTIAL: &str = "vouchsafe-seal-key";

/// The file that keeps the sealing key where there is no credential.
pub(super) const SEAL_FILE: &str = "seal.key";

/// The shortest credential that a key is made from.
pub(super) const MIN_CREDENTIAL_BYTES: usize = 32;

/// Returns the keys that may have sealed the files in `directory`; the first one is to seal from here on.
///
/// With a credential, the key of the file still opens what was sealed before there was one.
pub(super) fn load(directory: &Path, credentials: Option<&Path>) -> Result<Vec<SealKey>, SealKeyError> {
    let credential =
        credentials.map(|directory| directory.join(SEAL_CREDENTIAL)).filter(|path| path.exists());
    let file = directory.join(SEAL_FILE);
    let mut keys = Vec::new();
    if let Some(path) = &credential {
        keys.push(from_credential(path)?);
    }
    match from_file(&file)? {
        Some(key) => keys.push(key),
        None if credential.is_none() => keys.push(make(&file)?),
        None => {}
    }
    Ok(keys)
}

fn from_credential(path: &Path) -> Result<SealKey, SealKeyError> {
    let bytes =
        Zeroizing::new(fs::read(path).map_err(|source| SealKeyError::Read { path: path.into(), source })?);
    if bytes.len() < MIN_CREDENTIAL_BYTES {
        return Err(SealKeyError::ShortCredential { path: path.into(), found: bytes.len() });
    }
    let mut hash = Sha256::new();
    hash.update(b"vouchsafe agent seal key v1\0");
    hash.update(&bytes);
    Ok(SealKey::from_bytes(hash.finish()))
}

fn from_file(path: &Path) -> Result<Option<SealKey>, SealKeyError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SealKeyError::Read { path: path.into(), source }),
    };
    if metadata.mode() & 0o077 != 0 {
        return Err(SealKeyError::Open { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    let bytes =
        Zeroizing::new(fs::read(path).map_err(|source| SealKeyError::Read { path: path.into(), source })?);
    let key: [u8; KEY_BYTES] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| SealKeyError::Length { path: path.into(), found: bytes.len() })?;
    Ok(Some(SealKey::from_bytes(key)))
}

fn make(path: &Path) -> Result<SealKey, SealKeyError> {
    let key = SealKey::generate()?;
    durable::write(path, 0o600, key.expose())?;
    tracing::info!(path = %path.display(), "sealing key made");
    Ok(key)
}

/// Why there is no sealing key.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// The key cannot be read.
    #[error("cannot read the sealing key {}", path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the key.
    #[error(
        "the sealing key {} has mode {mode:o}, others may have read it; \
         delete it with the .sealed files beside it and attest anew, or set its mode to 0600", path.display()
    )]
    Open {
        /// Where it is.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The key has a wrong length.
    #[error(
        "the sealing key {} has {found} bytes, not {KEY_BYTES}; restore it, or delete it with the .sealed files \
         beside it and attest anew", path.display()
    )]
    Length {
        /// Where it is.
        path: PathBuf,
        /// How long it is.
        found: usize,
    },
    /// The credential is too short to make a key from.
    #[error("the credential {} has {found} bytes, at least {MIN_CREDENTIAL_BYTES} are needed", path.display())]
    ShortCredential {
        /// Where it is.
        path: PathBuf,
        /// How long it is.
        found: usize,
    },
    /// No key could be made.
    #[error("cannot make a sealing key")]
    Make(#[from] CryptoError),
    /// The new key could not be kept.
    #[error("cannot keep the sealing key")]
    Write(#[from] DurableError),
}
