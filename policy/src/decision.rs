//! What the policies answer.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;

/// What is to happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The access takes place.
    Allow(Allowed),
    /// The access is refused.
    Deny(Denial),
}

impl Decision {
    /// The denial, if it is one.
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Allow(_) => None,
            Self::Deny(denial) => Some(denial),
        }
    }

    /// Whether the access takes place.
    pub fn is_allowed(&self) -> bool {
        self.denial().is_none()
    }
}

/// An access that takes place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// The rule that grants it. Absent where the workload is protected by shadow policies only and none of them has a
    /// rule for it.
    pub rule: Option<RuleRef>,
    /// What would be refused once the shadow policies enforce.
    pub shadow: Option<Denial>,
}

/// An access that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Why.
    pub reason: DenyReason,
    /// The deny rule that matched.
    pub rule: Option<RuleRef>,
    /// The allow rules that come nearest. Only `explain` fills this in.
    pub near_misses: Vec<NearMiss>,
}

impl Denial {
    pub(crate) fn new(reason: DenyReason, rule: Option<RuleRef>) -> Self {
        Self { reason, rule, near_misses: Vec::new() }
    }
}

/// Why an access is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyReason {
    /// A deny rule matches.
    ExplicitDeny,
    /// No allow rule matches.
    NoAllowMatched,
    /// No policy protects the workload.
    NoPolicy,
    /// No allow rule matches, and the peer proved no identity.
    Unauthenticated,
    /// The policies could not be loaded.
    PolicyUnavailable,
    /// The request has a token that proves nothing.
    JwtInvalid,
    /// The request has no form in which it could be decided.
    MalformedRequest,
}

impl DenyReason {
    /// The name in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExplicitDeny => "explicit_deny",
            Self::NoAllowMatched => "no_allow_matched",
            Self::NoPolicy => "no_policy",
            Self::Unauthenticated => "unauthenticated",
            Self::PolicyUnavailable => "policy_unavailable",
            Self::JwtInvalid => "jwt_invalid",
            Self::MalformedRequest => "malformed_request",
        }
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which rule, and where it is written. Cloning copies no text: it is one reference more, for each decision makes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RuleRef(Arc<RulePlace>);

/// What a [`RuleRef`] says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RulePlace {
    /// The name of the policy.
    pub policy: Arc<str>,
    /// The name of the rule.
    pub rule: Arc<str>,
    /// The file as users know it.
    pub file: Arc<str>,
    /// The line of the rule.
    pub line: u32,
}

impl RuleRef {
    /// The name by which records know the rule: `file#rule`.
    pub fn uid(&self) -> String {
        format!("{}#{}", self.file, self.rule)
    }
}

impl From<RulePlace> for RuleRef {
    fn from(place: RulePlace) -> Self {
        Self(Arc::new(place))
    }
}

impl Deref for RuleRef {
    type Target = RulePlace;

    fn deref(&self) -> &RulePlace {
        &self.0
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({}:{})", self.policy, self.rule, self.file, self.line)
    }
}

/// An allow rule that nearly matches, and the first thing in which it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// What does not match.
    pub failed: Dimension,
    /// What the rule asks for.
    pub wanted: String,
    /// What was there.
    pub found: String,
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is {}, the rule wants {}", self.rule, self.failed, self.found, self.wanted)
    }
}

/// What a rule looks at, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The rule is in a policy that does not enforce yet.
    Mode,
    /// Opaque bytes or HTTP.
    Protocol,
    /// The workload's port.
    Port,
    /// The peer.
    From,
    /// The peers spared.
    Except,
    /// The network of the peer.
    SourceNet,
    /// The address that was connected to.
    Destination,
    /// The server name of the handshake.
    Sni,
    /// An answer, a tunnel or another protocol.
    Kind,
    /// The request's method.
    Method,
    /// The request's host.
    Host,
    /// The request's path.
    Path,
    /// A header of the request.
    Header,
    /// The request's token.
    Jwt,
}

impl Dimension {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Protocol => "protocol",
            Self::Port => "port",
            Self::From => "from",
            Self::Except => "except",
            Self::SourceNet => "source_net",
            Self::Destination => "destination",
            Self::Sni => "sni",
            Self::Kind => "kind",
            Self::Method => "method",
            Self::Host => "host",
            Self::Path => "path",
            Self::Header => "header",
            Self::Jwt => "jwt",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
