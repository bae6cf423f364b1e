//! What of one rule does not match an access.

use crate::access::{Connection, PeerIdentity, Request, RequestKind, Traffic};
use crate::decision::{Dimension, NearMiss};
use crate::document::{ConnectionCondition, Effect, HttpLimits, Layer, Limit, RequestCondition, Rule};

use super::Verdict;
use super::words::{clipped, found, in_words, wanted};

/// What of a rule does not match, in the order of [`Dimension`].
pub(super) struct Failures<'a> {
    rule: &'a Rule,
    connection: &'a Connection<'a>,
    traffic: &'a Traffic<'a>,
    failed: [Option<Dimension>; DIMENSIONS.len()],
}

/// A condition of a rule.
#[derive(Clone, Copy)]
pub(super) enum Asked<'a> {
    OfConnection(&'a ConnectionCondition),
    OfRequest(&'a RequestCondition, &'a Request<'a>),
}

/// Compares a rule with an access.
pub(super) fn failures<'a>(
    rule: &'a Rule,
    connection: &'a Connection<'a>,
    traffic: &'a Traffic<'a>,
) -> Failures<'a> {
    let mut failures = Failures { rule, connection, traffic, failed: [None; DIMENSIONS.len()] };
    let failed = DIMENSIONS.map(|dimension| {
        let fits = failures.limit_fits(dimension) && failures.failing_condition(dimension).is_none();
        (!fits).then_some(dimension)
    });
    failures.failed = failed;
    failures
}

impl<'a> Failures<'a> {
    pub(super) fn count(&self) -> usize {
        self.failed.iter().flatten().count()
    }

    pub(super) fn first(&self) -> Option<Dimension> {
        self.failed.iter().flatten().next().copied()
    }

    pub(super) fn near_miss(&self) -> Option<NearMiss> {
        let failed = self.first()?;
        let (wanted, found) = self.said(failed);
        Some(NearMiss { rule: self.rule.reference.clone(), failed, wanted, found })
    }

    /// Whether the rule matches, whatever its mode: what a rule in shadow says is part of the walk.
    pub(super) fn verdict(&self) -> Verdict {
        let first = self.failed.iter().flatten().find(|dimension| **dimension != Dimension::Mode);
        match (first, self.traffic, &self.rule.layer) {
            (Some(dimension), ..) => {
                let (wanted, found) = self.said(*dimension);
                Verdict::Fails { dimension: *dimension, wanted, found }
            }
            (None, Traffic::HttpConnection, Layer::Http(_)) => Verdict::DependsOnRequest,
            (None, ..) => Verdict::Matches,
        }
    }

    /// What the rule wants of something, and what was there.
    fn said(&self, dimension: Dimension) -> (String, String) {
        let (wanted, found) = match self.failing_condition(dimension) {
            Some(condition) if self.limit_fits(dimension) => in_words(condition, self.connection),
            Some(_) | None => {
                (wanted(self.rule, dimension), found(self.rule, dimension, self.connection, self.traffic))
            }
        };
        (clipped(wanted), clipped(found))
    }

    fn limit_fits(&self, dimension: Dimension) -> bool {
        let (rule, connection) = (self.rule, self.connection);
        match dimension {
            Dimension::Mode => rule.mode.enforces_at(connection.now),
            Dimension::Protocol => protocol_fits(rule, self.traffic),
            Dimension::Port => within(&rule.ports, |range| range.contains(&connection.port)),
            Dimension::From => named(rule, connection.peer),
            Dimension::Except => match connection.peer {
                PeerIdentity::Authenticated(id) => !rule.except.iter().any(|pattern| pattern.matches(id)),
                PeerIdentity::Unauthenticated => true,
            },
            Dimension::SourceNet => within(&rule.source_net, |net| net.contains(connection.source)),
            Dimension::Kind | Dimension::Method | Dimension::Host | Dimension::Path => {
                match (&rule.layer, self.traffic) {
                    (Layer::Http(limits), Traffic::HttpRequest(request)) => {
                        request_fits(rule.effect, limits, request, dimension)
                    }
                    (Layer::Http(_), Traffic::Tcp | Traffic::HttpConnection) | (Layer::Tcp, _) => true,
                }
            }
            Dimension::Destination | Dimension::Sni | Dimension::Header | Dimension::Jwt => true,
        }
    }

