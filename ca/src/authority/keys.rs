//! The authorities' private keys on disk: one file each, 0600, written whole or not at all.
//!
//! With a sealing key (a systemd credential, or a file that the configuration names) the files
//! are sealed; without one they are plain PKCS#8 PEM. A key file is never overwritten by another key.

use std::{
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use identity::{
    KeyError, PrivateKey,
    crypto::{CryptoError, from_hex, seal::SealKey},
    durable::{self, DurableError},
};
use zeroize::Zeroizing;

use crate::store::AuthorityRecord;

/// Whether key files are readable without a further secret.
pub enum Sealing {
    /// Sealed with this key.
    Sealed(SealKey),
    /// Plain, protected by their permissions only.
    Plain,
}

/// Why the sealing key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// The file cannot be read.
    #[error("cannot read the sealing key {}", path.display())]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the sealing key {} is open to other users (mode {mode:03o}): run `chmod 600` on it", path.display())]
    Exposed {
        /// Which file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{} must hold 32 random bytes, or 64 hexadecimal digits: make it with `openssl rand -hex 32`", path.display())]
    Malformed {
        /// Which file or directory.
        path: PathBuf,
    },
}

impl Sealing {
    /// Finds the sealing key: the systemd credential first, then the configured file, else none.
    pub fn find(credentials: Option<&Path>, configured: Option<&Path>) -> Result<Self, SealKeyError> {
        let credential =
            credentials.map(|directory| directory.join(SEAL_CREDENTIAL)).filter(|path| path.exists());
        match (credential, configured) {
            // The service manager keeps its files for the service alone, whatever their mode says.
            (Some(path), _) => read_seal_key(&path).map(Self::Sealed),
            (None, Some(path)) => {
                check_private(path)?;
                read_seal_key(path).map(Self::Sealed)
            }
            (None, None) => Ok(Self::Plain),
        }
    }
}

fn check_private(path: &Path) -> Result<(), SealKeyError> {
    let read = |source| SealKeyError::Read { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(read)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SealKeyError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

fn read_seal_key(path: &Path) -> Result<SealKey, SealKeyError> {
    let read = |source| SealKeyError::Read { path: path.to_owned(), source };
    let bytes = Zeroizing::new(std::fs::read(path).map_err(read)?);
    if let Ok(raw) = <[u8; 32]>::try_from(bytes.as_slice()) {
        return Ok(SealKey::from_bytes(raw));
    }
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| from_hex::<32>(text.trim()))
        .map(SealKey::from_bytes)
        .ok_or_else(|| SealKeyError::Malformed { path: path.to_owned() })
}

/// The directory of key files.
pub struct KeyStore {
    directory: PathBuf,
    sealing: Sealing,
}

/// Why a key file cannot be used. Nothing is overwritten.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The directory or file cannot be read.
    #[error("cannot read {}: restore it from a backup; without it the authority cannot sign", path.display())]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} is open to other users (mode {mode:03o}): run `chmod 600` on it", path.display())]
    Exposed {
        /// Which file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("{} is not a private key: restore it from a backup", path.display())]
    Malformed {
        /// Which file or directory.
        path: PathBuf,
        /// The cause.
        source: KeyError,
    },
    /// It is sealed, and there is no key to open it with.
    #[error("{} is sealed: give the credential {SEAL_CREDENTIAL} or seal_key_file that sealed it", path.display())]
    NoSealKey {
        /// Which file or directory.
        path: PathBuf,
    },
    /// It does not open with the sealing key.
    #[error("{} does not open with this sealing key: it is damaged or was sealed with another", path.display())]
    Unseal {
        /// Which file or directory.
        path: PathBuf,
        /// The cause.
        source: CryptoError,
    },
    /// It cannot be sealed.
    #[error("cannot seal the key")]
    Seal(#[source] CryptoError),
    /// It cannot be written.
    #[error("cannot write the key file: check that the disk has room")]
    Write(#[from] DurableError),
}

impl KeyStore {
    /// Uses `directory`, making it 0700 if it is missing.
    pub fn open(directory: PathBuf, sealing: Sealing) -> Result<Self, KeyFileError> {
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| KeyFileError::Read { path: directory.clone(), source })?;
        Ok(Self { directory, sealing })
    }

    /// Writes the key of the authority `id`.
    pub fn save(&self, id: &str, key: &PrivateKey) -> Result<(), KeyFileError> {
        match &self.sealing {
            Sealing::Sealed(seal) => {
                let sealed = seal.seal(id.as_bytes(), key.pkcs8_der()).map_err(KeyFileError::Seal)?;
                durable::write(&self.sealed_path(id), KEY_MODE, &sealed)?;
            }
            Sealing::Plain => durable::write(&self.plain_path(id), KEY_MODE, key.to_pem().as_bytes())?,
        }
        Ok(())
    }

    /// Whether there is a key file for `id`, readable or not.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.sealed_path(id).exists() || self.plain_path(id).exists()
    }

    /// Reads the key of the authority `id`. A plain file is sealed on the way when there is a sealing key.
    pub fn load(&self, id: &str) -> Result<PrivateKey, KeyFileError> {
        let sealed = self.sealed_path(id);
        match &self.sealing {
            Sealing::Sealed(seal) if sealed.exists() => {
                let bytes = read_private(&sealed)?;
                let opened = seal.open(id.as_bytes(), &bytes);
                let der = opened.map_err(|source| KeyFileError::Unseal { path: sealed.clone(), source })?;
                PrivateKey::from_pkcs8_der(&der)
                    .map_err(|source| KeyFileError::Malformed { path: sealed, source })
            }
            Sealing::Sealed(_) => {
                let key = self.load_plain(id)?;
                self.save(id, &key)?;
                remove_file(&self.plain_path(id));
                Ok(key)
            }
            Sealing::Plain if sealed.exists() => Err(KeyFileError::NoSealKey { path: sealed }),
            Sealing::Plain => self.load_plain(id),
        }
    }

    /// Tells of key files that no authority in the database has: a start that was cut short, or a database that was lost.
    pub(crate) fn warn_of_strangers(&self, known: &[AuthorityRecord]) {
        let Ok(files) = std::fs::read_dir(&self.directory) else { return };
        for file in files.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let signers = name.starts_with(crate::policies::KEY_NAME);
            if !signers && !known.iter().any(|record| name.starts_with(&record.id)) {
                tracing::warn!(path = %file.path().display(), "a key file belongs to no authority in the database");
            }
        }
    }

    /// Removes the key of the authority `id`; one that cannot be removed is reported in the log.
    pub fn remove(&self, id: &str) {
        remove_file(&self.sealed_path(id));
        remove_file(&self.plain_path(id));
    }

    fn load_plain(&self, id: &str) -> Result<PrivateKey, KeyFileError> {
        let path = self.plain_path(id);
        let bytes = read_private(&path)?;
        let text = String::from_utf8_lossy(&bytes);
        PrivateKey::from_pem(&text).map_err(|source| KeyFileError::Malformed { path, source })
    }

    fn sealed_path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.key.sealed"))
    }

    fn plain_path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.key"))
    }
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    std::fs::read(path).map(Zeroizing::new).map_err(failed)
}

