//! From the messages of the CA to a set: nothing counts before the manifest is verified, and nothing before everything is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use identity::manifest::{Kind, Manifest, ManifestError, ReplayError, Seen, SignedManifest};
use identity::{Anchors, TrustDomain};
use policy::strict::Source;

use super::{HeldFile, HeldSet, Known};
use crate::wire::unix_seconds;

/// A set on its way in.
pub(crate) struct Assembly<'a> {
    kind: Kind,
    trust_domain: &'a TrustDomain,
    begun: Option<Begun>,
}

/// A set whose manifest is verified, with the files that came so far.
pub(crate) struct Begun {
    kind: Kind,
    manifest: Manifest,
    signed: SignedManifest,
    texts: HashMap<String, String>,
}

/// Why an offer of the CA was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// The manifest cannot be believed.
    #[error("the set is not signed as it has to be")]
    Manifest(#[from] ManifestError),
    /// The manifest is an old one.
    #[error(
        "the set is older than what this node had; if the CA was restored from a backup, attest this node anew"
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
    pub(crate) fn new(kind: Kind, trust_domain: &'a TrustDomain) -> Self {
        Self { kind, trust_domain, begun: None }
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
        let manifest = signed.verify(anchors, self.trust_domain, self.kind.audience(), now)?;
        manifest
            .succeeds(known.seen.as_ref())
            .map_err(|source| TakeError::Replay { offered: manifest.seen(), source })?;
        self.begun = Some(Begun { kind: self.kind, manifest, signed, texts: HashMap::new() });
        Ok(())
    }

    /// Takes a file of the set that was begun.
    pub(crate) fn file(&mut self, name: String, content: Vec<u8>) -> Result<(), TakeError> {
        let Some(begun) = &mut self.begun else { return Err(TakeError::Order { name }) };
        if !begun.manifest.file(&name).is_some_and(|wanted| wanted.is(&content)) {
            return Err(TakeError::File { name });
        }
        let Ok(text) = String::from_utf8(content) else { return Err(TakeError::File { name }) };
        begun.texts.insert(name, text);
        Ok(())
    }

    /// Ends the set that was begun.
    pub(crate) fn end(&mut self, number: u64) -> Result<Begun, TakeError> {
        self.begun.take().filter(|begun| begun.manifest.number() == number).ok_or(TakeError::End)
    }
}

impl Begun {
    /// Puts the set together, with the files that are held already. Looks into every new file, which takes its time.
    pub(crate) fn finish(self, known: &Known, now: SystemTime) -> Result<HeldSet, TakeError> {
        let Self { kind, manifest, signed, mut texts } = self;
        let held = known.policies.set().map(|set| set.by_hash()).unwrap_or_default();
        let mut files = Vec::with_capacity(manifest.files().len());
        for wanted in manifest.files() {
            let name = wanted.name();
            let file = match (texts.remove(name), held.get(wanted.sha256())) {
                (_, Some(held)) => held.named(name),
                (Some(text), None) => {
                    let source = Source { name: name.to_owned(), text };
                    Arc::new(HeldFile::of(kind, wanted.sha256(), source))
                }
                (None, None) => return Err(TakeError::Missing { name: name.to_owned() }),
            };
            files.push(file);
        }
        let same = known.policies.set().filter(|set| set.manifest.seen() == manifest.seen());
        let since = same.map_or_else(|| unix_seconds(now), |set| set.since);
        Ok(HeldSet { manifest, signed, since, files })
    }
}
