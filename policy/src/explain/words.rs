//! What a rule wants and what was there, in words that a record may keep: short, and without the values of headers and
//! tokens, which may be secrets.

use std::ops::RangeInclusive;

use super::failures::Asked;
use crate::access::{Connection, HeaderFields, PeerIdentity, Request, RequestKind, Token, Traffic};
use crate::decision::Dimension;
use crate::document::{
    ConnectionCondition, HttpLimits, Kinds, Layer, Limit, Mode, Peers, RequestCondition, Rule, Sense,
    TokenLimits,
};
use crate::moment::shown;
use crate::pattern::TextPattern;

/// What a rule wants of something that is looked up.
pub(super) fn wanted(rule: &Rule, dimension: Dimension) -> String {
    let http = |show: fn(&HttpLimits) -> String| match &rule.layer {
        Layer::Tcp => ANY.to_owned(),
        Layer::Http(limits) => show(limits),
    };
    match dimension {
        Dimension::Mode => "enforce".to_owned(),
        Dimension::Protocol => match &rule.layer {
            Layer::Tcp => "tcp".to_owned(),
            Layer::Http(_) => "http".to_owned(),
        },
        Dimension::Port => listed(&rule.ports, ports),
        Dimension::From => peers(&rule.from),
        Dimension::Except => format!("none of {}", joined(&rule.except, ToString::to_string)),
        Dimension::SourceNet => listed(&rule.source_net, ToString::to_string),
        Dimension::Kind => http(|limits| kinds(&limits.kinds)),
        Dimension::Method => http(|limits| listed(&limits.methods, ToString::to_string)),
        Dimension::Host => http(|limits| listed(&limits.hosts, ToString::to_string)),
        Dimension::Path => http(|limits| listed(&limits.paths, ToString::to_string)),
        // These are only ever conditions.
        Dimension::Destination | Dimension::Sni | Dimension::Header | Dimension::Jwt => ANY.to_owned(),
    }
}

/// What was there.
pub(super) fn found(
    rule: &Rule,
    dimension: Dimension,
    connection: &Connection<'_>,
    traffic: &Traffic<'_>,
) -> String {
    let request = |show: fn(&Request<'_>) -> String| match traffic {
        Traffic::HttpRequest(request) => show(request),
        Traffic::Tcp | Traffic::HttpConnection => "not seen".to_owned(),
    };
    match dimension {
        Dimension::Mode => mode(rule.mode),
        Dimension::Protocol => match traffic {
            Traffic::Tcp => "tcp".to_owned(),
            Traffic::HttpConnection | Traffic::HttpRequest(_) => "http".to_owned(),
        },
        Dimension::Port => connection.port.to_string(),
        Dimension::From | Dimension::Except => peer(connection.peer),
        Dimension::SourceNet => connection.source.to_canonical().to_string(),
        Dimension::Destination => destination(connection),
        Dimension::Sni => connection.sni.unwrap_or(ABSENT).to_owned(),
        Dimension::Kind => request(|request| kind(request.kind)),
        Dimension::Method => request(|request| request.method.to_owned()),
        Dimension::Host => request(|request| request.host.map_or(ABSENT, |host| host.as_str()).to_owned()),
        Dimension::Path => request(path),
        Dimension::Header | Dimension::Jwt => request(|_| PRESENT.to_owned()),
    }
}

/// The same for a condition that does not hold.
pub(super) fn in_words(condition: Asked<'_>, connection: &Connection<'_>) -> (String, String) {
    match condition {
        Asked::OfConnection(condition) => of_connection(condition, connection),
        Asked::OfRequest(condition, request) => of_request(condition, request),
    }
}