fn remove_file(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "a key file could not be removed"),
    }
}

/// The name of the systemd credential that seals key files.
pub const SEAL_CREDENTIAL: &str = "vouchsafe-ca-seal-key";
const KEY_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_key_comes_back_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::open(dir.path().join("keys"), Sealing::Plain).unwrap();
        let key = PrivateKey::generate().unwrap();

        store.save("a", &key).unwrap();

        assert_eq!(store.load("a").unwrap().pkcs8_der(), key.pkcs8_der());
        let mode = std::fs::metadata(dir.path().join("keys/a.key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_sealed_key_opens_only_with_its_sealing_key_and_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let open = |byte| {
            KeyStore::open(dir.path().into(), Sealing::Sealed(SealKey::from_bytes([byte; 32]))).unwrap()
        };
        let key = PrivateKey::generate().unwrap();

        open(1).save("a", &key).unwrap();

        assert_eq!(open(1).load("a").unwrap().pkcs8_der(), key.pkcs8_der());
        assert!(matches!(open(2).load("a"), Err(KeyFileError::Unseal { .. })));
        let plain = KeyStore::open(dir.path().into(), Sealing::Plain).unwrap();
        assert!(matches!(plain.load("a"), Err(KeyFileError::NoSealKey { .. })));
        std::fs::rename(dir.path().join("a.key.sealed"), dir.path().join("b.key.sealed")).unwrap();
        assert!(matches!(open(1).load("b"), Err(KeyFileError::Unseal { .. })));
    }

    #[test]
    fn a_plain_key_is_sealed_once_there_is_a_sealing_key() {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        KeyStore::open(dir.path().into(), Sealing::Plain).unwrap().save("a", &key).unwrap();

        let sealing = Sealing::Sealed(SealKey::from_bytes([1; 32]));
        let loaded = KeyStore::open(dir.path().into(), sealing).unwrap().load("a").unwrap();

        assert_eq!(loaded.pkcs8_der(), key.pkcs8_der());
        assert!(!dir.path().join("a.key").exists());
        assert!(dir.path().join("a.key.sealed").exists());
    }

    #[test]
    fn an_exposed_damaged_or_missing_key_is_refused_by_name() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::open(dir.path().into(), Sealing::Plain).unwrap();
        let path = dir.path().join("a.key");

        assert!(store.load("a").err().unwrap().to_string().contains("a.key"));
        durable::write(&path, 0o600, b"nonsense").unwrap();
        assert!(matches!(store.load("a"), Err(KeyFileError::Malformed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(store.load("a"), Err(KeyFileError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn a_sealing_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seal");

        durable::write(&file, 0o644, "ab".repeat(32).as_bytes()).unwrap();
        assert!(matches!(Sealing::find(None, Some(&file)), Err(SealKeyError::Exposed { mode: 0o644, .. })));
        durable::write(&file, 0o600, "ab".repeat(32).as_bytes()).unwrap();
        assert!(matches!(Sealing::find(None, Some(&file)), Ok(Sealing::Sealed(_))));
    }

    #[test]
    fn the_credential_goes_before_the_file_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seal");
        durable::write(&file, 0o600, b"short").unwrap();

        assert!(matches!(Sealing::find(None, None), Ok(Sealing::Plain)));
        assert!(matches!(Sealing::find(None, Some(&file)), Err(SealKeyError::Malformed { .. })));
        std::fs::write(dir.path().join(SEAL_CREDENTIAL), "ab".repeat(32) + "\n").unwrap();
        assert!(matches!(Sealing::find(Some(dir.path()), Some(&file)), Ok(Sealing::Sealed(_))));
    }
}
