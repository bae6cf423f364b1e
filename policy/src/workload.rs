//! The policies of one workload, and what they decide.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::access::{Connection, PeerIdentity, Request};
use crate::decision::{Allowed, Decision, Denial, DenyReason};
use crate::document::{Mode, Policy};
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

pub(crate) struct Protected {
    pub(crate) policies: Vec<Arc<Policy>>,
    pub(crate) index: Index,
    pub(crate) enforced_from: EnforcedFrom,
}

/// From when on at least one policy enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnforcedFrom {
    Always,
    Moment(SystemTime),
}

impl WorkloadPolicies {
    pub(crate) fn new(generation: Arc<str>, policies: Vec<Arc<Policy>>) -> Self {
        let protection = match enforced_from(&policies) {
            None => Protection::None,
            Some(enforced_from) => {
                let index = Index::build(policies.iter().flat_map(|policy| policy.rules.iter().cloned()));
                Protection::Policies(Box::new(Protected { policies, index, enforced_from }))
            }
        };
        Self { generation, protection: Arc::new(protection) }
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

    /// Decides a connection to a port that is served as HTTP, as far as that can be done before a request.
    pub fn at_connect(&self, connection: &Connection<'_>) -> AtConnect {
        let protected = match self.protected() {
            Ok(protected) => protected,
            Err(denial) => return AtConnect::Deny(denial),
        };
        let mut words = vec![0; protected.index.http_words().len()];
        let hits = protected.index.http_connection(connection, &mut words);
        // Judged as if the best request came: what is refused here, no request can pass.
        match protected.judge(connection, Hits { http_deny: None, ..hits }, Layer::Http) {
            Decision::Deny(denial) => AtConnect::Deny(denial),
            Decision::Allow(_) => AtConnect::Residual(Residual {
                policies: self.clone(),
                words: words.into(),
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
                protected.judge(connection, protected.index.http_whole(connection, request), Layer::Http)
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
    words: Box<[u64]>,
    tcp_deny: Option<usize>,
    peer: Proof,
}

impl Residual {
    /// Decides a request on the connection. Nothing is allocated.
    pub fn decide(&self, request: &Request<'_>, now: SystemTime) -> Decision {
        match self.policies.protected() {
            Ok(protected) => {
                let hits = protected.index.http_request(&self.words, request);
                protected.decide(now, self.peer, Hits { tcp_deny: self.tcp_deny, ..hits }, Layer::Http)
            }
            Err(denial) => Decision::Deny(denial),
        }
    }

    /// The generation of the policies it comes from.
    pub fn generation(&self) -> &str {
        self.policies.generation()
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

impl Protected {
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
        if !self.enforces(now) {
            let shadow = shadow.or_else(|| rule.is_none().then(|| Denial::new(nothing, None)));
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

    pub(crate) fn enforces(&self, now: SystemTime) -> bool {
        match self.enforced_from {
            EnforcedFrom::Always => true,
            EnforcedFrom::Moment(moment) => now >= moment,
        }
    }
}

fn enforced_from(policies: &[Arc<Policy>]) -> Option<EnforcedFrom> {
    let moments = policies.iter().map(|policy| match policy.mode {
        Mode::Enforce => EnforcedFrom::Always,
        Mode::Shadow { until } => EnforcedFrom::Moment(until),
    });
    moments.reduce(|earliest, next| match (earliest, next) {
        (EnforcedFrom::Always, _) | (_, EnforcedFrom::Always) => EnforcedFrom::Always,
        (EnforcedFrom::Moment(one), EnforcedFrom::Moment(other)) => EnforcedFrom::Moment(one.min(other)),
    })
}

#[cfg(test)]
mod tests;
