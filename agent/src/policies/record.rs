//! What is kept on disk of a central set, sealed like the SVIDs.

use std::sync::Arc;

use identity::manifest::{Kind, Manifest, ManifestFlaw, Seen, SignedManifest};
use policy::strict::Source;
use serde::{Deserialize, Serialize};

use super::{HeldFile, HeldSet, Known, Policies};
use crate::store::PublicBytes;

/// The newest number seen, and what was handed out last.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoliciesRecord {
    seen: Option<Seen>,
    policies: HandedOut,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum HandedOut {
    Unknown,
    None,
    Set(Box<SetRecord>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRecord {
    manifest: PublicBytes,
    signature: PublicBytes,
    chain: Vec<PublicBytes>,
    since: i64,
    /// In the order of the manifest.
    texts: Vec<String>,
}

/// Why a record is no set.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    /// The manifest cannot be read.
    #[error("malformed manifest")]
    Manifest(#[from] ManifestFlaw),
    /// The files are not those of the manifest.
    #[error("the files are not those of the manifest")]
    Files,
}

impl PoliciesRecord {
    /// Writes down what is known.
    pub(crate) fn of(known: &Known) -> Self {
        let policies = match &known.policies {
            Policies::Unknown => HandedOut::Unknown,
            Policies::None => HandedOut::None,
            Policies::Set(set) => HandedOut::Set(Box::new(SetRecord {
                manifest: PublicBytes(set.signed.manifest.clone()),
                signature: PublicBytes(set.signed.signature.clone()),
                chain: set.signed.chain.iter().map(|der| PublicBytes(der.to_vec())).collect(),
                since: set.since,
                texts: set.files.iter().map(|file| file.source.text.clone()).collect(),
            })),
        };
        Self { seen: known.seen.clone(), policies }
    }

    /// Reads back what was known. The seal vouches for the signature, which was verified when the set was taken.
    pub(crate) fn known(self, kind: Kind) -> Result<Known, PoliciesError> {
        let policies = match self.policies {
            HandedOut::Unknown => Policies::Unknown,
            HandedOut::None => Policies::None,
            HandedOut::Set(record) => Policies::Set(Arc::new(record.set(kind)?)),
        };
        Ok(Known { seen: self.seen, policies, refused: None })
    }
}

impl SetRecord {
    fn set(self, kind: Kind) -> Result<HeldSet, PoliciesError> {
        let manifest = Manifest::parse(&self.manifest.0)?;
        if manifest.files().len() != self.texts.len() {
            return Err(PoliciesError::Files);
        }
        let mut files = Vec::with_capacity(self.texts.len());
        for (wanted, text) in manifest.files().iter().zip(self.texts) {
            if !wanted.is(text.as_bytes()) {
                return Err(PoliciesError::Files);
            }
            let source = Source { name: wanted.name().to_owned(), text };
            files.push(Arc::new(HeldFile::of(kind, wanted.sha256(), source)));
        }
        let signed = SignedManifest {
            manifest: self.manifest.0,
            signature: self.signature.0,
            chain: self.chain.into_iter().map(|der| der.0.into()).collect(),
        };
        Ok(HeldSet { manifest, signed, since: self.since, files })
    }
}
