//! The policies of one workload, and what they decide.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::access::{Connection, PeerIdentity, Request, Token};
use crate::decision::{Allowed, Decision, Denial, DenyReason};
use crate::document::{Issuer, Mode, Policy, RequestCondition, Stance};
use crate::index::{Hit, Hits, Index};

/// The policies that protect one workload, compiled. Cloning is cheap; a clone is the same generation for ever.
#[derive(Clone)]
pub struct WorkloadPolicies {
    pub(crate) generation: Arc<str>,
    pub(crate) protection: Arc<Protection>,
}

/// What stands before a workload.
pub(crate) enum Protection {
    /// The policies could not be loaded.
    Unavailable,
    /// No policy names the workload.
    None,
    /// These do.
    Policies(Box<Protected>),
}

impl Protection {
    /// Compiles policies; without any, everything passes.
    pub(crate) fn by(policies: Vec<Arc<Policy>>) -> Self {
        let index = Index::build(policies.iter().flat_map(|policy| policy.rules.iter().cloned()));
        let closed = closed(&policies);
        let mut issuers = policies.iter().flat_map(|policy| &policy.issuers);
        let refuses_invalid_tokens = issuers.any(|issuer| issuer.refuses_invalid);
        let judges_headers = policies.iter().any(|policy| judges_headers(policy));
        Self::Policies(Box::new(Protected {
            policies,
            index,
            closed,
            refuses_invalid_tokens,
            judges_headers,
        }))
    }
}

pub(crate) struct Protected {
    pub(crate) policies: Vec<Arc<Policy>>,
    pub(crate) index: Index,
    pub(crate) closed: Closed,
    pub(crate) refuses_invalid_tokens: bool,
    judges_headers: bool,
}

/// From when on what no rule allows is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Always.
    Always,
    /// From this moment on, when the first policy enforces. Until then it would be refused.
    From(SystemTime),
    /// At no time, though it would be: a dry run.
    DryRun,
    /// At no time: the policies only refuse.
    Never,
}

impl WorkloadPolicies {
    /// The issuers whose tokens the policies declare.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.protected()
            .ok()
            .into_iter()
            .flat_map(|protected| &protected.policies)
            .flat_map(|policy| &policy.issuers)
    }

    /// Whether header fields of a request matter: some rule looks at them, or tokens are looked for in them.
    pub fn judges_headers(&self) -> bool {
        self.protected().is_ok_and(|protected| protected.judges_headers)
    }

    /// The content hash of the set that these policies come from.
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// Whether no policy protects the workload, so that everything is refused.
    pub fn is_empty(&self) -> bool {
        match &*self.protection {
            Protection::Unavailable | Protection::None => true,
            Protection::Policies(_) => false,
        }
    }

    /// The policies that protect the workload.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        let policies = match &*self.protection {
            Protection::Unavailable | Protection::None => [].as_slice(),
            Protection::Policies(protected) => protected.policies.as_slice(),
        };
        policies.iter().map(|policy| &**policy)
    }

    /// Decides a connection to a port that is served as opaque TCP.
    pub fn decide_tcp(&self, connection: &Connection<'_>) -> Decision {
        match self.protected() {
            Ok(protected) => protected.judge(connection, protected.index.tcp(connection), Layer::Tcp),
            Err(denial) => Decision::Deny(denial),
        }
    }

    /// Decides a connection to a port that is served as HTTP, as far as that can be done before a request. For more than a
    /// thousand rules about requests this takes one allocation, which the connection keeps.
    pub fn at_connect(&self, connection: &Connection<'_>) -> AtConnect {
        let protected = match self.protected() {
            Ok(protected) => protected,
            Err(denial) => return AtConnect::Deny(denial),
        };
        let mut words = Words::new(protected.index.http_words().len());
        let hits = protected.index.http_connection(connection, words.as_mut());
        // Judged as if the best request came: what is refused here, no request can pass.
        match protected.judge(connection, Hits { http_deny: None, ..hits }, Layer::Http) {
            Decision::Deny(denial) => AtConnect::Deny(denial),
            Decision::Allow(_) => AtConnect::Residual(Residual {
                policies: self.clone(),
                words,
                tcp_deny: hits.tcp_deny,
                peer: match connection.peer {
                    PeerIdentity::Authenticated(_) => Proof::Given,
                    PeerIdentity::Unauthenticated => Proof::Missing,
                },
            }),
        }
    }

    /// Decides a request and its connection together.
    pub fn decide_http(&self, connection: &Connection<'_>, request: &Request<'_>) -> Decision {
        match self.protected() {
            Ok(protected) => {
                if let Some(denial) = protected.refused_token(request) {
                    return Decision::Deny(denial);
                }
                let hits = protected.index.http_whole(connection, request);
                blaming_token(protected.judge(connection, hits, Layer::Http), request)
            }
            Err(denial) => Decision::Deny(denial),
        }
    }

    pub(crate) fn protected(&self) -> Result<&Protected, Denial> {
        match &*self.protection {
            Protection::Unavailable => Err(Denial::new(DenyReason::PolicyUnavailable, None)),
            Protection::None => Err(Denial::new(DenyReason::NoPolicy, None)),
            Protection::Policies(protected) => Ok(protected),
        }
    }
}

