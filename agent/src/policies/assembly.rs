//! From the messages of the CA to a set: nothing counts before the manifest is verified, and nothing before everything is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use identity::manifest::{Manifest, ManifestError, ReplayError, SIDECARS, Seen, SignedManifest};
use identity::{Anchors, TrustDomain};
use policy::strict::Source;

use super::{HeldFile, HeldSet, Known};
use crate::wire::unix_seconds;

/// A set on its way in.
pub(crate) struct Assembly<'a> {
    trust_domain: &'a TrustDomain,
    begun: Option<Begun>,
}

struct Begun {
    manifest: Manifest,
    signed: SignedManifest,
    files: HashMap<String, Arc<HeldFile>>,
}

/// Why an offer of the CA was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// The manifest cannot be believed.
    #[error("the policies are not signed as they have to be")]
    Manifest(#[from] ManifestError),
    /// The manifest is an old one.
    #[error(
        "the policies are older than what this node had; if the CA was restored from a backup, attest this node anew"
    )]
    Replay {
        /// What was offered.
        offered: Seen,
        /// How it is older.
        source: ReplayError,
    },
    /// A file came without a manifest.
    #[error("file {name} came before its manifest")]
    Order {
        /// Which.
        name: String,
    },
    /// A file is not what the manifest says.
    #[error("file {name} is not what the manifest says")]
    File {
        /// Which.
        name: String,
    },
    /// The set ended and something is missing.
    #[error("file {name} is missing from the set")]
    Missing {
        /// Which.
        name: String,
    },
    /// The end of another set came.
    #[error("the set ended out of order")]
    End,
}

impl TakeError {
    /// What was offered, as far as it can be believed.
    pub(crate) fn offered(&self) -> Option<&Seen> {
        match self {
            Self::Replay { offered, .. } => Some(offered),
            Self::Manifest(_) | Self::Order { .. } | Self::File { .. } | Self::Missing { .. } | Self::End => {
                None
            }
        }
    }
}

impl<'a> Assembly<'a> {
    /// Begins with nothing.
    pub(crate) fn new(trust_domain: &'a TrustDomain) -> Self {
        Self { trust_domain, begun: None }
    }

    /// Takes a manifest, which voids whatever was begun before.
    pub(crate) fn begin(
        &mut self,
        signed: SignedManifest,
        anchors: &Anchors,
        known: &Known,
        now: SystemTime,
    ) -> Result<(), TakeError> {
        self.begun = None;
        let manifest = signed.verify(anchors, self.trust_domain, SIDECARS, now)?;
        manifest
            .succeeds(known.seen.as_ref())
            .map_err(|source| TakeError::Replay { offered: manifest.seen(), source })?;
        self.begun = Some(Begun { manifest, signed, files: HashMap::new() });
        Ok(())
    }

    /// Takes a file of the set that was begun.
    pub(crate) fn file(&mut self, name: String, content: Vec<u8>) -> Result<(), TakeError> {
        let Some(begun) = &mut self.begun else { return Err(TakeError::Order { name }) };
        let Some(wanted) = begun.manifest.file(&name).filter(|wanted| wanted.is(&content)) else {
            return Err(TakeError::File { name });
        };
        let Ok(text) = String::from_utf8(content) else { return Err(TakeError::File { name }) };
        let file = HeldFile::new(wanted.sha256(), Source { name: name.clone(), text });
        begun.files.insert(name, Arc::new(file));
        Ok(())
    }

    /// Puts the set together, with the files that are held already.
    pub(crate) fn end(&mut self, number: u64, known: &Known, now: SystemTime) -> Result<HeldSet, TakeError> {
        let Some(begun) = self.begun.take().filter(|begun| begun.manifest.number() == number) else {
            return Err(TakeError::End);
        };
        let Begun { manifest, signed, mut files } = begun;
        let held = known.policies.set().map(|set| set.by_hash()).unwrap_or_default();
        let mut whole = Vec::with_capacity(manifest.files().len());
        for wanted in manifest.files() {
            let name = wanted.name();
            let file = files.remove(name).or_else(|| held.get(wanted.sha256()).map(|file| file.named(name)));
            whole.push(file.ok_or_else(|| TakeError::Missing { name: name.to_owned() })?);
        }
        let same = known.policies.set().filter(|set| set.manifest.seen() == manifest.seen());
        let since = same.map_or_else(|| unix_seconds(now), |set| set.since);
        Ok(HeldSet { manifest, signed, since, files: whole })
    }
}
