//! Why an access was refused, in the words the record and the metric use.

/// Why an access was refused. The text forms are part of the record's format and never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A deny rule matched.
    ExplicitDeny,
    /// Policies protect the workload, and no allow rule matched.
    NoAllowMatched,
    /// No policy protects the workload.
    NoPolicy,
    /// The rule asks for an identity and the peer showed none.
    Unauthenticated,
    /// A token did not verify.
    JwtInvalid,
    /// The bytes are not a request that can be read in one way; the code names the flaw.
    MalformedRequest(&'static str),
    /// No good policy set has been loaded.
    PolicyUnavailable,
    /// The TLS handshake failed; the code is the verifier's.
    HandshakeFailed(&'static str),
    /// A bundle or serial number was withdrawn under a live connection.
    TrustWithdrawn,
    /// A limit was reached; the code names it.
    LimitExceeded(&'static str),
    /// Not for this caller, or nothing that may pass (a tunnel, another protocol); the code says which check failed.
    NotPermitted(&'static str),
}

impl Reason {
    /// Returns the name of the reason, as `status_detail` and the metric's label carry it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExplicitDeny => "explicit_deny",
            Self::NoAllowMatched => "no_allow_matched",
            Self::NoPolicy => "no_policy",
            Self::Unauthenticated => "unauthenticated",
            Self::JwtInvalid => "jwt_invalid",
            Self::MalformedRequest(_) => "malformed_request",
            Self::PolicyUnavailable => "policy_unavailable",
            Self::HandshakeFailed(_) => "handshake_failed",
            Self::TrustWithdrawn => "trust_withdrawn",
            Self::LimitExceeded(_) => "limit_exceeded",
            Self::NotPermitted(_) => "not_permitted",
        }
    }

    /// Returns the finer code of a reason that has one.
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Self::MalformedRequest(code)
            | Self::HandshakeFailed(code)
            | Self::LimitExceeded(code)
            | Self::NotPermitted(code) => Some(code),
            Self::ExplicitDeny
            | Self::NoAllowMatched
            | Self::NoPolicy
            | Self::Unauthenticated
            | Self::JwtInvalid
            | Self::PolicyUnavailable
            | Self::TrustWithdrawn => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names = [
            Reason::ExplicitDeny,
            Reason::NoAllowMatched,
            Reason::NoPolicy,
            Reason::Unauthenticated,
            Reason::JwtInvalid,
            Reason::MalformedRequest("x"),
            Reason::PolicyUnavailable,
            Reason::HandshakeFailed("x"),
            Reason::TrustWithdrawn,
            Reason::LimitExceeded("x"),
            Reason::NotPermitted("x"),
        ]
        .map(Reason::as_str);

        let distinct: std::collections::BTreeSet<_> = names.into_iter().collect();

        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn a_code_is_kept_apart_from_the_name() {
        let reason = Reason::HandshakeFailed("expired");

        assert_eq!((reason.as_str(), reason.code()), ("handshake_failed", Some("expired")));
        assert_eq!(Reason::NoPolicy.code(), None);
    }
}
