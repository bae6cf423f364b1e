//! Signed manifests of policies and of services: which files make up a set, under a number that only grows.
//!
//! A manifest has one form in bytes; those bytes are signed, sent and kept. Nothing in them is believed, or even parsed, before
//! the signature was verified, and only the trust domain's policy signer can sign. What was signed once can be shown again at
//! any time, so a receiver keeps the highest number it has [`Seen`] and takes nothing older.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::SignatureScheme;
use rustls_pki_types::{CertificateDer, alg_id};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use webpki::EndEntityCert;

use crate::crypto;
use crate::key::PrivateKey;
use crate::spiffe_id::{ParseIdError, SpiffeId, TrustDomain};
use crate::verify::{Anchors, Role, verify as verify_chain};

mod flaw;

pub use flaw::{ManifestError, ManifestFlaw, ReplayError, SignError};

/// Everything below this path is the CA's own, as `/spire` is. No workload gets such an identity.
pub const RESERVED_PATH: &str = "/vouchsafe";

/// The path of the identity that signs manifests.
pub const SIGNER_PATH: &str = "/vouchsafe/policy-signer";

/// The audience of the policies that sidecars enforce.
pub const SIDECARS: &str = "sidecars";

/// The audience of the services that sidecars call.
pub const SERVICES: &str = "sidecars/services";

/// The longest manifest in bytes.
pub const MAX_MANIFEST_BYTES: usize = 8 * 1024 * 1024;

/// The most files of one set.
pub const MAX_FILES: usize = 20_000;

/// The longest file of a set in bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The most bytes of one set, all files together.
pub const MAX_SET_BYTES: u64 = 64 * 1024 * 1024;

/// The longest name of a file in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The longest signature in bytes: a P-256 signature in DER has at most 72.
pub const MAX_SIGNATURE_BYTES: usize = 128;

/// Returns the identity that signs the manifests of `trust_domain`.
pub fn signer_id(trust_domain: &TrustDomain) -> Result<SpiffeId, ParseIdError> {
    SpiffeId::new(trust_domain, SIGNER_PATH)
}

/// What the files of a set are. A manifest of one kind is never taken for one of the other: its first word differs, and so
/// does its audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Policies, which sidecars enforce.
    Policies,
    /// Services, which sidecars call.
    Services,
}

impl Kind {
    /// For whom the sets of this kind are.
    pub const fn audience(self) -> &'static str {
        match self {
            Self::Policies => SIDECARS,
            Self::Services => SERVICES,
        }
    }

    const fn version(self) -> Version {
        match self {
            Self::Policies => Version::One,
            Self::Services => Version::Services,
        }
    }
}

/// What a set of policies or services consists of. A value obeys every rule for manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    vouchsafe: Version,
    trust_domain: TrustDomain,
    audience: String,
    number: u64,
    generation: Digest,
    signed_at: u64,
    files: Vec<ManifestFile>,
}

/// A file of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    name: String,
    sha256: Digest,
    bytes: u64,
}

/// A manifest as it travels. Only [`SignedManifest::verify`] turns it into a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    /// The bytes that are signed.
    pub manifest: Vec<u8>,
    /// ECDSA P-256 with SHA-256 over them, in DER.
    pub signature: Vec<u8>,
    /// The signer's certificates, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The newest set that a receiver has accepted: what it compares others with, also after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Its number.
    pub number: u64,
    /// Its content hash, in lower-case hexadecimal.
    pub generation: String,
}

/// How a manifest stands to the newest one seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It is newer.
    Newer,
    /// It is of the same set, which may have been signed again.
    Same,
}

impl Manifest {
    /// Describes a set of policies for the sidecars of `trust_domain`. `generation` is its content hash, in lower-case
    /// hexadecimal.
    pub fn new(
        trust_domain: TrustDomain,
        seen: Seen,
        files: Vec<ManifestFile>,
        now: SystemTime,
    ) -> Result<Self, ManifestFlaw> {
        Self::of(Kind::Policies, trust_domain, seen, files, now)
    }

