//! Proving who a peer is: from a certificate chain, the anchors and the time to a [`Peer`], or to the flaw.
//!
//! The anchors tried are those of the leaf's own trust domain, never a union. A name in a certificate is a claim until the
//! whole chain has been verified.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter};

use crate::bundle::{BundleSet, TrustBundle};
use crate::crypto;
use crate::leaf::{self, KeyUsage, Leaf};
use crate::spiffe_id::{SpiffeId, TrustDomain};

mod flaw;

pub use flaw::{Flaw, VerifyError};

/// The longest chain a peer may send, without the leaf.
pub const MAX_INTERMEDIATES: usize = 8;

/// Somebody whose certificate chain was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer(Arc<Proof>);

#[derive(PartialEq, Eq)]
struct Proof {
    id: SpiffeId,
    serial: String,
    fingerprint: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Peer {
    /// Returns who it is.
    pub fn id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// Returns the serial number of the leaf in lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// Returns the SHA-256 of the leaf in lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// Returns when the leaf began to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// Returns when the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    pub(crate) fn new(leaf: Leaf, der: &[u8]) -> Self {
        Self(Arc::new(Proof {
            id: leaf.id,
            serial: leaf.serial,
            fingerprint: crypto::hex(&crypto::sha256(der)),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        }))
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", self.id()).field("serial", &self.serial()).finish_non_exhaustive()
    }
}

/// What a peer acts as in the connection it is verified for. An SVID is good for both, so that the rules are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The peer opened the connection.
    Client,
    /// The peer accepted the connection.
    Server,
}

/// The trust anchors of each trust domain, prepared once for every generation of bundles.
pub struct Anchors(BTreeMap<TrustDomain, Vec<Anchor>>);

impl Anchors {
    /// Prepares the anchors of `bundles`. Certificates that are no CA certificates are left out.
    pub fn new(bundles: &BundleSet) -> Self {
        let prepare = |(trust_domain, bundle): (&TrustDomain, &Arc<TrustBundle>)| {
            let anchors = bundle.x509_authorities().iter().filter_map(Anchor::new).collect();
            (trust_domain.clone(), anchors)
        };
        Self(bundles.iter().map(prepare).collect())
    }

    /// Returns how many usable anchors `trust_domain` has at `now`.
    pub fn usable(&self, trust_domain: &TrustDomain, now: SystemTime) -> usize {
        self.0
            .get(trust_domain)
            .map_or(0, |anchors| anchors.iter().filter(|anchor| anchor.is_valid(now)).count())
    }

    fn valid(&self, trust_domain: &str, now: SystemTime) -> Result<Vec<TrustAnchor<'_>>, Flaw> {
        let anchors = self.0.get(trust_domain).ok_or(Flaw::UnknownTrustDomain)?;
        // webpki looks at no anchor's validity, so an expired root would stay trusted.
        let valid: Vec<_> =
            anchors.iter().filter(|anchor| anchor.is_valid(now)).map(Anchor::borrowed).collect();
        if valid.is_empty() { Err(Flaw::NoUsableAnchor) } else { Ok(valid) }
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(trust_domain, anchors)| (trust_domain, anchors.len())))
            .finish()
    }
}

/// Verifies a chain, of which `leaf` is the first certificate, for a peer that acts as `role` at `now`.
pub fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &Anchors,
    role: Role,
    now: SystemTime,
) -> Result<Peer, VerifyError> {
    let parsed = Leaf::parse(leaf)?;
    let id = &parsed.id;
    let checked = unix_time(now).and_then(|time| {
        let trusted = anchors.valid(id.trust_domain_name(), now)?;
        check_chain(leaf, intermediates, &trusted, role, time)
    });
    checked.map_err(|flaw| flaw.claimed_by(id))?;
    Ok(Peer::new(parsed, leaf))
}

fn check_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trusted: &[TrustAnchor<'_>],
    role: Role,
    time: UnixTime,
) -> Result<(), Flaw> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(Flaw::TooManyIntermediates { found: intermediates.len() });
    }
    let signers: Vec<_> = intermediates
        .iter()
        .filter(|der| may_sign(der))
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect();
    EndEntityCert::try_from(leaf)
        .map_err(Flaw::from_chain)?
        .verify_for_usage(
            crypto::provider().signature_verification_algorithms.all,
            trusted,
            &signers,
            time,
            BothRoles { needed: role },
            None,
            None,
        )
        .map_err(Flaw::from_chain)?;
    Ok(())
}

fn unix_time(now: SystemTime) -> Result<UnixTime, Flaw> {
    let since_epoch = now.duration_since(UNIX_EPOCH).map_err(|_| Flaw::ClockBeforeEpoch)?;
    Ok(UnixTime::since_unix_epoch(since_epoch))
}

/// webpki takes `cA=true` as leave to sign; RFC 5280 4.2.1.3 asks for `keyCertSign` too where key usage is present.
fn may_sign(der: &CertificateDer<'_>) -> bool {
    let usage = leaf::certificate(der).and_then(|certificate| KeyUsage::of(&certificate));
    matches!(usage, Ok(None | Some(KeyUsage { key_cert_sign: true, .. })))
}

struct Anchor {
    anchor: TrustAnchor<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Anchor {
    fn new(der: &CertificateDer<'static>) -> Option<Self> {
        let certificate = leaf::certificate(der).ok()?;
        let is_ca = matches!(leaf::is_ca(&certificate), Ok(Some(true)));
        if !is_ca || !may_sign(der) {
            return None;
        }
        Some(Self {
            anchor: webpki::anchor_from_trusted_cert(der).ok()?.to_owned(),
            not_before: leaf::system_time(certificate.validity().not_before),
            not_after: leaf::system_time(certificate.validity().not_after),
        })
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    fn borrowed(&self) -> TrustAnchor<'_> {
        TrustAnchor {
            subject: self.anchor.subject.as_ref().into(),
            subject_public_key_info: self.anchor.subject_public_key_info.as_ref().into(),
            name_constraints: self
                .anchor
                .name_constraints
                .as_ref()
                .map(|constraints| constraints.as_ref().into()),
        }
    }
}

/// Extended key usage may be absent; where it is present, in a leaf or an intermediate, it names both roles.
struct BothRoles {
    needed: Role,
}

impl ExtendedKeyUsageValidator for BothRoles {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let (mut empty, mut server, mut client) = (true, false, false);
        for purpose in purposes {
            let purpose = purpose?;
            empty = false;
            server |= purpose == KeyPurposeId::new(leaf::SERVER_AUTH);
            client |= purpose == KeyPurposeId::new(leaf::CLIENT_AUTH);
        }
        if empty || (server && client) {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext {
            required: match self.needed {
                Role::Client => webpki::KeyUsage::client_auth(),
                Role::Server => webpki::KeyUsage::server_auth(),
            },
            present: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests;
