//! Proving who a peer is: from a certificate chain, the anchors and the time to a [`Peer`], or to the flaw.
//!
//! The anchors tried are those of the leaf's own trust domain, never a union. A name in a certificate is a claim until the
//! whole chain has been verified.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{Cert, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, VerifiedPath};
use x509_parser::certificate::X509Certificate;

use crate::bundle::{BundleSet, TrustBundle};
use crate::crypto;
use crate::leaf::{self, KeyUsage, Leaf};
use crate::revocation::{Issued, RevocationLists};
use crate::spiffe_id::{SpiffeId, TrustDomain};

mod flaw;
mod seen;

pub use flaw::{Flaw, VerifyError};

use seen::{Accepted, ChainKey, Seen};

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

/// The trust anchors of each trust domain, prepared once for every generation of bundles, and the chains they vouched for.
pub struct Anchors {
    of: BTreeMap<TrustDomain, Vec<Anchor>>,
    revocation: RevocationLists,
    seen: Seen,
}

impl Anchors {
    /// Prepares the anchors of `bundles`. Certificates that are no CA certificates are left out.
    pub fn new(bundles: &BundleSet) -> Self {
        let prepare = |(trust_domain, bundle): (&TrustDomain, &Arc<TrustBundle>)| {
            let anchors = bundle.x509_authorities().iter().filter_map(Anchor::new).collect();
            (trust_domain.clone(), anchors)
        };
        let revocation = bundles.revocation().clone();
        Self { of: bundles.iter().map(prepare).collect(), revocation, seen: Seen::default() }
    }

    /// Returns how many usable anchors `trust_domain` has at `now`.
    pub fn usable(&self, trust_domain: &TrustDomain, now: SystemTime) -> usize {
        self.of
            .get(trust_domain)
            .map_or(0, |anchors| anchors.iter().filter(|anchor| anchor.is_valid(now)).count())
    }

    /// Returns who a chain proved that was verified with these anchors a moment ago.
    pub(crate) fn proved(&self, role: Role, chain: &[CertificateDer<'_>]) -> Option<Peer> {
        let [leaf, intermediates @ ..] = chain else { return None };
        self.seen.any(ChainKey::new(role, leaf, intermediates))
    }

    fn valid(&self, trust_domain: &str, now: SystemTime) -> Result<Vec<&Anchor>, Flaw> {
        let anchors = self.of.get(trust_domain).ok_or(Flaw::UnknownTrustDomain)?;
        // webpki looks at no anchor's validity, so an expired root would stay trusted.
        let valid: Vec<_> = anchors.iter().filter(|anchor| anchor.is_valid(now)).collect();
        if valid.is_empty() { Err(Flaw::NoUsableAnchor) } else { Ok(valid) }
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.of.iter().map(|(trust_domain, anchors)| (trust_domain, anchors.len())))
            .finish()
    }
}

/// Verifies a chain, of which `leaf` is the first certificate, for a peer that acts as `role` at `now`.
///
/// A chain that these anchors vouched for before is looked up; the result is the same.
pub fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &Anchors,
    role: Role,
    now: SystemTime,
) -> Result<Peer, VerifyError> {
    let key = ChainKey::new(role, leaf, intermediates);
    if let Some(peer) = anchors.seen.at(key, now) {
        return Ok(peer);
    }
    let parsed = Leaf::parse(leaf)?;
    let id = &parsed.id;
    let checked = unix_time(now).and_then(|time| {
        let trusted = anchors.valid(id.trust_domain_name(), now)?;
        check_chain(leaf, intermediates, &Trusted { anchors: &trusted, but: &anchors.revocation }, role, time)
    });
    let validity = checked.map_err(|flaw| flaw.claimed_by(id))?;
    let not_before = validity.not_before.max(parsed.not_before);
    let not_after = validity.not_after.min(parsed.not_after);
    let peer = Peer::new(parsed, leaf);
    anchors.seen.remember(key, Accepted { peer: peer.clone(), not_before, not_after });
    Ok(peer)
}

/// While when everything is valid that vouches for a leaf.
#[derive(Debug, Clone, Copy)]
struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        Self {
            not_before: leaf::system_time(certificate.validity().not_before),
            not_after: leaf::system_time(certificate.validity().not_after),
        }
    }

    fn contains(self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

/// Whose signatures count, and what they have taken back.
struct Trusted<'a> {
    anchors: &'a [&'a Anchor],
    but: &'a RevocationLists,
}

