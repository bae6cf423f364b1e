//! What a request proves by its token, beside what its connection proves.

use std::{fmt, sync::Arc};

use identity::jwt::{JwtError, Verified};
use policy::{Claims, Issuer, TokenPlace};

/// What the token of a request came to.
#[derive(Debug)]
pub(crate) enum Presented {
    /// There is none.
    Absent,
    /// There is one that proves nothing, or more than one.
    Invalid(Unproven),
    /// There is one, and an issuer that the policies declare vouches for it.
    Verified(Proven),
}

impl Presented {
    /// Returns what a record may show of the token: its issuer and its key, never the token or whom it is about.
    pub(crate) fn as_audit(&self) -> Option<audit::Jwt> {
        match self {
            Self::Absent => None,
            Self::Invalid(unproven) => Some(audit::Jwt {
                issuer: unproven.issuer.clone(),
                key_id: unproven.key_id.clone(),
                flaw: Some(unproven.reason),
            }),
            Self::Verified(proven) => Some(audit::Jwt {
                issuer: Some(proven.issuer.issuer.to_string()),
                key_id: proven.key_id.clone(),
                flaw: None,
            }),
        }
    }

    /// Returns the flaw's name, for metrics; "verified" where there is none.
    pub(crate) fn outcome(&self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::Invalid(unproven) => Some(unproven.reason),
            Self::Verified(_) => Some("verified"),
        }
    }
}

/// A verified token.
pub(crate) struct Proven {
    claims: Claims,
    issuer: Arc<Issuer>,
    key_id: Option<String>,
    /// The header field to remove before the request goes on, where the issuer's declaration says so.
    strip: Option<Arc<str>>,
}

impl Proven {
    pub(super) fn new(verified: Verified, issuer: Arc<Issuer>, place: &TokenPlace) -> Self {
        let strip = match place {
            TokenPlace::Header { name, .. } if !issuer.forward => Some(Arc::clone(name)),
            // As Envoy does, a query and cookies go on as they are.
            TokenPlace::Header { .. } | TokenPlace::Parameter(_) | TokenPlace::Cookie(_) => None,
        };
        let key_id = verified.key_id().map(str::to_owned);
        Self { claims: Claims::verified(verified.into_claims()), issuer, key_id, strip }
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(crate) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    pub(crate) fn strip(&self) -> Option<&Arc<str>> {
        self.strip.as_ref()
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Proven").field("issuer", &self.issuer.issuer).finish_non_exhaustive()
    }
}

/// A token that proves nothing, and why.
#[derive(Debug)]
pub(crate) struct Unproven {
    reason: &'static str,
    /// Who the token says has issued it. A claim of the caller's.
    issuer: Option<String>,
    key_id: Option<String>,
}

impl Unproven {
    pub(super) fn several() -> Self {
        Self { reason: "several", issuer: None, key_id: None }
    }

    pub(super) fn not_text() -> Self {
        Self { reason: "not_text", issuer: None, key_id: None }
    }

    pub(super) fn unknown_issuer(claimed: Option<&str>, key_id: Option<String>) -> Self {
        Self { reason: "unknown_issuer", issuer: claimed.map(str::to_owned), key_id }
    }

    pub(super) fn no_keys(issuer: &Issuer, key_id: Option<String>) -> Self {
        Self { reason: "no_keys", issuer: Some(issuer.issuer.to_string()), key_id }
    }

    pub(super) fn flawed(flaw: JwtError, issuer: Option<&Issuer>, key_id: Option<String>) -> Self {
        Self { reason: flaw.reason(), issuer: issuer.map(|issuer| issuer.issuer.to_string()), key_id }
    }
}
