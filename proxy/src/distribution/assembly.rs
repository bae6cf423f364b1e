//! Puts a delivery together: begin, files, end. Bounded before anything of it is believed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use identity::{
    SpiffeId,
    crypto::sha256,
    manifest::{MAX_FILE_BYTES, MAX_FILES, MAX_MANIFEST_BYTES, MAX_SET_BYTES, Manifest, SignedManifest},
};
use policy::Workload;
use proto::vouchsafe::v1::{DeliveredWorkload, DeliveryBegin, PolicyFile};
use rustls_pki_types::CertificateDer;

use crate::{config::istio::MAX_LABELS, policies::Central};

/// What is wrong with a delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeliveryFlaw {
    #[error("a message without content")]
    Empty,
    #[error("a file or an end without a beginning")]
    Order,
    #[error("a set without a manifest")]
    NoManifest,
    #[error("a manifest of more than {MAX_MANIFEST_BYTES} bytes")]
    Manifest,
    #[error("more than {MAX_FILES} files, or more than {MAX_SET_BYTES} bytes of them")]
    TooMuch,
    #[error("the file {name:?} twice, or unannounced")]
    Unexpected { name: String },
    #[error("the file {name:?} is not the one in the manifest")]
    OtherFile { name: String },
    #[error("the file {name:?} is missing")]
    Missing { name: String },
    #[error("more than {MAX_WORKLOADS} workloads or {MAX_LABELS} labels of one")]
    Workloads,
    #[error("a workload with an identity that is none")]
    Id,
    #[error("the end of the set {ended} at the end of the set {begun}")]
    Number { ended: u64, begun: u64 },
}

/// The contents that are at hand, by their SHA-256: they are not sent again.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<[u8; 32], Arc<[u8]>>);

impl Held {
    pub(super) fn hashes(&self) -> Vec<Vec<u8>> {
        self.0.keys().map(|hash| hash.to_vec()).collect()
    }
}

/// A delivery under way.
#[derive(Debug)]
pub(super) struct Assembly {
    manifest: SignedManifest,
    announced: BTreeSet<String>,
    sent: BTreeMap<String, Arc<[u8]>>,
    bytes: u64,
    workloads: Vec<Workload>,
}

/// A whole delivery. Nothing of it is believed.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) manifest: SignedManifest,
    /// The number that the end of the delivery names.
    pub(super) number: u64,
    announced: BTreeSet<String>,
    /// Everything at hand when the delivery ended.
    contents: HashMap<[u8; 32], Arc<[u8]>>,
    workloads: Arc<Vec<Workload>>,
}

impl Assembly {
    pub(super) fn begin(begin: DeliveryBegin) -> Result<Self, DeliveryFlaw> {
        let signed = begin.manifest.ok_or(DeliveryFlaw::NoManifest)?;
        if signed.manifest.len() > MAX_MANIFEST_BYTES {
            return Err(DeliveryFlaw::Manifest);
        }
        if begin.files.len() > MAX_FILES {
            return Err(DeliveryFlaw::TooMuch);
        }
        if begin.workloads.len() > MAX_WORKLOADS {
            return Err(DeliveryFlaw::Workloads);
        }
        let manifest = SignedManifest {
            manifest: signed.manifest,
            signature: signed.signature,
            chain: signed.signer_chain.into_iter().map(CertificateDer::from).collect(),
        };
        let workloads = begin.workloads.into_iter().map(workload).collect::<Result<_, _>>()?;
        let announced = begin.files.into_iter().collect();
        Ok(Self { manifest, announced, sent: BTreeMap::new(), bytes: 0, workloads })
    }

    pub(super) fn add(&mut self, file: PolicyFile) -> Result<(), DeliveryFlaw> {
        let length = u64::try_from(file.content.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        if length > MAX_FILE_BYTES || self.bytes > MAX_SET_BYTES {
            return Err(DeliveryFlaw::TooMuch);
        }
        if !self.announced.contains(&file.name) || self.sent.contains_key(&file.name) {
            return Err(DeliveryFlaw::Unexpected { name: file.name });
        }
        self.sent.insert(file.name, file.content.into());
        Ok(())
    }

    /// Ends the delivery. From then on its contents are those at hand, and no others.
    pub(super) fn end(self, number: u64, held: &mut Held) -> Result<Assembled, DeliveryFlaw> {
        let sent = self.sent.into_values().map(|content| (sha256(&content), content));
        let mut contents = std::mem::take(&mut held.0);
        contents.extend(sent);
        // What the manifest says is not believed yet; which of the contents it names is no matter of belief. What is no
        // manifest names none: the contents of one delivery after the other would fill the memory.
        let named = Manifest::parse(&self.manifest.manifest).ok();
        if let Some(begun) = named.as_ref().map(Manifest::number).filter(|begun| *begun != number) {
            return Err(DeliveryFlaw::Number { ended: number, begun });
        }
        let wanted: BTreeSet<&str> = named
            .iter()
            .flat_map(|manifest| self.announced.iter().filter_map(|name| manifest.file(name)))
            .map(identity::manifest::ManifestFile::sha256)
            .collect();
        contents.retain(|hash, _| wanted.contains(identity::crypto::hex(hash).as_str()));
        held.0.clone_from(&contents);
        Ok(Assembled {
            manifest: self.manifest,
            number,
            announced: self.announced,
            contents,
            workloads: Arc::new(self.workloads),
        })
    }
}

impl Assembled {
    /// Joins the files that were announced with what the verified manifest says of them.
    pub(super) fn central(&self, manifest: &Manifest) -> Result<Central, DeliveryFlaw> {
        let mut files = Vec::with_capacity(self.announced.len());
        for name in &self.announced {
            let other = || DeliveryFlaw::OtherFile { name: name.clone() };
            let entry = manifest.file(name).ok_or_else(other)?;
            let hash = identity::crypto::from_hex::<32>(entry.sha256()).ok_or_else(other)?;
            let missing = || DeliveryFlaw::Missing { name: name.clone() };
            let content = self.contents.get(&hash).ok_or_else(missing)?;
            if !entry.is(content) {
                return Err(other());
            }
            files.push((name.clone(), Arc::clone(content)));
        }
        Ok(Central::signed(manifest.generation(), files, Arc::clone(&self.workloads)))
    }
}

fn workload(delivered: DeliveredWorkload) -> Result<Workload, DeliveryFlaw> {
    if delivered.labels.len() > MAX_LABELS {
        return Err(DeliveryFlaw::Workloads);
    }
    let id = SpiffeId::parse(&delivered.spiffe_id).map_err(|_| DeliveryFlaw::Id)?;
    Ok(Workload { id, namespace: delivered.namespace, labels: delivered.labels.into_iter().collect() })
}

/// Most identities of one sidecar: as many as an agent holds for one process and more.
const MAX_WORKLOADS: usize = 256;
