//! Why a token proves nothing, and why a key set is none. No text of either is in the error.

/// A part of a compact token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first.
    Header,
    /// The second.
    Claims,
    /// The third.
    Signature,
}

impl std::fmt::Display for Part {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Header => "header",
            Self::Claims => "claims",
            Self::Signature => "signature",
        })
    }
}

/// Why a token proves nothing: the first rule that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is longer than [`MAX_TOKEN_BYTES`](super::MAX_TOKEN_BYTES).
    #[error("token is too long")]
    TooLong,
    /// It has not exactly three parts.
    #[error("token has not exactly three parts")]
    Parts,
    /// A part is not base64url without padding, in its one form.
    #[error("{0} is not canonical base64url")]
    Base64(Part),
    /// A part is not JSON.
    #[error("{0} is not JSON")]
    Json(Part),
    /// A part names something twice.
    #[error("{0} has a duplicate name")]
    Duplicate(Part),
    /// A part is JSON, but no object.
    #[error("{0} is not an object")]
    NotAnObject(Part),
    /// The algorithm is missing, `none`, symmetric or unknown.
    #[error("signature algorithm is missing or not accepted")]
    Algorithm,
    /// The header asks for something that is not understood here, and must be.
    #[error("header has an extension that must be understood")]
    Critical,
    /// The header brings a key of its own.
    #[error("header brings its own key")]
    EmbeddedKey,
    /// The header says that it is some other kind of token.
    #[error("token is of another kind")]
    Type,
    /// The key identifier is no text or is too long.
    #[error("key identifier is invalid")]
    KeyId,
    /// The issuer has no key of this identifier.
    #[error("no key of this identifier is known")]
    UnknownKey,
    /// The issuer has no key that suits the algorithm.
    #[error("no key suits the algorithm")]
    KeyMismatch,
    /// No key that was tried made the signature.
    #[error("signature is wrong")]
    Signature,
    /// A claim is not of the kind it has to be.
    #[error("claim {name} is invalid")]
    Claim {
        /// Which one.
        name: &'static str,
    },
    /// It is of another issuer, or of none.
    #[error("issuer is another")]
    Issuer,
    /// It does not say when it expires.
    #[error("expiry is missing")]
    NoExpiry,
    /// It has expired.
    #[error("token has expired")]
    Expired,
    /// It is not valid so early.
    #[error("token is not valid yet")]
    NotYetValid,
    /// It says that it was issued later than now.
    #[error("token is issued in the future")]
    IssuedInFuture,
    /// It is meant for somebody else, or for nobody.
    #[error("audience is another")]
    Audience,
    /// The clock of this host cannot be right.
    #[error("clock is before 1970")]
    Clock,
}

impl JwtError {
    /// Returns the flaw's name for audit records and metrics. It never changes meaning.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Parts => "parts",
            Self::Base64(_) => "base64",
            Self::Json(_) => "json",
            Self::Duplicate(_) => "duplicate_name",
            Self::NotAnObject(_) => "not_an_object",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::EmbeddedKey => "embedded_key",
            Self::Type => "type",
            Self::KeyId => "key_id",
            Self::UnknownKey => "unknown_key",
            Self::KeyMismatch => "key_mismatch",
            Self::Signature => "signature",
            Self::Claim { .. } => "claim",
            Self::Issuer => "issuer",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::Audience => "audience",
            Self::Clock => "clock",
        }
    }
}

/// Why a key set cannot be used. One bad key spoils the set: nobody can say what the others are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is longer than is looked at.
    #[error("key set is longer than {max} bytes", max = super::MAX_SET_BYTES)]
    TooLong,
    /// It is not a JSON object with a list `keys`, or names something twice.
    #[error("key set is not a JSON object with a list of keys")]
    NotASet,
    /// It has more keys than are looked at.
    #[error("key set has more than {max} keys", max = super::MAX_KEYS)]
    TooMany,
    /// It has no key that can verify a signature here.
    #[error("key set has no key that can be used")]
    NoUsableKey,
    /// A key is not an object with a kind, or one of its fields has the wrong form.
    #[error("key {index} is malformed: {field}")]
    Malformed {
        /// Which key, from 0.
        index: usize,
        /// Which field.
        field: &'static str,
    },
    /// A key is secret: whoever reads the set could sign.
    #[error("key {index} has a secret part")]
    Secret {
        /// Which key, from 0.
        index: usize,
    },
    /// An RSA key can be broken.
    #[error("key {index} is an RSA key of fewer than 2048 or more than 8192 bits, or with a small exponent")]
    Weak {
        /// Which key, from 0.
        index: usize,
    },
}

impl KeySetError {
    /// Returns the flaw's name for logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::NotASet => "not_a_set",
            Self::TooMany => "too_many",
            Self::NoUsableKey => "no_usable_key",
            Self::Malformed { .. } => "malformed",
            Self::Secret { .. } => "secret",
            Self::Weak { .. } => "weak",
        }
    }
}