    /// Describes a set of any kind.
    pub fn of(
        kind: Kind,
        trust_domain: TrustDomain,
        seen: Seen,
        mut files: Vec<ManifestFile>,
        now: SystemTime,
    ) -> Result<Self, ManifestFlaw> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let generation = Digest::parse(&seen.generation).ok_or(ManifestFlaw::Generation)?;
        let manifest = Self {
            vouchsafe: kind.version(),
            trust_domain,
            audience: kind.audience().to_owned(),
            number: seen.number,
            generation,
            signed_at: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            files,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Parses bytes that were verified. Only the one form of a manifest is read.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestFlaw> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestFlaw::TooLong { bytes: bytes.len() });
        }
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| ManifestFlaw::Malformed { reason: error.to_string() })?;
        if manifest.to_bytes() != bytes {
            return Err(ManifestFlaw::NotCanonical);
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Returns the one form in bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only values that cannot be written as JSON fail here: maps with other keys than text, and there is no map.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Signs the manifest with the signer's `key`, whose certificates are `chain`.
    pub fn sign(
        &self,
        key: &PrivateKey,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<SignedManifest, SignError> {
        let manifest = self.to_bytes();
        let signer = key
            .signing_key()
            .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
            .ok_or(SignError::Key)?;
        let signature = signer.sign(&manifest).map_err(SignError::Sign)?;
        Ok(SignedManifest { manifest, signature, chain })
    }

    /// Tells whether this manifest may take the place of the newest one seen.
    pub fn succeeds(&self, seen: Option<&Seen>) -> Result<Freshness, ReplayError> {
        let Some(seen) = seen else { return Ok(Freshness::Newer) };
        let number = self.number;
        if number > seen.number {
            return Ok(Freshness::Newer);
        }
        if number < seen.number {
            return Err(ReplayError::Older { number, seen: seen.number });
        }
        if self.generation() != seen.generation {
            return Err(ReplayError::OtherContent { number });
        }
        Ok(Freshness::Same)
    }

    /// What to keep of this manifest once it was taken.
    pub fn seen(&self) -> Seen {
        Seen { number: self.number, generation: self.generation().to_owned() }
    }

    /// The number of the set.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The content hash of the set, in lower-case hexadecimal.
    pub fn generation(&self) -> &str {
        &self.generation.0
    }

    /// When it was signed. The same set is signed again with every new certificate of the signer.
    pub fn signed_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.signed_at)
    }

    /// The files, sorted by name.
    pub fn files(&self) -> &[ManifestFile] {
        &self.files
    }

    /// The file called `name`.
    pub fn file(&self, name: &str) -> Option<&ManifestFile> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        self.files.get(at)
    }

    fn check(&self) -> Result<(), ManifestFlaw> {
        if self.number == 0 {
            return Err(ManifestFlaw::Number);
        }
        // More seconds than that are no moment that a clock can show.
        if self.signed_at > u64::from(u32::MAX) * 64 {
            return Err(ManifestFlaw::SignedAt);
        }
        if self.files.len() > MAX_FILES {
            return Err(ManifestFlaw::TooManyFiles { files: self.files.len() });
        }
        let mut total = 0_u64;
        for file in &self.files {
            file.check()?;
            total = total.saturating_add(file.bytes);
        }
        if total > MAX_SET_BYTES {
            return Err(ManifestFlaw::TooMuch { bytes: total });
        }
        match self.files.windows(2).find(|pair| matches!(pair, [a, b] if a.name >= b.name)) {
            Some(pair) => {
                let name = pair.last().map(|file| file.name.clone()).unwrap_or_default();
                Err(ManifestFlaw::Order { name })
            }
            None => Ok(()),
        }
    }
}

impl ManifestFile {
    /// Describes a file by what is in it.
    pub fn of(name: impl Into<String>, content: &[u8]) -> Self {
        Self {
            name: name.into(),
            sha256: Digest::of(content),
            bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
        }
    }

    /// Its name: no path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The SHA-256 of its content, in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256.0
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether `content` is what the manifest speaks of.
    pub fn is(&self, content: &[u8]) -> bool {
        u64::try_from(content.len()) == Ok(self.bytes) && Digest::of(content) == self.sha256
    }

    fn check(&self) -> Result<(), ManifestFlaw> {
        let name = &self.name;
        let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
        if !fits || name.starts_with('.') || name.chars().any(|c| c == '/' || c.is_control()) {
            return Err(ManifestFlaw::FileName { name: name.clone() });
        }
        if self.bytes > MAX_FILE_BYTES {
            return Err(ManifestFlaw::FileTooLong { name: name.clone(), bytes: self.bytes });
        }
        Ok(())
    }
}

impl SignedManifest {
    /// Returns the manifest, if the policy signer of `trust_domain` made it, for this trust domain and for `audience`.
    pub fn verify(
        &self,
        anchors: &Anchors,
        trust_domain: &TrustDomain,
        audience: &str,
        now: SystemTime,
    ) -> Result<Manifest, ManifestError> {
        if self.manifest.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::Manifest(ManifestFlaw::TooLong { bytes: self.manifest.len() }));
        }
        let (leaf, rest) = self.chain.split_first().ok_or(ManifestError::NoCertificate)?;
        let peer = verify_chain(leaf, rest, anchors, Role::Client, now)?;
        let signer = signer_id(trust_domain)?;
        if *peer.id() != signer {
            return Err(ManifestError::Signer { found: peer.id().clone(), wanted: signer });
        }
        self.check_signature(leaf)?;
        let manifest = Manifest::parse(&self.manifest)?;
        if manifest.trust_domain != *trust_domain {
            return Err(ManifestError::TrustDomain { found: manifest.trust_domain });
        }
        if manifest.audience != audience || manifest.vouchsafe.kind().audience() != audience {
            return Err(ManifestError::Audience { found: manifest.audience });
        }
        Ok(manifest)
    }

    fn check_signature(&self, leaf: &CertificateDer<'_>) -> Result<(), ManifestError> {
        if self.signature.len() > MAX_SIGNATURE_BYTES {
            return Err(ManifestError::Signature);
        }
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| ManifestError::Signature)?;
        let provider = crypto::provider();
        let p256 = provider.signature_verification_algorithms.all.iter().find(|algorithm| {
            algorithm.public_key_alg_id() == alg_id::ECDSA_P256
                && algorithm.signature_alg_id() == alg_id::ECDSA_SHA256
        });
        let p256 = p256.ok_or(ManifestError::Signature)?;
        leaf.verify_signature(*p256, &self.manifest, &self.signature).map_err(|_| ManifestError::Signature)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "policy-manifest/v1")]
    One,
    #[serde(rename = "service-manifest/v1")]
    Services,
}

impl Version {
    const fn kind(self) -> Kind {
        match self {
            Self::One => Kind::Policies,
            Self::Services => Kind::Services,
        }
    }
}

/// A SHA-256 in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Digest(String);

impl Digest {
    fn of(content: &[u8]) -> Self {
        Self(crypto::hex(&crypto::sha256(content)))
    }

    fn parse(text: &str) -> Option<Self> {
        crypto::from_hex::<32>(text).map(|_| Self(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a SHA-256 in lower-case hexadecimal"))
    }
}

#[cfg(test)]
mod tests;
