//! The policy signer: a key of its own, with a certificate from the authority that signs, so that the trust bundle vouches for it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{
    KeyError, ParseIdError, PrivateKey, SpiffeId, SvidError, TrustDomain, X509Svid,
    manifest::{Kind, SignedManifest, signer_id},
    rotation::renew_at,
};
use rustls_pki_types::CertificateDer;

use super::{Numbered, SignSetError};
use crate::{
    authority::{
        Authority,
        keys::{KeyFileError, KeyStore},
    },
    issue::{CsrError, IssueError, RequestedKey, Subject},
};

/// Signs manifests of one kind.
pub(crate) struct Signer {
    kind: Kind,
    trust_domain: TrustDomain,
    id: SpiffeId,
    key: Arc<PrivateKey>,
    ttl: Duration,
    held: Option<Held>,
}

struct Held {
    authority: String,
    svid: X509Svid,
}

/// Why there is no signer.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The trust domain is too long.
    #[error("the trust domain is too long for the policy signer's SPIFFE ID")]
    Id(#[from] ParseIdError),
    /// The key file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The key.
    #[error("cannot make the policy signer's key")]
    Key(#[from] KeyError),
    /// The request.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The certificate.
    #[error("cannot issue the policy signer's certificate")]
    Issue(#[from] IssueError),
    /// The pair.
    #[error("the policy signer's certificate cannot be used")]
    Svid(#[from] SvidError),
}

impl Signer {
    /// Reads the signer's key, or makes one. Its certificates last for half of `ca_ttl`: longer than what agents hold.
    pub(crate) fn open(
        keys: &KeyStore,
        trust_domain: TrustDomain,
        ca_ttl: Duration,
    ) -> Result<Self, SignerError> {
        let id = signer_id(&trust_domain)?;
        let key = if keys.has(KEY_NAME) {
            keys.load(KEY_NAME)?
        } else {
            let key = PrivateKey::generate()?;
            keys.save(KEY_NAME, &key)?;
            key
        };
        let (kind, key, ttl) = (Kind::Policies, Arc::new(key), ca_ttl / TTL_FRACTION);
        Ok(Self { kind, trust_domain, id, key, ttl, held: None })
    }

    /// The same signer for sets of `kind`. What it signs of one kind nobody takes for the other.
    pub(crate) fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Gets a certificate from `authority` where the held one is another's, or past the half of its life. Tells whether it did.
    pub(crate) fn certify(&mut self, authority: &Authority, now: SystemTime) -> Result<bool, SignerError> {
        if self.renewal(authority).is_some_and(|renewal| now < renewal) {
            return Ok(false);
        }
        let key = RequestedKey::from_csr(&self.key.csr(None)?)?;
        let subject = Subject { id: self.id.clone(), dns_names: Vec::new(), ttl: self.ttl };
        let issued = authority.issue(&key, &subject, now)?;
        let chain = issued.chain.into_iter().map(CertificateDer::from).collect();
        let svid = X509Svid::from_chain(chain, self.key.clone(), None)?;
        self.held = Some(Held { authority: authority.id().to_owned(), svid });
        Ok(true)
    }

    /// When a new certificate from `authority` is due. One that lasts as long as the authority does cannot get better.
    pub(crate) fn renewal(&self, authority: &Authority) -> Option<SystemTime> {
        let held = self.held.as_ref().filter(|held| held.authority == authority.id())?;
        let svid = &held.svid;
        let capped = svid.not_after() >= authority.not_after();
        Some(if capped { svid.not_after() } else { renew_at(svid.not_before(), svid.not_after(), 0.0) })
    }

    /// Signs the manifest of `set`.
    pub(crate) fn sign(&self, set: &Numbered, now: SystemTime) -> Result<SignedManifest, SignSetError> {
        let chain = self.held.as_ref().map(|held| held.svid.chain().to_vec()).unwrap_or_default();
        let signed = set.manifest(self.kind, &self.trust_domain, now)?.sign(&self.key, chain)?;
        if signed.manifest.len() > identity::manifest::MAX_MANIFEST_BYTES {
            return Err(SignSetError::TooLong);
        }
        Ok(signed)
    }
}

/// The name of the signer's key among the authorities' keys.
pub(crate) const KEY_NAME: &str = "policy-signer";
/// Renewed at its half, the certificate of what agents hold lasts for a quarter of an authority's life at least.
const TTL_FRACTION: u32 = 2;

#[cfg(test)]
mod tests {
    use identity::{
        Anchors, BundleSet, TrustBundle,
        manifest::{SIDECARS, Seen},
    };

    use super::*;
    use crate::authority::keys::Sealing;

    #[test]
    fn what_is_signed_is_verified_by_the_authoritys_bundle_also_after_a_restart() {
        let home = Home::new();
        let authority = home.authority(now(0));
        let mut signer = home.signer();

        assert!(signer.certify(&authority, now(1)).unwrap());
        let first = signer.sign(&set(3), now(1)).unwrap();
        let mut again = home.signer();
        again.certify(&authority, now(2)).unwrap();
        let second = again.sign(&set(3), now(2)).unwrap();

        for signed in [first, second] {
            let manifest = signed.verify(&anchors(&authority), &domain(), SIDECARS, now(3)).unwrap();
            assert_eq!(manifest.number(), 3);
        }
        assert_eq!(signer.key.public_key_spki(), again.key.public_key_spki());
    }

    #[test]
    fn a_certificate_is_renewed_at_half_its_life_and_with_a_new_authority() {
        let home = Home::new();
        let authority = home.authority(now(0));
        let mut signer = home.signer();
        signer.certify(&authority, now(0)).unwrap();

        let early = signer.certify(&authority, now(100)).unwrap();
        let half = signer.certify(&authority, now(260)).unwrap();
        let successor = home.authority(now(300));
        let other = signer.certify(&successor, now(300)).unwrap();

        assert!(!early);
        assert!(half);
        assert!(other);
    }

    #[test]
    fn a_certificate_that_ends_with_its_authority_is_kept_until_then() {
        let home = Home::new();
        let authority = home.authority(now(0));
        let mut signer = home.signer();
        signer.certify(&authority, now(900)).unwrap();

        assert!(!signer.certify(&authority, now(990)).unwrap());
    }

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn signer(&self) -> Signer {
            let keys = KeyStore::open(self.0.path().join("keys"), Sealing::Plain).unwrap();
            Signer::open(&keys, domain(), LIFE).unwrap()
        }

        fn authority(&self, now: SystemTime) -> Authority {
            Authority::make(&domain(), &PrivateKey::generate().unwrap(), LIFE, now).unwrap()
        }
    }

    fn set(number: u64) -> Numbered {
        let generation = "0".repeat(64);
        Numbered { seen: Seen { number, generation }, since: 0, files: Vec::new() }
    }

    fn anchors(authority: &Authority) -> Anchors {
        let bundle = TrustBundle::new(domain(), vec![authority.certificate().clone()]).unwrap();
        Anchors::new(&BundleSet::from_iter([bundle]))
    }

    fn domain() -> TrustDomain {
        TrustDomain::parse("prod.test").unwrap()
    }

    fn now(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    const LIFE: Duration = Duration::from_secs(1000);
}
