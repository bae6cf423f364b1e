//! The node's own identity: its key, its SVID, the token that let it in, and the CA's trust bundle.

use std::sync::Arc;
use std::time::SystemTime;

use identity::{BundleSet, Credentials, CredentialsError, PrivateKey, TrustBundle, X509Svid};

use crate::renewal::renewal_at;

/// The node's own identity.
#[derive(Clone)]
pub(crate) struct Node {
    /// The CA that let the node in, or is to let it in.
    pub ca: String,
    /// The key that is certified, or is to be.
    pub key: Arc<PrivateKey>,
    /// The SVID, once the node is attested.
    pub svid: Option<Arc<X509Svid>>,
    /// The SHA-256 of the token that was sent with the key.
    pub token_hash: [u8; 32],
    /// The bundle by which the CA is recognised.
    pub bundle: Option<Arc<TrustBundle>>,
}

/// What an attested node proves itself with.
pub(crate) struct Credential {
    /// SVID and bundle.
    pub credentials: Credentials,
    /// When the SVID is renewed.
    pub renew_at: SystemTime,
}

impl Node {
    /// Returns what the node proves itself with, or `None` where it has to be attested first.
    pub(crate) fn credential(
        &self,
        jitter: f64,
        now: SystemTime,
    ) -> Result<Option<Credential>, CredentialsError> {
        let (Some(svid), Some(bundle)) = (&self.svid, &self.bundle) else { return Ok(None) };
        if svid.not_after() <= now {
            return Ok(None);
        }
        let bundles: BundleSet = [bundle.clone()].into_iter().collect();
        let renew_at = renewal_at(svid, jitter, now);
        Ok(Some(Credential { credentials: Credentials::new(svid.clone(), bundles)?, renew_at }))
    }
}
