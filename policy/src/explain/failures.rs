//! What of one rule does not match an access.

use crate::access::{Connection, PeerIdentity, Request, Traffic};
use crate::decision::{Dimension, NearMiss};
use crate::document::{
    ConnectionCondition, Effect, HttpLimits, Layer, Limit, Mode, Peers, RequestCondition, Rule,
};
use crate::index::kind_fits;
use crate::moment::shown;

use super::Verdict;

/// What of a rule does not match, in the order of [`Dimension`].
pub(super) struct Failures<'a> {
    rule: &'a Rule,
    connection: &'a Connection<'a>,
    traffic: &'a Traffic<'a>,
    failed: [Option<Dimension>; 14],
}

/// Compares a rule with an access.
pub(super) fn failures<'a>(
    rule: &'a Rule,
    connection: &'a Connection<'a>,
    traffic: &'a Traffic<'a>,
) -> Failures<'a> {
    let unless = |fits: bool, dimension: Dimension| (!fits).then_some(dimension);
    let (from, except) = peer_fits(rule, connection.peer);
    let (method, host, path) = request_fits(rule, traffic);
    let meets = |dimension: Dimension| conditions_fit(rule, dimension, connection, traffic);
    let failed = [
        unless(rule.mode.enforces_at(connection.now), Dimension::Mode),
        unless(protocol_fits(rule, traffic) && meets(Dimension::Protocol), Dimension::Protocol),
        unless(
            within(&rule.ports, |range| range.contains(&connection.port)) && meets(Dimension::Port),
            Dimension::Port,
        ),
        unless(from && meets(Dimension::From), Dimension::From),
        unless(except && meets(Dimension::Except), Dimension::Except),
        unless(
            within(&rule.source_net, |net| net.contains(connection.source)) && meets(Dimension::SourceNet),
            Dimension::SourceNet,
        ),
        unless(meets(Dimension::Destination), Dimension::Destination),
        unless(meets(Dimension::Sni), Dimension::Sni),
        unless(kind(rule, traffic), Dimension::Kind),
        unless(method && meets(Dimension::Method), Dimension::Method),
        unless(host && meets(Dimension::Host), Dimension::Host),
        unless(path && meets(Dimension::Path), Dimension::Path),
        unless(meets(Dimension::Header), Dimension::Header),
        unless(meets(Dimension::Jwt), Dimension::Jwt),
    ];
    Failures { rule, connection, traffic, failed }
}

impl Failures<'_> {
    pub(super) fn count(&self) -> usize {
        self.failed.iter().flatten().count()
    }

    pub(super) fn first(&self) -> Option<Dimension> {
        self.failed.iter().flatten().next().copied()
    }

    pub(super) fn near_miss(&self) -> Option<NearMiss> {
        let failed = self.first()?;
        let (wanted, found) = (self.wanted(failed), self.found(failed));
        Some(NearMiss { rule: self.rule.reference.clone(), failed, wanted, found })
    }

    /// Whether the rule matches, whatever its mode: what a rule in shadow says is part of the walk.
    pub(super) fn verdict(&self) -> Verdict {
        let first = self.failed.iter().flatten().find(|dimension| **dimension != Dimension::Mode);
        match (first, self.traffic, &self.rule.layer) {
            (Some(dimension), ..) => Verdict::Fails {
                dimension: *dimension,
                wanted: self.wanted(*dimension),
                found: self.found(*dimension),
            },
            (None, Traffic::HttpConnection, Layer::Http(_)) => Verdict::DependsOnRequest,
            (None, ..) => Verdict::Matches,
        }
    }

    fn wanted(&self, dimension: Dimension) -> String {
        let http = match &self.rule.layer {
            Layer::Tcp => None,
            Layer::Http(limits) => Some(limits),
        };
        match dimension {
            Dimension::Mode => "enforce".to_owned(),
            Dimension::Protocol if http.is_some() => "http".to_owned(),
            Dimension::Protocol => "tcp".to_owned(),
            Dimension::Port => listed(&self.rule.ports, |range| match (range.start(), range.end()) {
                (low, high) if low == high => low.to_string(),
                (low, high) => format!("{low}-{high}"),
            }),
            Dimension::From => peers_in_words(&self.rule.from),
            Dimension::Except => format!("none of {}", joined(&self.rule.except, ToString::to_string)),
            Dimension::SourceNet => listed(&self.rule.source_net, ToString::to_string),
            Dimension::Method => {
                http.map_or_else(String::new, |http| listed(&http.methods, ToString::to_string))
            }
            Dimension::Host => http.map_or_else(String::new, |http| listed(&http.hosts, ToString::to_string)),
            Dimension::Path => http.map_or_else(String::new, |http| listed(&http.paths, ToString::to_string)),
            Dimension::Kind => http.map_or_else(String::new, |http| format!("{:?}", http.kinds)),
            Dimension::Destination | Dimension::Sni | Dimension::Header | Dimension::Jwt => {
                "what its conditions say".to_owned()
            }
        }
    }

    fn found(&self, dimension: Dimension) -> String {
        let request = match self.traffic {
            Traffic::HttpRequest(request) => Some(request),
            Traffic::Tcp | Traffic::HttpConnection => None,
        };
        let peer = match self.connection.peer {
            PeerIdentity::Authenticated(id) => id.to_string(),
            PeerIdentity::Unauthenticated => "unauthenticated".to_owned(),
        };
        match dimension {
            Dimension::Mode => match self.rule.mode {
                Mode::Enforce => "enforce".to_owned(),
                Mode::Shadow { until } => format!("shadow until {}", shown(until)),
                Mode::DryRun => "dry run".to_owned(),
            },
            Dimension::Protocol => match self.traffic {
                Traffic::Tcp => "tcp".to_owned(),
                Traffic::HttpConnection | Traffic::HttpRequest(_) => "http".to_owned(),
            },
            Dimension::Port => self.connection.port.to_string(),
            Dimension::From | Dimension::Except => peer,
            Dimension::SourceNet => self.connection.source.to_canonical().to_string(),
            Dimension::Method => request.map_or_else(String::new, |request| request.method.to_owned()),
            Dimension::Host => {
                let host = request.and_then(|request| request.host);
                host.map_or_else(|| "absent".to_owned(), |host| host.as_str().to_owned())
            }
            Dimension::Path => request.map_or_else(String::new, |request| request.path.to_string()),
            Dimension::Kind => request.map_or_else(String::new, |request| format!("{:?}", request.kind)),
            Dimension::Sni => self.connection.sni.unwrap_or("absent").to_owned(),
            Dimension::Destination => {
                self.connection.destination.map_or_else(|| "absent".to_owned(), |address| address.to_string())
            }
            Dimension::Header | Dimension::Jwt => "other".to_owned(),
        }
    }
}

