//! Why a certificate chain does not prove a peer.

use std::fmt;

use crate::spiffe_id::{ParseIdError, SpiffeId};

/// A chain that was not accepted: the flaw, and who the leaf claims to be where that could be read.
///
/// The claim is unproven. It belongs into an audit record and nowhere else.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyError {
    flaw: Flaw,
    claimed: Option<SpiffeId>,
}

impl VerifyError {
    /// Returns the flaw.
    pub fn flaw(&self) -> &Flaw {
        &self.flaw
    }

    /// Returns the flaw's name for audit records and metrics.
    pub fn reason(&self) -> &'static str {
        self.flaw.reason()
    }

    /// Returns who the leaf claims to be.
    pub fn claimed_id(&self) -> Option<&SpiffeId> {
        self.claimed.as_ref()
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.claimed {
            Some(id) => write!(f, "{} (claimed to be {id})", self.flaw),
            None => self.flaw.fmt(f),
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.flaw)
    }
}

impl From<Flaw> for VerifyError {
    fn from(flaw: Flaw) -> Self {
        Self { flaw, claimed: None }
    }
}

/// What is wrong with a chain: the first rule that it breaks.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// The peer sent no certificate.
    #[error("peer sent no certificate")]
    NoCertificate,
    /// A certificate is longer than is looked at.
    #[error("certificate has {bytes} bytes, too many")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// The leaf is no X.509 certificate.
    #[error("leaf is not a certificate")]
    Malformed,
    /// Bytes follow the leaf.
    #[error("bytes follow the leaf certificate")]
    TrailingBytes,
    /// An extension is malformed or occurs twice.
    #[error("{name} extension is malformed or occurs twice")]
    MalformedExtension {
        /// The extension.
        name: &'static str,
    },
    /// The leaf has no or several URI names.
    #[error("leaf has {found} URI names, expected exactly one")]
    UriNames {
        /// How many there are.
        found: usize,
    },
    /// The URI name has bytes outside ASCII.
    #[error("URI name is not ASCII")]
    UriNotAscii,
    /// The URI name is no SPIFFE ID.
    #[error("URI name is not a SPIFFE ID")]
    SpiffeId {
        /// What is wrong with it.
        source: ParseIdError,
    },
    /// The SPIFFE ID names a trust domain, not somebody in it.
    #[error("SPIFFE ID of the leaf has no path")]
    NoPath,
    /// The leaf does not say that it is no CA.
    #[error("leaf has no basic constraints")]
    NoBasicConstraints,
    /// The leaf is a CA certificate.
    #[error("leaf is a CA certificate")]
    LeafIsCa,
    /// The leaf has no key usage.
    #[error("leaf has no key usage")]
    NoKeyUsage,
    /// The key usage of the leaf is not critical.
    #[error("key usage of the leaf is not critical")]
    KeyUsageNotCritical,
    /// The leaf's key must not sign handshakes.
    #[error("key usage of the leaf lacks digitalSignature")]
    NoDigitalSignature,
    /// The leaf's key may sign certificates.
    #[error("key usage of the leaf has keyCertSign")]
    KeyCertSign,
    /// The leaf's key may sign revocation lists.
    #[error("key usage of the leaf has cRLSign")]
    CrlSign,
    /// The extended key usage names one role only, or none.
    #[error("extended key usage does not have both serverAuth and clientAuth")]
    ExtendedKeyUsage,
    /// The chain is too long.
    #[error("chain has {found} intermediates, too many")]
    TooManyIntermediates {
        /// How many there are.
        found: usize,
    },
    /// There is no bundle for the leaf's trust domain.
    #[error("no trust bundle for the leaf's trust domain")]
    UnknownTrustDomain,
    /// The bundle of the leaf's trust domain has no certificate that is a CA and valid.
    #[error("trust bundle of the leaf's trust domain has no usable root")]
    NoUsableAnchor,
    /// The leaf or an intermediate has expired.
    #[error("certificate has expired")]
    Expired,
    /// The leaf or an intermediate is not valid yet.
    #[error("certificate is not valid yet")]
    NotYetValid,
    /// No path leads to an anchor of the trust domain.
    #[error("chain does not reach a root of the trust domain")]
    UnknownIssuer,
    /// A signature in the chain is wrong.
    #[error("signature in the chain is wrong")]
    BadSignature,
    /// A certificate that is no CA signed another.
    #[error("leaf was signed by a certificate that is no CA")]
    IssuerIsNotCa,
    /// A certificate has a critical extension that nobody here knows.
    #[error("unknown critical extension in the chain")]
    UnknownCriticalExtension,
    /// The chain breaks another rule of RFC 5280.
    #[error("chain is not valid")]
    Chain {
        /// What the path validation said.
        source: webpki::Error,
    },
    /// The clock shows a time before 1970.
    #[error("clock is before 1970")]
    ClockBeforeEpoch,
    /// The server proved an identity that is not among the expected ones.
    #[error("server is not among the expected identities")]
    UnexpectedServer,
    /// A revocation list takes a certificate of the chain back.
    #[error("a certificate of the chain is revoked")]
    Revoked,
}

impl Flaw {
    /// Returns the flaw's name for audit records and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::TooLarge { .. } => "certificate_too_large",
            Self::Malformed => "malformed_certificate",
            Self::TrailingBytes => "trailing_bytes",
            Self::MalformedExtension { .. } => "malformed_extension",
            Self::UriNames { .. } => "not_one_uri_name",
            Self::UriNotAscii | Self::SpiffeId { .. } => "invalid_spiffe_id",
            Self::NoPath => "spiffe_id_without_path",
            Self::NoBasicConstraints => "no_basic_constraints",
            Self::LeafIsCa => "leaf_is_ca",
            Self::NoKeyUsage => "no_key_usage",
            Self::KeyUsageNotCritical => "key_usage_not_critical",
            Self::NoDigitalSignature => "no_digital_signature",
            Self::KeyCertSign => "leaf_may_sign_certificates",
            Self::CrlSign => "leaf_may_sign_crls",
            Self::ExtendedKeyUsage => "extended_key_usage",
            Self::TooManyIntermediates { .. } => "too_many_intermediates",
            Self::UnknownTrustDomain => "unknown_trust_domain",
            Self::NoUsableAnchor => "no_usable_root",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::IssuerIsNotCa => "issuer_is_not_ca",
            Self::UnknownCriticalExtension => "unknown_critical_extension",
            Self::Chain { .. } => "invalid_chain",
            Self::ClockBeforeEpoch => "clock_before_epoch",
            Self::UnexpectedServer => "unexpected_server",
            Self::Revoked => "revoked",
        }
    }

    /// Notes who the leaf claims to be.
    pub(crate) fn claimed_by(self, id: &SpiffeId) -> VerifyError {
        VerifyError { flaw: self, claimed: Some(id.clone()) }
    }

    pub(crate) fn from_chain(error: webpki::Error) -> Self {
        use webpki::Error as Chain;

        match error {
            Chain::CertExpired { .. } => Self::Expired,
            Chain::CertNotValidYet { .. } => Self::NotYetValid,
            Chain::UnknownIssuer => Self::UnknownIssuer,
            Chain::InvalidSignatureForPublicKey => Self::BadSignature,
            Chain::EndEntityUsedAsCa => Self::IssuerIsNotCa,
            Chain::CaUsedAsEndEntity => Self::LeafIsCa,
            Chain::UnsupportedCriticalExtension => Self::UnknownCriticalExtension,
            Chain::RequiredEkuNotFoundContext(_) => Self::ExtendedKeyUsage,
            source => Self::Chain { source },
        }
    }
}