impl fmt::Debug for WorkloadPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadPolicies").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// What is known of an HTTP connection before its first request.
#[derive(Debug)]
pub enum AtConnect {
    /// No request on it can pass.
    Deny(Denial),
    /// It depends on the request.
    Residual(Residual),
}

/// The rules that a connection left over, to decide its requests by. It belongs to one generation.
#[derive(Debug)]
pub struct Residual {
    policies: WorkloadPolicies,
    words: Words,
    tcp_deny: Option<usize>,
    peer: Proof,
}

impl Residual {
    /// Decides a request on the connection. Nothing is allocated.
    pub fn decide(&self, request: &Request<'_>, now: SystemTime) -> Decision {
        match self.policies.protected() {
            Ok(protected) => {
                if let Some(denial) = protected.refused_token(request) {
                    return Decision::Deny(denial);
                }
                let hits = protected.index.http_request(self.words.as_ref(), request);
                let decision =
                    protected.decide(now, self.peer, Hits { tcp_deny: self.tcp_deny, ..hits }, Layer::Http);
                blaming_token(decision, request)
            }
            Err(denial) => Decision::Deny(denial),
        }
    }

    /// The generation of the policies it comes from.
    pub fn generation(&self) -> &str {
        self.policies.generation()
    }
}

/// The bits of the rules that are left over: beside the connection where they are few, else in the one allocation that a
/// connection costs.
#[derive(Debug)]
enum Words {
    Few { words: [u64; FEW], length: usize },
    Many(Box<[u64]>),
}

impl Words {
    fn new(length: usize) -> Self {
        if length <= FEW { Self::Few { words: [0; FEW], length } } else { Self::Many(vec![0; length].into()) }
    }

    fn as_ref(&self) -> &[u64] {
        match self {
            Self::Few { words, length } => words.get(..*length).unwrap_or_default(),
            Self::Many(words) => words,
        }
    }

    fn as_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Few { words, length } => words.get_mut(..*length).unwrap_or_default(),
            Self::Many(words) => words,
        }
    }
}

/// How the port is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Tcp,
    Http,
}

/// Whether the peer proved an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Given,
    Missing,
}

/// What nothing allows, and what came with a token that proves nothing, may have been meant to be allowed by the token.
fn blaming_token(mut decision: Decision, request: &Request<'_>) -> Decision {
    if let (Decision::Deny(denial), Token::Invalid) = (&mut decision, request.token)
        && denial.rule.is_none()
    {
        denial.reason = DenyReason::JwtInvalid;
    }
    decision
}

impl Protected {
    fn refused_token(&self, request: &Request<'_>) -> Option<Denial> {
        let refused = matches!(request.token, Token::Invalid) && self.refuses_invalid_tokens;
        refused.then(|| Denial::new(DenyReason::JwtInvalid, None))
    }

