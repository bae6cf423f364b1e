//! One immutable snapshot of what a process proves itself with and whom it trusts.
//!
//! Certificate, key, bundles and anchors change together: a holder of a snapshot never sees half a rotation.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bundle::BundleSet;
use crate::spiffe_id::SpiffeId;
use crate::svid::X509Svid;
use crate::verify::Anchors;

/// An SVID with the bundles that go with it.
pub struct Credentials {
    svid: Arc<X509Svid>,
    bundles: BundleSet,
    anchors: Arc<Anchors>,
    generation: u64,
}

impl Credentials {
    /// Puts an SVID and bundles together. The bundle of the SVID's own trust domain has to be among them.
    pub fn new(svid: Arc<X509Svid>, bundles: BundleSet) -> Result<Self, CredentialsError> {
        let anchors = Arc::new(Anchors::new(&bundles));
        Self::with_anchors(svid, bundles, anchors)
    }

    /// Takes what is newer and keeps what is not: anchors are prepared again only where the bundles differ.
    pub fn renew(&self, svid: Arc<X509Svid>, bundles: BundleSet) -> Result<Self, CredentialsError> {
        let anchors =
            if bundles == self.bundles { self.anchors.clone() } else { Arc::new(Anchors::new(&bundles)) };
        Self::with_anchors(svid, bundles, anchors)
    }

    /// Returns the SVID.
    pub fn svid(&self) -> &Arc<X509Svid> {
        &self.svid
    }

    /// Returns the bundles.
    pub fn bundles(&self) -> &BundleSet {
        &self.bundles
    }

    /// Returns the anchors made from the bundles.
    pub fn anchors(&self) -> &Arc<Anchors> {
        &self.anchors
    }

    /// Returns the number of this snapshot: higher than that of each one made earlier in this process.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn with_anchors(
        svid: Arc<X509Svid>,
        bundles: BundleSet,
        anchors: Arc<Anchors>,
    ) -> Result<Self, CredentialsError> {
        if bundles.get(svid.id().trust_domain_name()).is_none() {
            return Err(CredentialsError::NoOwnBundle { id: svid.id().clone() });
        }
        Ok(Self { svid, bundles, anchors, generation: GENERATION.fetch_add(1, Ordering::Relaxed) })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("generation", &self.generation)
            .field("svid", &self.svid)
            .field("bundles", &self.bundles)
            .finish_non_exhaustive()
    }
}

/// Why an SVID and bundles do not make credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The SVID's own trust domain is not among the bundles.
    #[error("no trust bundle for the trust domain of {id}")]
    NoOwnBundle {
        /// Whose SVID it is.
        id: SpiffeId,
    },
}

static GENERATION: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests;
