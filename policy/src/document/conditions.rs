//! What a rule asks for beside what the index looks up: checked one after another, for rules that match otherwise.
//!
//! Deciding is total. What is absent satisfies no positive condition, save in a native deny rule, which it does not
//! escape; it satisfies every negative one, as in Istio.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::Value;

use crate::access::{Connection, HeaderFields, PeerIdentity, Request, Token};
use crate::claims::Claims;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sense {
    Is,
    IsNot,
}

/// What becomes of a condition if the thing it is about is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    Holds,
    Fails,
}

/// How the field lines of one header become something to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderReading {
    /// There is a value, and every one of them matches: native allow rules.
    Every,
    /// Some value matches: native deny rules.
    Any,
    /// Istio's allow rules: the field lines joined by commas match; or none of line, value and joined lines does.
    Joined(Sense),
    /// Istio's deny rules: the joined lines match, or any value; or the joined lines do not.
    JoinedOrAny(Sense),
}

/// Whether a claim that is one text is a list separated by spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Whole,
    Spaces,
}

/// What a native rule asks of a token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenLimits {
    pub(crate) issuer: Arc<str>,
    /// One of these audiences; none means any.
    pub(crate) audiences: Vec<Arc<str>>,
    pub(crate) claims: Vec<ClaimLimit>,
    /// What an absent or invalid token, or an absent claim, means.
    pub(crate) absent: Absent,
}

/// The values of which a claim must have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimLimit {
    pub(crate) path: Vec<Arc<str>>,
    pub(crate) values: Vec<Arc<str>>,
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
            Self::Path { any_of, sense } => sense.of(any(any_of, request.text.as_bytes())),
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

impl HeaderReading {
    fn holds(self, headers: &dyn HeaderFields, name: &str, any_of: &[TextPattern]) -> bool {
        match self {
            Self::Every => {
                let (mut values, mut matching) = (0, 0);
                each_value(headers, name, &mut |value| {
                    values += 1;
                    matching += usize::from(any(any_of, value));
                });
                values > 0 && values == matching
            }
            Self::Any => any_value(headers, name, any_of),
            Self::Joined(Sense::Is) => Joined::of(headers, name).matches(any_of) == Some(true),
            Self::Joined(Sense::IsNot) => {
                Joined::of(headers, name).matches(any_of) == Some(false) && !any_value(headers, name, any_of)
            }
            Self::JoinedOrAny(Sense::Is) => {
                Joined::of(headers, name).matches(any_of) != Some(false) || any_value(headers, name, any_of)
            }
            Self::JoinedOrAny(Sense::IsNot) => Joined::of(headers, name).matches(any_of) != Some(true),
        }
    }
}

/// The field lines of one header, joined by commas.
struct Joined {
    bytes: [u8; MAX_JOINED],
    length: usize,
    lines: Lines,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    None,
    Some,
    TooLong,
}

impl Joined {
    fn of(headers: &dyn HeaderFields, name: &str) -> Self {
        let mut joined = Self { bytes: [0; MAX_JOINED], length: 0, lines: Lines::None };
        headers.each(name, &mut |line| {
            if joined.lines == Lines::Some {
                joined.push(b",");
            }
            if joined.lines == Lines::None {
                joined.lines = Lines::Some;
            }
            joined.push(line);
        });
        joined
    }

    fn push(&mut self, part: &[u8]) {
        let end = self.length.saturating_add(part.len());
        match self.bytes.get_mut(self.length..end) {
            Some(free) => {
                free.copy_from_slice(part);
                self.length = end;
            }
            None => self.lines = Lines::TooLong,
        }
    }

    /// Whether a pattern matches; unknown where the lines are too long to tell.
    fn matches(&self, any_of: &[TextPattern]) -> Option<bool> {
        match self.lines {
            Lines::None => Some(false),
            Lines::Some => Some(any(any_of, self.bytes.get(..self.length).unwrap_or_default())),
            Lines::TooLong => None,
        }
    }
}

// A value is what stands between commas; a line with commas is also looked at whole, since not every header is a list.
fn any_value(headers: &dyn HeaderFields, name: &str, any_of: &[TextPattern]) -> bool {
    let mut found = false;
    headers.each(name, &mut |line| found |= any(any_of, line.trim_ascii()));
    each_value(headers, name, &mut |value| found |= any(any_of, value));
    found
}

fn each_value(headers: &dyn HeaderFields, name: &str, see: &mut dyn FnMut(&[u8])) {
    headers
        .each(name, &mut |line| line.split(|byte| *byte == b',').for_each(|value| see(value.trim_ascii())));
}

impl TokenLimits {
    fn hold(&self, token: Token<'_>) -> bool {
        let absent = self.absent == Absent::Holds;
        let Token::Verified(claims) = token else { return absent };
        if claims.issuer() != Some(&*self.issuer) {
            return absent;
        }
        let audience = self.audiences.is_empty() || has_one(claims, &["aud"], &self.audiences);
        audience
            && self.claims.iter().all(|limit| match claims.at(&limit.path) {
                Some(_) => has_one(claims, &limit.path, &limit.values),
                None => absent,
            })
    }
}

// `scope` is a list in one text (RFC 8693 4.2); a value is compared whole as well.
fn has_one(claims: &Claims, path: &[impl AsRef<str>], values: &[Arc<str>]) -> bool {
    let mut found = false;
    let scope = matches!(path, [only] if only.as_ref() == "scope");
    claims.texts(path, &mut |text| {
        found |= values.iter().any(|value| **value == *text);
        found |= scope && text.split(' ').any(|word| values.iter().any(|value| **value == *word));
    });
    found || scalar(claims.at(path)).is_some_and(|text| values.iter().any(|value| **value == *text))
}

fn scalar(value: Option<&Value>) -> Option<&'static str> {
    match value {
        Some(Value::Bool(true)) => Some("true"),
        Some(Value::Bool(false)) => Some("false"),
        Some(Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_))
        | None => None,
    }
}

fn principal(any_of: &[(TextPattern, TextPattern)], token: Token<'_>) -> bool {
    let Token::Verified(claims) = token else { return false };
    let (Some(issuer), Some(subject)) = (claims.issuer(), claims.subject()) else { return false };
    any_of.iter().any(|(wanted_issuer, wanted_subject)| {
        wanted_issuer.matches(issuer.as_bytes()) && wanted_subject.matches(subject.as_bytes())
    })
}

fn claim(claims: &Claims, path: &[Arc<str>], any_of: &[TextPattern], split: Split) -> bool {
    let mut found = false;
    claims.texts(path, &mut |text| {
        found |= match split {
            Split::Whole => any(any_of, text.as_bytes()),
            Split::Spaces => text.split(' ').any(|word| any(any_of, word.as_bytes())),
        };
    });
    found
}

fn any(any_of: &[TextPattern], text: &[u8]) -> bool {
    any_of.iter().any(|pattern| pattern.matches(text))
}

fn within(any_of: &[Network], address: IpAddr) -> bool {
    any_of.iter().any(|network| network.contains(address))
}

/// Most bytes of the field lines of one header that are compared joined. What is longer matches no allow rule of Istio's
/// and escapes no deny rule.
pub(crate) const MAX_JOINED: usize = 4096;