fn of_connection(condition: &ConnectionCondition, connection: &Connection<'_>) -> (String, String) {
    match condition {
        ConnectionCondition::Peer { any_of, sense } => (values(*sense, any_of), peer(connection.peer)),
        ConnectionCondition::Source { any_of, sense } => {
            let wanted = sensed(*sense, joined(any_of, ToString::to_string));
            (wanted, connection.source.to_canonical().to_string())
        }
        ConnectionCondition::Destination { any_of, sense } => {
            (sensed(*sense, joined(any_of, ToString::to_string)), destination(connection))
        }
        ConnectionCondition::Port { any_of, sense } => {
            (sensed(*sense, joined(any_of, ports)), connection.port.to_string())
        }
        ConnectionCondition::Sni { any_of, sense, .. } => {
            (values(*sense, any_of), connection.sni.unwrap_or(ABSENT).to_owned())
        }
        ConnectionCondition::Http => ("http".to_owned(), "tcp".to_owned()),
    }
}

fn of_request(condition: &RequestCondition, request: &Request<'_>) -> (String, String) {
    match condition {
        RequestCondition::Method { any_of, sense } => (values(*sense, any_of), request.method.to_owned()),
        RequestCondition::Authority { any_of, sense } => {
            (values(*sense, any_of), request.authority.unwrap_or(ABSENT).to_owned())
        }
        RequestCondition::Path { any_of, sense } => {
            let found = match request.kind {
                RequestKind::Connect { .. } => ABSENT,
                RequestKind::Plain | RequestKind::Upgrade { .. } => request.text,
            };
            (values(*sense, any_of), found.to_owned())
        }
        RequestCondition::Header { name, any_of, reading } => {
            let wanted = format!("{name}: {}", values(reading.sense(), any_of));
            (wanted, header(request.headers, name, reading.sense()).to_owned())
        }
        RequestCondition::Principal { any_of, sense } => {
            let pair = |(issuer, subject): &(TextPattern, TextPattern)| {
                format!("{}/{}", pattern(issuer), pattern(subject))
            };
            let wanted = format!("issuer/subject: {}", sensed(*sense, joined(any_of, pair)));
            (wanted, token(request.token, other(*sense)))
        }
        RequestCondition::Claim { path, any_of, sense, .. } => {
            let wanted = format!("claim {}: {}", path.join("."), values(*sense, any_of));
            let there = match request.token {
                Token::Verified(claims) if claims.at(path).is_none() => "a token without the claim",
                Token::Verified(_) | Token::Invalid | Token::Absent => other(*sense),
            };
            (wanted, token(request.token, there))
        }
        RequestCondition::Token(limits) => of_token(limits, request.token),
    }
}

fn of_token(limits: &TokenLimits, given: Token<'_>) -> (String, String) {
    let issuer = format!("a valid token of {}", limits.issuer);
    let Token::Verified(claims) = given else { return (issuer, token(given, PRESENT)) };
    if claims.issuer() != Some(&*limits.issuer) {
        return (issuer, "of another issuer".to_owned());
    }
    if !limits.audience_fits(claims) {
        return (
            format!("audience: {}", joined(&limits.audiences, ToString::to_string)),
            "for another audience".to_owned(),
        );
    }
    match limits.failing_claim(claims) {
        Some(claim) => {
            let wanted =
                format!("claim {}: {}", claim.path.join("."), joined(&claim.values, ToString::to_string));
            let found = match claims.at(&claim.path) {
                Some(_) => other(Sense::Is),
                None => "a token without the claim",
            };
            (wanted, found.to_owned())
        }
        None => (issuer, PRESENT.to_owned()),
    }
}

fn header(headers: &dyn HeaderFields, name: &str, sense: Sense) -> &'static str {
    let mut found = ABSENT;
    headers.each(name, &mut |_| found = other(sense));
    found
}

fn token(token: Token<'_>, verified: &str) -> String {
    match token {
        Token::Absent => ABSENT.to_owned(),
        Token::Invalid => "invalid".to_owned(),
        Token::Verified(_) => verified.to_owned(),
    }
}

/// What was there of something whose value is not shown.
fn other(sense: Sense) -> &'static str {
    match sense {
        Sense::Is => "present, other value",
        Sense::IsNot => "present, such a value",
    }
}

fn values(sense: Sense, any_of: &[TextPattern]) -> String {
    sensed(sense, joined(any_of, pattern))
}