/// Checks a chain and returns while when its intermediates and its anchor are valid.
fn check_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trusted: &Trusted<'_>,
    role: Role,
    time: UnixTime,
) -> Result<Validity, Flaw> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(Flaw::TooManyIntermediates { found: intermediates.len() });
    }
    let signers: Vec<_> = intermediates.iter().filter_map(Signer::new).collect();
    let certificates: Vec<_> = signers.iter().map(|signer| signer.der.clone()).collect();
    let anchors: Vec<_> = trusted.anchors.iter().map(|anchor| anchor.borrowed()).collect();
    let leaf = EndEntityCert::try_from(leaf).map_err(Flaw::from_chain)?;
    let path = leaf
        .verify_for_usage(
            crypto::provider().signature_verification_algorithms.all,
            &anchors,
            &certificates,
            time,
            BothRoles { needed: role },
            None,
            None,
        )
        .map_err(Flaw::from_chain)?;
    let used = anchors.iter().zip(trusted.anchors).find(|(anchor, _)| std::ptr::eq(*anchor, path.anchor()));
    let (_, anchor) = used.ok_or(Flaw::UnknownIssuer)?;
    if is_revoked(&path, anchor, trusted.but) {
        return Err(Flaw::Revoked);
    }
    // Intermediates that the path did not need count too: nothing is remembered for longer than all of it is valid.
    Ok(signers.iter().fold(anchor.validity, |validity, signer| validity.and(signer.validity)))
}

/// Says whether the leaf or an intermediate of the path was taken back by who issued it.
fn is_revoked(path: &VerifiedPath<'_>, anchor: &Anchor, lists: &RevocationLists) -> bool {
    if lists.is_empty() {
        return false;
    }
    let leaf: &Cert<'_> = path.end_entity();
    let certificates: Vec<&Cert<'_>> =
        std::iter::once(leaf).chain(path.intermediate_certificates()).collect();
    let mut keys: Vec<Vec<u8>> =
        path.intermediate_certificates().map(|issuer| issuer.subject_public_key_info().to_vec()).collect();
    keys.push(anchor.key.clone());
    certificates.iter().zip(&keys).any(|(certificate, key)| {
        lists.revoke(Issued { serial: certificate.serial(), issuer: certificate.issuer(), key })
    })
}

fn unix_time(now: SystemTime) -> Result<UnixTime, Flaw> {
    let since_epoch = now.duration_since(UNIX_EPOCH).map_err(|_| Flaw::ClockBeforeEpoch)?;
    Ok(UnixTime::since_unix_epoch(since_epoch))
}

/// An intermediate that may sign certificates.
struct Signer<'a> {
    der: CertificateDer<'a>,
    validity: Validity,
}

impl<'a> Signer<'a> {
    fn new(der: &'a CertificateDer<'_>) -> Option<Self> {
        let certificate = leaf::certificate(der).ok()?;
        may_sign(&certificate)
            .then(|| Self { der: CertificateDer::from(der.as_ref()), validity: Validity::of(&certificate) })
    }
}

/// webpki takes `cA=true` as leave to sign; RFC 5280 4.2.1.3 asks for `keyCertSign` too where key usage is present.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    matches!(KeyUsage::of(certificate), Ok(None | Some(KeyUsage { key_cert_sign: true, .. })))
}

struct Anchor {
    anchor: TrustAnchor<'static>,
    /// The public key as DER.
    key: Vec<u8>,
    validity: Validity,
}

impl Anchor {
    fn new(der: &CertificateDer<'static>) -> Option<Self> {
        let certificate = leaf::certificate(der).ok()?;
        let is_ca = matches!(leaf::is_ca(&certificate), Ok(Some(true)));
        if !is_ca || !may_sign(&certificate) {
            return None;
        }
        let anchor = webpki::anchor_from_trusted_cert(der).ok()?.to_owned();
        let key = certificate.public_key().raw.to_vec();
        Some(Self { anchor, key, validity: Validity::of(&certificate) })
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        self.validity.contains(now)
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
