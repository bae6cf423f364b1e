//! Why a manifest is not signed, not believed, or not taken.

use super::{MAX_FILE_BYTES, MAX_FILES, MAX_MANIFEST_BYTES, MAX_SET_BYTES};
use crate::spiffe_id::{ParseIdError, SpiffeId, TrustDomain};
use crate::verify::VerifyError;

/// Why a manifest cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The signer shows no certificate.
    #[error("manifest comes without its signer's certificate")]
    NoCertificate,
    /// The signer's certificates lead to no authority of the trust domain.
    #[error("the signer's certificate is not one of this trust domain")]
    Chain(#[from] VerifyError),
    /// The signer is somebody, but not the policy signer.
    #[error("manifest is signed by {found}, only {wanted} may")]
    Signer {
        /// Who signed.
        found: SpiffeId,
        /// Who may sign.
        wanted: SpiffeId,
    },
    /// The trust domain's name is too long for the signer to have an identity.
    #[error("the trust domain is too long for a policy signer")]
    SignerId(#[from] ParseIdError),
    /// The signature is not one of the signer over these bytes.
    #[error("the signature does not fit the manifest")]
    Signature,
    /// The bytes are no manifest.
    #[error("the signed bytes are no manifest")]
    Manifest(#[from] ManifestFlaw),
    /// The policies are another trust domain's.
    #[error("manifest is for the trust domain {found}")]
    TrustDomain {
        /// Which.
        found: TrustDomain,
    },
    /// It is meant for somebody else.
    #[error("manifest is meant for {found:?}")]
    Audience {
        /// For whom.
        found: String,
    },
}

/// Why something is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFlaw {
    /// There are more bytes than are looked at.
    #[error("manifest has {bytes} bytes, at most {MAX_MANIFEST_BYTES} are read")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// The bytes are not JSON of this shape.
    #[error("manifest is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The same could be said in other bytes.
    #[error("manifest is not in its one form")]
    NotCanonical,
    /// Numbers begin at 1.
    #[error("manifest has the number 0")]
    Number,
    /// The time of signing is no time.
    #[error("manifest was signed at no possible time")]
    SignedAt,
    /// The content hash is no SHA-256.
    #[error("generation is not a SHA-256 in lower-case hexadecimal")]
    Generation,
    /// There are too many files.
    #[error("manifest names {files} files, at most {MAX_FILES} are allowed")]
    TooManyFiles {
        /// How many.
        files: usize,
    },
    /// The files are too long together.
    #[error("manifest speaks of {bytes} bytes, at most {MAX_SET_BYTES} are allowed")]
    TooMuch {
        /// How many.
        bytes: u64,
    },
    /// A file has a name that could stand for another place.
    #[error("manifest names the file {name:?}, which is no plain file name")]
    FileName {
        /// The name.
        name: String,
    },
    /// A file is too long.
    #[error("file {name} has {bytes} bytes, at most {MAX_FILE_BYTES} are allowed")]
    FileTooLong {
        /// The name.
        name: String,
        /// How long it is.
        bytes: u64,
    },
    /// Names stand out of order or twice.
    #[error("file {name} stands out of order, or twice")]
    Order {
        /// The second name.
        name: String,
    },
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key is of another kind.
    #[error("the signing key is not a P-256 key")]
    Key,
    /// Signing failed.
    #[error("cannot sign the manifest")]
    Sign(#[source] rustls::Error),
}

/// Why a manifest is not taken though its signature is good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A later one was taken before.
    #[error("set {number} is older than set {seen}, which was taken before")]
    Older {
        /// The number of the manifest.
        number: u64,
        /// The number seen.
        seen: u64,
    },
    /// The same number stood for other files before.
    #[error("set {number} has other files than the set {number} that was taken before")]
    OtherContent {
        /// The number of both.
        number: u64,
    },
}