    fn judge(&self, connection: &Connection<'_>, hits: Hits, layer: Layer) -> Decision {
        let proof = match connection.peer {
            PeerIdentity::Authenticated(_) => Proof::Given,
            PeerIdentity::Unauthenticated => Proof::Missing,
        };
        self.decide(connection.now, proof, hits, layer)
    }

    // Deny beats allow, and nothing said is a denial. A policy in shadow takes nothing away that would pass without it,
    // and grants nothing beside policies that enforce; alone, it lets everything pass.
    fn decide(&self, now: SystemTime, proof: Proof, hits: Hits, layer: Layer) -> Decision {
        let deny = self.deny(hits, now);
        if let Some(Hit { rule, enforces: true }) = deny {
            return Decision::Deny(Denial::new(DenyReason::ExplicitDeny, Some(rule.reference.clone())));
        }
        let number = match layer {
            Layer::Tcp => hits.tcp_allow,
            Layer::Http => hits.http_allow,
        };
        let allow = self.index.hit(number, now);
        let shadow = deny.map(|hit| Denial::new(DenyReason::ExplicitDeny, Some(hit.rule.reference.clone())));
        let nothing = match proof {
            Proof::Given => DenyReason::NoAllowMatched,
            Proof::Missing => DenyReason::Unauthenticated,
        };
        let rule = allow.map(|hit| hit.rule.reference.clone());
        if !self.closes(now) {
            let missed = self.closed != Closed::Never && rule.is_none();
            let shadow = shadow.or_else(|| missed.then(|| Denial::new(nothing, None)));
            return Decision::Allow(Allowed { rule, shadow });
        }
        match allow {
            Some(Hit { enforces: true, .. }) => Decision::Allow(Allowed { rule, shadow }),
            Some(Hit { enforces: false, .. }) | None => Decision::Deny(Denial::new(nothing, None)),
        }
    }

    // Of two matching deny rules the one that enforces; where both do, the one that needs no request.
    fn deny(&self, hits: Hits, now: SystemTime) -> Option<Hit<'_>> {
        let tcp = self.index.hit(hits.tcp_deny, now);
        let http = self.index.hit(hits.http_deny, now);
        match (tcp, http) {
            (Some(Hit { enforces: false, .. }), Some(hit @ Hit { enforces: true, .. })) => Some(hit),
            (Some(hit), _) | (None, Some(hit)) => Some(hit),
            (None, None) => None,
        }
    }

    /// Whether what no rule allows is refused at `now`.
    pub(crate) fn closes(&self, now: SystemTime) -> bool {
        match self.closed {
            Closed::Always => true,
            Closed::From(moment) => now >= moment,
            Closed::DryRun | Closed::Never => false,
        }
    }
}

fn judges_headers(policy: &Policy) -> bool {
    let header = |condition: &RequestCondition| matches!(condition, RequestCondition::Header { .. });
    !policy.issuers.is_empty() || policy.rules.iter().any(|rule| rule.at_request.iter().any(header))
}

fn closed(policies: &[Arc<Policy>]) -> Closed {
    let closing = policies.iter().filter(|policy| policy.stance == Stance::Closed);
    let each = closing.map(|policy| match policy.mode {
        Mode::Enforce => Closed::Always,
        Mode::Shadow { until } => Closed::From(until),
        Mode::DryRun => Closed::DryRun,
    });
    let soonest = each.reduce(|one, other| match (one, other) {
        (Closed::Always, _) | (_, Closed::Always) => Closed::Always,
        (Closed::From(one), Closed::From(other)) => Closed::From(one.min(other)),
        (Closed::From(one), Closed::DryRun | Closed::Never)
        | (Closed::DryRun | Closed::Never, Closed::From(one)) => Closed::From(one),
        (Closed::DryRun, Closed::DryRun | Closed::Never) | (Closed::Never, Closed::DryRun) => Closed::DryRun,
        (Closed::Never, Closed::Never) => Closed::Never,
    });
    soonest.unwrap_or(Closed::Never)
}

/// Words kept without an allocation: enough for a thousand rules about requests.
const FEW: usize = 16;

#[cfg(test)]
mod tests;