// A deny rule for HTTP denies opaque connections, and one for TCP denies HTTP; an allow rule grants its own kind only.
fn protocol_fits(rule: &Rule, traffic: &Traffic<'_>) -> bool {
    match (rule.effect, &rule.layer, traffic) {
        (Effect::Deny, ..) => true,
        (Effect::Allow, Layer::Tcp, Traffic::Tcp) => true,
        (Effect::Allow, Layer::Http(_), Traffic::HttpConnection | Traffic::HttpRequest(_)) => true,
        (Effect::Allow, Layer::Tcp | Layer::Http(_), _) => false,
    }
}

fn kind(rule: &Rule, traffic: &Traffic<'_>) -> bool {
    match traffic {
        Traffic::HttpRequest(request) => kind_fits(rule, request),
        Traffic::Tcp | Traffic::HttpConnection => true,
    }
}

fn conditions_fit(
    rule: &Rule,
    dimension: Dimension,
    connection: &Connection<'_>,
    traffic: &Traffic<'_>,
) -> bool {
    let connected = rule.at_connect.iter().filter(|condition| looked_at(condition) == dimension);
    let mut requested = rule.at_request.iter().filter(|condition| asked_of(condition) == dimension);
    let opaque = matches!(traffic, Traffic::Tcp);
    let mut connected = connected
        .map(|condition| condition.holds(connection) && !(opaque && *condition == ConnectionCondition::Http));
    connected.all(|holds| holds)
        && match traffic {
            Traffic::HttpRequest(request) => requested.all(|condition| condition.holds(request)),
            Traffic::Tcp | Traffic::HttpConnection => true,
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

fn peer_fits(rule: &Rule, peer: PeerIdentity<'_>) -> (bool, bool) {
    match peer {
        PeerIdentity::Authenticated(id) => {
            let named = rule.from.anyone || rule.from.patterns.iter().any(|pattern| pattern.matches(id));
            (named, !rule.except.iter().any(|pattern| pattern.matches(id)))
        }
        PeerIdentity::Unauthenticated => {
            let named = rule.from.unauthenticated || (rule.from.anyone && rule.effect == Effect::Deny);
            (named, true)
        }
    }
}

fn request_fits(rule: &Rule, traffic: &Traffic<'_>) -> (bool, bool, bool) {
    match (&rule.layer, traffic) {
        (Layer::Http(limits), Traffic::HttpRequest(request)) => {
            one_request_fits(rule.effect, limits, request)
        }
        (Layer::Http(_), Traffic::Tcp | Traffic::HttpConnection) | (Layer::Tcp, _) => (true, true, true),
    }
}

fn one_request_fits(effect: Effect, limits: &HttpLimits, request: &Request<'_>) -> (bool, bool, bool) {
    let method = within(&limits.methods, |method| **method == *request.method);
    let host = match request.host {
        Some(host) => within(&limits.hosts, |pattern| pattern.matches(host)),
        // What is absent grants nothing, and escapes no denial.
        None => effect == Effect::Deny || matches!(limits.hosts, Limit::Any),
    };
    let path = within(&limits.paths, |pattern| pattern.matches(request.path));
    (method, host, path)
}

fn within<T>(limit: &Limit<T>, fits: impl Fn(&T) -> bool) -> bool {
    match limit {
        Limit::Any => true,
        Limit::Only(values) => values.iter().any(fits),
    }
}

fn peers_in_words(peers: &Peers) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(peers.anyone.then(|| "anyone".to_owned()));
    words.extend(peers.unauthenticated.then(|| "unauthenticated".to_owned()));
    words.extend(peers.patterns.iter().map(ToString::to_string));
    joined(&words, Clone::clone)
}

fn listed<T>(limit: &Limit<T>, show: impl Fn(&T) -> String) -> String {
    match limit {
        Limit::Any => "any".to_owned(),
        Limit::Only(values) => joined(values, show),
    }
}

// Records keep this text, so a long list is cut.
fn joined<T>(values: &[T], show: impl Fn(&T) -> String) -> String {
    let mut text = values.iter().take(SHOWN).map(show).collect::<Vec<_>>().join(", ");
    if let Some(more) = values.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

const SHOWN: usize = 5;
