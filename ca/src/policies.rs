//! Central policies: the directory's files as one set, numbered, signed and handed to agents; and who runs what. Services
//! travel in sets of the same make (see `catalogue`).
//!
//! A set is good as a whole or not at all, and a bad one never takes the place of a good one. Its number grows with every
//! change of its content and survives a restart, for receivers refuse what is older than what they had.

use std::sync::Arc;

use identity::{
    TrustDomain,
    manifest::{Kind, Manifest, ManifestFile, ManifestFlaw, Seen, SignError, SignedManifest},
};
use policy::strict::Source;

use crate::store::PolicySetRecord;

pub(crate) mod directory;
mod press;
mod publish;
mod signer;
pub mod status;

pub(crate) use press::Press;
pub(crate) use publish::Publisher;
pub use signer::SignerError;
pub(crate) use signer::{KEY_NAME, Signer};

/// What agents are told.
#[derive(Clone)]
pub(crate) enum Published {
    /// The configuration names no policies.
    None,
    /// There is no good set so far.
    Pending,
    /// The set in force.
    Set(Arc<SignedSet>),
}

/// A set with its signature.
pub(crate) struct SignedSet {
    /// The set.
    pub(crate) set: Arc<Numbered>,
    /// Its manifest.
    pub(crate) signed: SignedManifest,
}

/// A set as the store numbered it.
pub(crate) struct Numbered {
    /// Its number and content hash.
    pub(crate) seen: Seen,
    /// Since when it is in force, in Unix seconds.
    pub(crate) since: i64,
    /// Its files, by name.
    pub(crate) files: Vec<(ManifestFile, Source)>,
}

impl Numbered {
    /// Takes what the store has.
    pub(crate) fn of(record: PolicySetRecord) -> Self {
        let describe = |file: Source| (ManifestFile::of(&*file.name, file.text.as_bytes()), file);
        Self {
            seen: Seen { number: record.number, generation: record.generation },
            since: record.since,
            files: record.files.into_iter().map(describe).collect(),
        }
    }

    fn manifest(
        &self,
        kind: Kind,
        trust_domain: &TrustDomain,
        now: std::time::SystemTime,
    ) -> Result<Manifest, ManifestFlaw> {
        let files = self.files.iter().map(|(file, _)| file.clone()).collect();
        Manifest::of(kind, trust_domain.clone(), self.seen.clone(), files, now)
    }
}

/// Why a set was not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignSetError {
    /// The set is larger than a manifest can say.
    #[error("the set cannot be handed out")]
    Manifest(#[from] ManifestFlaw),
    /// The signer has no certificate.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The manifest is too long for what receivers read.
    #[error("the names of the files are too long together: give them shorter ones, or fewer files")]
    TooLong,
}
