//! What a rule asks for beside what the index looks up: checked one after another, for rules that match otherwise.
//!
//! Deciding is total. What is absent satisfies no positive condition, save in a native deny rule, which it does not
//! escape; it satisfies every negative one, as in Istio.

mod headers;
mod tokens;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub(crate) use headers::{HeaderReading, Told};
pub(crate) use tokens::{ClaimLimit, ClaimValue, Split, TokenLimits, each_claim_value, is_scope};
use tokens::{claim, principal};

use super::{Effect, Kinds, Limit};
use crate::access::{Connection, PeerIdentity, Request, RequestKind, Token};
use crate::net::Network;
use crate::pattern::TextPattern;

/// A condition on the connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ConnectionCondition {
    /// The peer's SPIFFE ID as a text.
    Peer { any_of: Vec<TextPattern>, sense: Sense },
    /// The address of the socket's other end.
    Source { any_of: Vec<Network>, sense: Sense },
    /// The address that was connected to.
    Destination { any_of: Vec<Network>, sense: Sense },
    /// The workload's port.
    Port { any_of: Vec<RangeInclusive<u16>>, sense: Sense },
    /// The server name of the handshake.
    Sni { any_of: Vec<TextPattern>, sense: Sense, absent: Absent },
    /// Requests can be seen on the connection: the rule is none for opaque TCP.
    Http,
}

/// A condition on the request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RequestCondition {
    /// The method.
    Method { any_of: Vec<TextPattern>, sense: Sense },
    /// The authority as it came.
    Authority { any_of: Vec<TextPattern>, sense: Sense },
    /// The path as Istio's rules compare it.
    Path { any_of: Vec<TextPattern>, sense: Sense },
    /// A header; the name is in lower case.
    Header { name: Arc<str>, any_of: Vec<TextPattern>, reading: HeaderReading },
    /// Issuer and subject of the token, each pair as one alternative.
    Principal { any_of: Vec<(TextPattern, TextPattern)>, sense: Sense },
    /// A claim; its path, and how its text is taken apart.
    Claim { path: Vec<Arc<str>>, any_of: Vec<TextPattern>, sense: Sense, split: Split },
    /// A token, as native rules ask for one.
    Token(TokenLimits),
}

/// Whether a condition is for or against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sense {
    Is,
    IsNot,
}

/// What becomes of a condition if the thing it is about is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Absent {
    Holds,
    Fails,
}

impl ConnectionCondition {
    /// Whether the condition holds. `Http` is for the caller to know: it says nothing about the connection itself.
    pub(crate) fn holds(&self, connection: &Connection<'_>) -> bool {
        match self {
            Self::Peer { any_of, sense } => {
                let found = match connection.peer {
                    PeerIdentity::Authenticated(id) => any(any_of, id.as_str().as_bytes()),
                    PeerIdentity::Unauthenticated => false,
                };
                sense.of(found)
            }
            Self::Source { any_of, sense } => sense.of(within(any_of, connection.source)),
            Self::Destination { any_of, sense } => {
                sense.of(connection.destination.is_some_and(|address| within(any_of, address)))
            }
            Self::Port { any_of, sense } => {
                sense.of(any_of.iter().any(|range| range.contains(&connection.port)))
            }
            Self::Sni { any_of, sense, absent } => match connection.sni {
                Some(name) => sense.of(any(any_of, name.as_bytes())),
                None => *absent == Absent::Holds,
            },
            Self::Http => true,
        }
    }
}

impl RequestCondition {
    /// Whether the condition holds.
    pub(crate) fn holds(&self, request: &Request<'_>) -> bool {
        match self {
            Self::Method { any_of, sense } => sense.of(any(any_of, request.method.as_bytes())),
            Self::Authority { any_of, sense } => {
                sense.of(request.authority.is_some_and(|authority| any(any_of, authority.as_bytes())))
            }
            Self::Path { any_of, sense } => match request.kind {
                RequestKind::Connect { .. } => sense.of(false),
                RequestKind::Plain | RequestKind::Upgrade { .. } => {
                    sense.of(any(any_of, request.text.as_bytes()))
                }
            },
            Self::Header { name, any_of, reading } => reading.holds(request.headers, name, any_of),
            Self::Principal { any_of, sense } => sense.of(principal(any_of, request.token)),
            Self::Claim { path, any_of, sense, split } => match request.token {
                Token::Verified(claims) => sense.of(claim(claims, path, any_of, *split)),
                Token::Absent | Token::Invalid => sense.of(false),
            },
            Self::Token(limits) => limits.hold(request.token),
        }
    }
}

impl Sense {
    fn of(self, found: bool) -> bool {
        match self {
            Self::Is => found,
            Self::IsNot => !found,
        }
    }
}

impl Kinds {
    /// Whether these kinds include that of a request, for a rule with this effect.
    pub(crate) fn fit(&self, kind: RequestKind<'_>, effect: Effect) -> bool {
        match (self, kind) {
            (Self::Every, _) | (Self::Plain, RequestKind::Plain) => true,
            (Self::Connect { to_ports }, RequestKind::Connect { port }) => match (to_ports, port) {
                (Limit::Any, _) => true,
                (Limit::Only(ranges), Some(port)) => ranges.iter().any(|range| range.contains(&port)),
                // What is absent grants nothing, and escapes no denial.
                (Limit::Only(_), None) => effect == Effect::Deny,
            },
            (Self::Upgrade { protocols }, RequestKind::Upgrade { protocol }) => match protocols {
                Limit::Any => true,
                Limit::Only(protocols) => protocols_fit(protocols, protocol, effect),
            },
            (Self::Plain | Self::Connect { .. } | Self::Upgrade { .. }, _) => false,
        }
    }
}

// RFC 9110 7.8: a request may name several protocols, each with a version, and the other end chooses. Every one of them must be
// granted, and one is enough to be refused, in whatever version.
fn protocols_fit(wanted: &[Arc<str>], named: &str, effect: Effect) -> bool {
    let mut each = named.split(',').map(str::trim);
    let meant = |protocol: &str| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(protocol));
    match effect {
        Effect::Allow => each.all(meant),
        Effect::Deny => each.any(|protocol| {
            let (name, _) = protocol.split_once('/').unwrap_or((protocol, ""));
            protocol.is_empty() || meant(protocol) || meant(name)
        }),
    }
}

fn any(any_of: &[TextPattern], text: &[u8]) -> bool {
    any_of.iter().any(|pattern| pattern.matches(text))
}

fn within(any_of: &[Network], address: IpAddr) -> bool {
    any_of.iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests;
