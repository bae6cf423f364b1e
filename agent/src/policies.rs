//! Central sets, of policies and of services, at the agent: taken from the CA only as a whole, signed and not older than before, and kept on disk.
//!
//! What is held stays until something better is proved: a CA that cannot be reached, or offers what does not verify,
//! changes nothing. Not to know whether there are policies is something else than to know that there are none. Services
//! come by the same ways in sets of their own kind; what differs is who may have a file.

use std::collections::HashMap;
use std::sync::Arc;

use identity::manifest::{Kind, Manifest, Seen, SignedManifest};
use policy::Selection;
use policy::strict::Source;

mod assembly;
mod follower;
mod record;
mod sidecars;

pub(crate) use assembly::{Assembly, TakeError};
pub(crate) use follower::Follower;
pub(crate) use record::{PoliciesError, PoliciesRecord};
pub(crate) use sidecars::{MAX_REASON_BYTES, Presence, Report, Sidecar, Sidecars};

/// What the agent knows of central policies.
#[derive(Clone, Default)]
pub(crate) struct Known {
    /// The newest set that was ever accepted.
    pub(crate) seen: Option<Seen>,
    /// What is handed to sidecars.
    pub(crate) policies: Policies,
    /// Why the last offer of the CA was not taken.
    pub(crate) refused: Option<Refused>,
}

/// What is handed to sidecars.
#[derive(Clone, Default)]
pub(crate) enum Policies {
    /// Whether there are any is not known.
    #[default]
    Unknown,
    /// There are none.
    None,
    /// These.
    Set(Arc<HeldSet>),
}

/// An offer of the CA that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What was offered, as far as it can be believed.
    pub(crate) offered: Option<Seen>,
    /// Why it was not taken.
    pub(crate) reason: String,
    /// Since when, in Unix seconds.
    pub(crate) since: i64,
}

/// A whole set, verified.
pub(crate) struct HeldSet {
    /// What it consists of.
    pub(crate) manifest: Manifest,
    /// The proof, for sidecars to verify.
    pub(crate) signed: SignedManifest,
    /// Since when it is held, in Unix seconds.
    pub(crate) since: i64,
    /// The files, in the order of the manifest.
    pub(crate) files: Vec<Arc<HeldFile>>,
}

/// A file of a set.
pub(crate) struct HeldFile {
    /// Its SHA-256 in lower-case hexadecimal.
    pub(crate) sha256: String,
    /// Name and text.
    pub(crate) source: Source,
    /// Which workloads get it.
    pub(crate) selection: Selection,
}

impl HeldFile {
    /// Looks into a file of policies, once.
    #[cfg(test)]
    pub(crate) fn new(sha256: &str, source: Source) -> Self {
        Self::of(Kind::Policies, sha256, source)
    }

    /// Looks into a file, once.
    pub(crate) fn of(kind: Kind, sha256: &str, source: Source) -> Self {
        let selection = match kind {
            Kind::Policies => Selection::of(&source),
            Kind::Services => policy::service::audience(&source),
        };
        Self { sha256: sha256.to_owned(), selection, source }
    }

    /// The same content under `name`.
    fn named(self: &Arc<Self>, name: &str) -> Arc<Self> {
        if self.source.name == name {
            return self.clone();
        }
        let source = Source { name: name.to_owned(), text: self.source.text.clone() };
        Arc::new(Self { sha256: self.sha256.clone(), selection: self.selection.clone(), source })
    }
}

impl Policies {
    /// The set, if there is one.
    pub(crate) fn set(&self) -> Option<&Arc<HeldSet>> {
        match self {
            Self::Unknown | Self::None => None,
            Self::Set(set) => Some(set),
        }
    }
}

impl HeldSet {
    fn by_hash(&self) -> HashMap<&str, &Arc<HeldFile>> {
        self.files.iter().map(|file| (file.sha256.as_str(), file)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