    fn failing_condition(&self, dimension: Dimension) -> Option<Asked<'a>> {
        let opaque = matches!(self.traffic, Traffic::Tcp);
        let holds = |condition: &ConnectionCondition| {
            condition.holds(self.connection) && !(opaque && *condition == ConnectionCondition::Http)
        };
        let of_connection = self
            .rule
            .at_connect
            .iter()
            .find(|condition| looked_at(condition) == dimension && !holds(condition));
        if let Some(condition) = of_connection {
            return Some(Asked::OfConnection(condition));
        }
        let Traffic::HttpRequest(request) = self.traffic else { return None };
        let mut of_request = self.rule.at_request.iter();
        of_request
            .find(|condition| asked_of(condition) == dimension && !condition.holds(request))
            .map(|condition| Asked::OfRequest(condition, request))
    }
}

// An http deny on opaque TCP refuses the connection: its requests cannot be seen.
fn protocol_fits(rule: &Rule, traffic: &Traffic<'_>) -> bool {
    match (rule.effect, &rule.layer, traffic) {
        (Effect::Deny, _, _) => true,
        (Effect::Allow, Layer::Tcp, Traffic::Tcp) => true,
        (Effect::Allow, Layer::Http(_), Traffic::HttpConnection | Traffic::HttpRequest(_)) => true,
        (Effect::Allow, Layer::Tcp | Layer::Http(_), _) => false,
    }
}

fn looked_at(condition: &ConnectionCondition) -> Dimension {
    match condition {
        ConnectionCondition::Peer { .. } => Dimension::From,
        ConnectionCondition::Source { .. } => Dimension::SourceNet,
        ConnectionCondition::Destination { .. } => Dimension::Destination,
        ConnectionCondition::Port { .. } => Dimension::Port,
        ConnectionCondition::Sni { .. } => Dimension::Sni,
        ConnectionCondition::Http => Dimension::Protocol,
    }
}

fn asked_of(condition: &RequestCondition) -> Dimension {
    match condition {
        RequestCondition::Method { .. } => Dimension::Method,
        RequestCondition::Authority { .. } => Dimension::Host,
        RequestCondition::Path { .. } => Dimension::Path,
        RequestCondition::Header { .. } => Dimension::Header,
        RequestCondition::Principal { .. } | RequestCondition::Claim { .. } | RequestCondition::Token(_) => {
            Dimension::Jwt
        }
    }
}

fn named(rule: &Rule, peer: PeerIdentity<'_>) -> bool {
    match peer {
        PeerIdentity::Authenticated(id) => {
            rule.from.anyone || rule.from.patterns.iter().any(|pattern| pattern.matches(id))
        }
        PeerIdentity::Unauthenticated => {
            rule.from.unauthenticated || (rule.from.anyone && rule.effect == Effect::Deny)
        }
    }
}

// What is absent grants nothing, and escapes no denial: a request without a host, a tunnel, which has no path.
fn request_fits(effect: Effect, limits: &HttpLimits, request: &Request<'_>, dimension: Dimension) -> bool {
    match dimension {
        Dimension::Kind => limits.kinds.fit(request.kind, effect),
        Dimension::Method => within(&limits.methods, |method| **method == *request.method),
        Dimension::Host => match request.host {
            Some(host) => within(&limits.hosts, |pattern| pattern.matches(host)),
            None => effect == Effect::Deny || limits.hosts == Limit::Any,
        },
        Dimension::Path => match request.kind {
            RequestKind::Connect { .. } => effect == Effect::Deny || limits.paths == Limit::Any,
            RequestKind::Plain | RequestKind::Upgrade { .. } => {
                within(&limits.paths, |pattern| pattern.matches(request.path))
            }
        },
        Dimension::Mode
        | Dimension::Protocol
        | Dimension::Port
        | Dimension::From
        | Dimension::Except
        | Dimension::SourceNet
        | Dimension::Destination
        | Dimension::Sni
        | Dimension::Header
        | Dimension::Jwt => true,
    }
}

fn within<T>(limit: &Limit<T>, fits: impl Fn(&T) -> bool) -> bool {
    match limit {
        Limit::Any => true,
        Limit::Only(values) => values.iter().any(fits),
    }
}

const DIMENSIONS: [Dimension; 14] = [
    Dimension::Mode,
    Dimension::Protocol,
    Dimension::Port,
    Dimension::From,
    Dimension::Except,
    Dimension::SourceNet,
    Dimension::Destination,
    Dimension::Sni,
    Dimension::Kind,
    Dimension::Method,
    Dimension::Host,
    Dimension::Path,
    Dimension::Header,
    Dimension::Jwt,
];
