//! What survives a restart, sealed on disk: the node's own key and SVID, and the cache of what it serves.
//!
//! Both files are written whole or not at all, mode 0600, and bound to their kind and trust domain: a file that was
//! put in the place of the other one does not open. A file that does not open is reported and left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use identity::TrustDomain;
use identity::crypto::CryptoError;
use identity::crypto::seal::SealKey;
use identity::durable::{self, DurableError};
use identity::manifest::Kind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

mod record;
mod seal_key;

pub(crate) use record::{CacheRecord, NodeRecord, PublicBytes, RecordError};

use crate::policies::{PoliciesError, PoliciesRecord};
pub(crate) use seal_key::SealKeyError;

/// The largest sealed file that is read.
pub(crate) const MAX_SEALED_BYTES: u64 = 256 * 1024 * 1024;

/// The sealed files of one agent.
pub(crate) struct Store {
    directory: PathBuf,
    trust_domain: TrustDomain,
    /// The first one seals; any of them opens.
    keys: Vec<SealKey>,
}

/// What was found on disk.
pub(crate) enum Found<T> {
    /// There is no file.
    Nothing,
    /// There is a file that cannot be used.
    Unusable(StoreError),
    /// There is one.
    Record(T),
}

impl Store {
    /// Opens the store in `directory`, which has to exist, and makes a sealing key if there is none.
    pub(crate) fn open(
        directory: &Path,
        credentials: Option<&Path>,
        trust_domain: TrustDomain,
    ) -> Result<Self, SealKeyError> {
        let keys = seal_key::load(directory, credentials)?;
        Ok(Self { directory: directory.to_owned(), trust_domain, keys })
    }

    /// Reads the node's own key and SVID.
    pub(crate) fn load_node(&self) -> Found<NodeRecord> {
        self.load(NODE)
    }

    /// Writes the node's own key and SVID.
    pub(crate) fn save_node(&self, record: &NodeRecord) -> Result<(), StoreError> {
        self.save(NODE, record)
    }

    /// Reads what the agent served last.
    pub(crate) fn load_cache(&self) -> Found<CacheRecord> {
        self.load(CACHE)
    }

    /// Writes what the agent serves.
    pub(crate) fn save_cache(&self, record: &CacheRecord) -> Result<(), StoreError> {
        self.save(CACHE, record)
    }

    /// Reads the set that was handed out last, and the newest number seen.
    pub(crate) fn load_set(&self, kind: Kind) -> Found<PoliciesRecord> {
        self.load(name_of(kind))
    }

    /// Writes the set that is handed out, and the newest number seen.
    pub(crate) fn save_set(&self, kind: Kind, record: &PoliciesRecord) -> Result<(), StoreError> {
        self.save(name_of(kind), record)
    }

    /// Removes everything that gives an identity or was for its holder only: the CA banned this node.
    pub(crate) fn wipe(&self) -> io::Result<()> {
        for kind in [NODE, CACHE, POLICIES, SERVICES] {
            match fs::remove_file(self.path(kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn load<T: DeserializeOwned>(&self, kind: &str) -> Found<T> {
        let sealed = match read(&self.path(kind)) {
            Ok(Some(sealed)) => sealed,
            Ok(None) => return Found::Nothing,
            Err(error) => return Found::Unusable(error),
        };
        match self.unseal(kind, &sealed) {
            Ok(record) => Found::Record(record),
            Err(error) => Found::Unusable(error),
        }
    }

    fn unseal<T: DeserializeOwned>(&self, kind: &str, sealed: &[u8]) -> Result<T, StoreError> {
        let label = self.label(kind);
        let plain = self.keys.iter().find_map(|key| key.open(&label, sealed).ok());
        let plain = plain.ok_or_else(|| StoreError::Sealed { path: self.path(kind) })?;
        serde_json::from_slice(&plain).map_err(|source| StoreError::Format { path: self.path(kind), source })
    }

    fn save<T: Serialize>(&self, kind: &str, record: &T) -> Result<(), StoreError> {
        let plain =
            Zeroizing::new(serde_json::to_vec(record).map_err(|source| StoreError::Serialise { source })?);
        let key = self.keys.first().ok_or(StoreError::NoKey)?;
        let sealed = key.seal(&self.label(kind), &plain)?;
        Ok(durable::write(&self.path(kind), FILE_MODE, &sealed)?)
    }

    fn label(&self, kind: &str) -> Vec<u8> {
        format!("vouchsafe agent v1 {kind} {}", self.trust_domain).into_bytes()
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{kind}.sealed"))
    }
}

const fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Policies => POLICIES,
        Kind::Services => SERVICES,
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let failed = |source| StoreError::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_SEALED_BYTES => {
            Err(StoreError::TooLarge { path: path.to_owned() })
        }
        Ok(_) => fs::read(path).map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

const NODE: &str = "node";
const CACHE: &str = "cache";
const POLICIES: &str = "policies";
const SERVICES: &str = "services";
const FILE_MODE: u32 = 0o600;

/// Why a sealed file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any that this agent writes.
    #[error("{} is larger than {MAX_SEALED_BYTES} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// The file was altered, or sealed with another key or for another trust domain.
    #[error("{} was altered, or belongs to another key or trust domain", path.display())]
    Sealed {
        /// Which.
        path: PathBuf,
    },
    /// The content is not what this version writes.
    #[error("{} was written by another version", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The content is not what it has to be.
    #[error("the sealed state cannot be used")]
    Record(#[from] RecordError),
    /// The policies are not what they have to be.
    #[error("the sealed set cannot be used")]
    Policies(#[from] PoliciesError),
    /// The record cannot be written down.
    #[error("cannot write down the state")]
    Serialise {
        /// Why.
        source: serde_json::Error,
    },
    /// There is no sealing key.
    #[error("there is no sealing key")]
    NoKey,
    /// Sealing failed.
    #[error("cannot seal the state")]
    Seal(#[from] CryptoError),
    /// Writing failed; what was there before is there still.
    #[error("cannot keep the state")]
    Write(#[from] DurableError),
}

#[cfg(test)]
mod tests;
