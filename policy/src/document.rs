//! A policy file as typed values: what is here was checked, and means what it says.

mod conditions;
mod elements;
mod guarantees;
mod headers;
mod issuers;
mod layers;
mod limits;
mod linking;
mod read;
mod rules;
mod test_cases;
mod test_requests;
mod tokens;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) use conditions::{
    Absent, ClaimLimit, ClaimValue, ConnectionCondition, HeaderReading, RequestCondition, Sense, Split,
    TokenLimits, Told, each_claim_value, is_scope,
};
pub(crate) use guarantees::Guarantee;
pub use issuers::{Issuer, KeySource, TokenPlace};
pub use limits::{
    MAX_AUDIENCES, MAX_CLAIM_DEPTH, MAX_CLAIM_VALUES, MAX_CLAIMS, MAX_FROM, MAX_GUARANTEES,
    MAX_HEADER_VALUES, MAX_HEADERS, MAX_HOSTS, MAX_ISSUERS, MAX_METHODS, MAX_NAME, MAX_NETWORKS, MAX_PATHS,
    MAX_PORTS, MAX_PROTECTS, MAX_PROTOCOLS, MAX_RULES_PER_POLICY, MAX_SERVER_NAMES, MAX_SERVICES, MAX_TESTS,
};
pub(crate) use linking::{KeyFiles, link};
pub(crate) use read::{Document, read};
pub(crate) use tokens::TestToken;

use crate::decision::RuleRef;
use crate::net::Network;
use crate::pattern::{HostPattern, IdPattern, PathPattern};
use crate::strict::Span;

/// One policy.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) name: Arc<str>,
    pub(crate) owner: Option<String>,
    pub(crate) file: Arc<str>,
    pub(crate) protects: Vec<IdPattern>,
    pub(crate) stance: Stance,
    pub(crate) mode: Mode,
    pub(crate) rules: Vec<Arc<Rule>>,
    pub(crate) issuers: Vec<Arc<Issuer>>,
    pub(crate) guarantees: Vec<Guarantee>,
    pub(crate) tests: Vec<TestCase>,
}

/// What becomes of an access for which no rule of the workload says anything, as far as this policy has a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stance {
    /// It is refused.
    Closed,
    /// The policy leaves it to the others: it only refuses, as Istio's DENY policies do.
    Open,
}

impl Policy {
    /// Its name, unique among the policies loaded together.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who answers for it.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The file it was read from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The workloads it protects.
    pub fn protects(&self) -> &[IdPattern] {
        &self.protects
    }

    /// Whether it enforces.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How many allow and deny rules it has.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// The issuers that it declares, and those that its rules rely on.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.issuers.iter().map(|issuer| &**issuer)
    }

    /// How many guarantees it has.
    pub fn guarantee_count(&self) -> usize {
        self.guarantees.len()
    }

    /// How many test cases it has.
    pub fn test_count(&self) -> usize {
        self.tests.len()
    }
}

/// Whether a policy enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Enforce,
    /// It only says what it would refuse, until this moment; from then on it enforces.
    Shadow {
        /// The moment.
        until: SystemTime,
    },
    /// It only says what it would refuse, and nothing ends that: Istio's dry run.
    DryRun,
}

impl Mode {
    /// Whether the policy enforces at `now`.
    pub fn enforces_at(self, now: SystemTime) -> bool {
        match self {
            Self::Enforce => true,
            Self::Shadow { until } => now >= until,
            Self::DryRun => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) reference: RuleRef,
    pub(crate) effect: Effect,
    pub(crate) mode: Mode,
    pub(crate) from: Peers,
    pub(crate) except: Vec<IdPattern>,
    pub(crate) source_net: Limit<Network>,
    pub(crate) ports: Limit<RangeInclusive<u16>>,
    pub(crate) layer: Layer,
    /// What else must hold of the connection.
    pub(crate) at_connect: Vec<ConnectionCondition>,
    /// What else must hold of the request. On opaque TCP a deny rule does without.
    pub(crate) at_request: Vec<RequestCondition>,
}

impl Rule {
    /// Whether the rule asks for more than the index looks up.
    pub(crate) fn is_conditional(&self) -> bool {
        let special = match &self.layer {
            Layer::Tcp => false,
            Layer::Http(limits) => match limits.kinds {
                Kinds::Plain | Kinds::Every => false,
                Kinds::Connect { .. } | Kinds::Upgrade { .. } => true,
            },
        };
        special || !self.at_connect.is_empty() || !self.at_request.is_empty()
    }
}

/// The positive set of a rule: at least one of the three says something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    pub(crate) anyone: bool,
    pub(crate) unauthenticated: bool,
    pub(crate) patterns: Vec<IdPattern>,
}

#[derive(Clone, Debug)]
pub(crate) enum Layer {
    Tcp,
    Http(HttpLimits),
}

#[derive(Clone, Debug)]
pub(crate) struct HttpLimits {
    pub(crate) methods: Limit<Arc<str>>,
    pub(crate) hosts: Limit<HostPattern>,
    pub(crate) paths: Limit<PathPattern>,
    pub(crate) kinds: Kinds,
}

/// Which kinds of requests a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// Those that want an answer.
    Plain,
    /// Every kind.
    Every,
    /// Tunnels to one of these ports of the host.
    Connect { to_ports: Limit<RangeInclusive<u16>> },
    /// Other protocols, in lower case.
    Upgrade { protocols: Limit<Arc<str>> },
}

/// What one dimension of a rule allows for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Limit<T> {
    Any,
    Only(Vec<T>),
}

/// A promise written in the file.
#[derive(Clone, Debug)]
pub(crate) struct TestCase {
    pub(crate) span: Span,
    pub(crate) to: Vec<identity::SpiffeId>,
    pub(crate) from: TestPeer,
    pub(crate) source: std::net::IpAddr,
    pub(crate) at: SystemTime,
    pub(crate) port: u16,
    pub(crate) sni: Option<Arc<str>>,
    pub(crate) request: Option<TestRequest>,
    pub(crate) expect: Effect,
    pub(crate) by: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum TestPeer {
    Authenticated(identity::SpiffeId),
    Unauthenticated,
}

#[derive(Clone, Debug)]
pub(crate) struct TestRequest {
    pub(crate) method: String,
    pub(crate) host: Option<crate::host::CanonicalHost>,
    pub(crate) path: crate::path::CanonicalPath,
    pub(crate) kind: TestKind,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) token: TestToken,
}

/// The kind of request that a test case asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TestKind {
    Plain,
    Connect { port: Option<u16> },
    Upgrade { protocol: Arc<str> },
}

#[cfg(test)]
mod tests;