fn sensed(sense: Sense, list: String) -> String {
    match sense {
        Sense::Is => list,
        Sense::IsNot => format!("none of {list}"),
    }
}

fn pattern(pattern: &TextPattern) -> String {
    let written = pattern.to_string();
    if written.is_empty() { ANY.to_owned() } else { written }
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Enforce => "enforce".to_owned(),
        Mode::Shadow { until } => format!("shadow until {}", shown(until)),
        Mode::DryRun => "dry run".to_owned(),
    }
}

fn peer(peer: PeerIdentity<'_>) -> String {
    match peer {
        PeerIdentity::Authenticated(id) => id.to_string(),
        PeerIdentity::Unauthenticated => "unauthenticated".to_owned(),
    }
}

fn destination(connection: &Connection<'_>) -> String {
    connection.destination.map_or_else(|| "unknown".to_owned(), |address| address.to_canonical().to_string())
}

fn path(request: &Request<'_>) -> String {
    match request.kind {
        RequestKind::Connect { .. } => ABSENT.to_owned(),
        RequestKind::Plain | RequestKind::Upgrade { .. } => request.path.to_string(),
    }
}

fn kind(kind: RequestKind<'_>) -> String {
    match kind {
        RequestKind::Plain => "plain".to_owned(),
        RequestKind::Connect { port: Some(port) } => format!("connect to port {port}"),
        RequestKind::Connect { port: None } => "connect without a port".to_owned(),
        RequestKind::Upgrade { protocol } => format!("upgrade to {protocol}"),
    }
}

fn kinds(kinds: &Kinds) -> String {
    match kinds {
        Kinds::Plain => "plain".to_owned(),
        Kinds::Every => ANY.to_owned(),
        Kinds::Connect { to_ports: Limit::Any } => "connect".to_owned(),
        Kinds::Connect { to_ports: limit @ Limit::Only(_) } => {
            format!("connect to port {}", listed(limit, ports))
        }
        Kinds::Upgrade { protocols: Limit::Any } => "upgrade".to_owned(),
        Kinds::Upgrade { protocols: limit @ Limit::Only(_) } => {
            format!("upgrade to {}", listed(limit, ToString::to_string))
        }
    }
}

fn ports(range: &RangeInclusive<u16>) -> String {
    match (range.start(), range.end()) {
        (low, high) if low == high => low.to_string(),
        (low, high) => format!("{low}-{high}"),
    }
}

fn peers(peers: &Peers) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(peers.anyone.then(|| "anyone".to_owned()));
    words.extend(peers.unauthenticated.then(|| "unauthenticated".to_owned()));
    words.extend(peers.patterns.iter().take(SHOWN + 1).map(ToString::to_string));
    let hidden = peers.patterns.len().saturating_sub(SHOWN + 1);
    listing(&words, hidden, Clone::clone)
}

fn listed<T>(limit: &Limit<T>, show: impl Fn(&T) -> String) -> String {
    match limit {
        Limit::Any => ANY.to_owned(),
        Limit::Only(values) => joined(values, show),
    }
}

fn joined<T>(values: &[T], show: impl Fn(&T) -> String) -> String {
    listing(values, 0, show)
}

// Records keep this text, so a long list is cut.
fn listing<T>(values: &[T], hidden: usize, show: impl Fn(&T) -> String) -> String {
    let mut text = values.iter().take(SHOWN).map(show).collect::<Vec<_>>().join(", ");
    let more = values.len().saturating_sub(SHOWN) + hidden;
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// The text, cut where it is too long for a record.
pub(super) fn clipped(mut text: String) -> String {
    if text.len() > MAX_WORDS {
        text.truncate(text.floor_char_boundary(MAX_WORDS));
        text.push('…');
    }
    text
}

const ANY: &str = "any";
const ABSENT: &str = "absent";
const PRESENT: &str = "present";
const SHOWN: usize = 5;

/// Most bytes of what is said to be wanted or found.
const MAX_WORDS: usize = 512;
