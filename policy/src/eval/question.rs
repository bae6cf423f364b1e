//! One question: a connection, and perhaps a request on it, as a line of JSON.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use identity::{ParseIdError, SpiffeId};
use serde::Deserialize;
use serde_json::Value;

use crate::access::{CONNECT, Connection, PeerIdentity, Request, RequestKind, Token, Traffic};
use crate::claims::Claims;
use crate::host::{CanonicalHost, HostError};
use crate::istio::istio_path;
use crate::mesh::Mesh;
use crate::moment::{Moment, MomentError};
use crate::path::{CanonicalPath, PathError};
use crate::set::{PolicySet, SetKind};

/// A question that was read.
#[derive(Clone, Debug)]
pub struct Question {
    peer: Option<SpiffeId>,
    source: IpAddr,
    destination: Option<IpAddr>,
    port: u16,
    sni: Option<String>,
    time: Option<SystemTime>,
    http: Option<Asked>,
    proof: Proof,
}

#[derive(Clone, Debug)]
struct Asked {
    method: String,
    host: Option<String>,
    path: String,
    headers: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
enum Proof {
    Absent,
    Invalid,
    Verified(Claims),
}

/// Which form of a path the policies look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// There are native policies: a path without a canonical form is malformed.
    Canonical,
    /// There are Istio's files only: every path has a form that they compare.
    Istio,
}

impl Reading {
    /// How the policies of a set look at paths.
    pub fn of(set: &PolicySet) -> Self {
        match set.kind() {
            SetKind::Istio => Self::Istio,
            SetKind::Own => Self::Canonical,
        }
    }
}

/// Why a line is no question.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// It is too long.
    #[error("the line is longer than {MAX_QUESTION_BYTES} bytes")]
    TooLong,
    /// It is not the JSON that a question is.
    #[error("not a request: {0}")]
    Json(#[from] serde_json::Error),
    /// The peer is no SPIFFE ID.
    #[error("\"peer\": {0}")]
    Peer(ParseIdError),
    /// An address is none.
    #[error("\"{key}\" is not an address")]
    Address {
        /// Which one.
        key: &'static str,
    },
    /// The time is none.
    #[error("\"time\" is not {}", Moment::WANTED)]
    Time,
    /// There are claims and nothing that could carry them.
    #[error("\"jwt\" has no meaning without \"http\"")]
    TokenOnTcp,
    /// The token is neither claims nor said to be invalid.
    #[error("\"jwt\" is the object of verified claims, null, or the text \"invalid\"")]
    Token,
    /// A request has no path.
    #[error("\"http\" has no \"path\"")]
    NoPath,
}

/// What a sidecar answers with 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The method is no token.
    #[error("the method is not a token")]
    Method,
    /// The path has no canonical form.
    #[error(transparent)]
    Path(PathError),
    /// The host has no canonical form.
    #[error(transparent)]
    Host(HostError),
    /// A header field is none.
    #[error("the header field {number} is not a name and a value")]
    Header {
        /// Which one, from 1.
        number: usize,
    },
    /// There are several hosts, and they differ.
    #[error("the request names several hosts")]
    Hosts,
}

impl Question {
    /// Reads a line. Keys that may be absent are then `null`; `port` is required, and `path` in a request other than CONNECT.
    pub fn parse(line: &[u8]) -> Result<Self, QuestionError> {
        if line.len() > MAX_QUESTION_BYTES {
            return Err(QuestionError::TooLong);
        }
        let wire: Wire = serde_json::from_slice(line)?;
        let address = |text: Option<String>, key| match text {
            Some(text) => text.parse().map(Some).map_err(|_| QuestionError::Address { key }),
            None => Ok(None),
        };
        let proof = match wire.jwt {
            Value::Null => Proof::Absent,
            Value::Object(claims) => Proof::Verified(Claims::verified(claims)),
            Value::String(word) if word == "invalid" => Proof::Invalid,
            Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                return Err(QuestionError::Token);
            }
        };
        if wire.http.is_none() && !matches!(proof, Proof::Absent) {
            return Err(QuestionError::TokenOnTcp);
        }
        Ok(Self {
            peer: wire.peer.map(|text| SpiffeId::parse(&text)).transpose().map_err(QuestionError::Peer)?,
            source: address(wire.source_ip, "source_ip")?.unwrap_or(NOBODY),
            destination: address(wire.dest_ip, "dest_ip")?,
            port: wire.port,
            sni: wire.sni.map(|name| name.to_ascii_lowercase()),
            time: wire.time.map(|text| text.parse()).transpose()?.map(|Moment(moment)| moment),
            http: wire.http.map(WireHttp::asked).transpose()?,
            proof,
        })
    }

    /// Puts the question in the form in which policies are asked; `now` unless it names a moment of its own.
    pub fn put<T>(
        &self,
        mesh: &Mesh,
        reading: Reading,
        now: SystemTime,
        ask: impl FnOnce(&Connection<'_>, &Traffic<'_>) -> T,
    ) -> Result<T, Malformed> {
        let peer = self.peer.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
        let connection = Connection {
            destination: self.destination,
            sni: self.sni.as_deref(),
            ..Connection::new(peer, self.source, self.port, self.time.unwrap_or(now))
        };
        let Some(asked) = &self.http else { return Ok(ask(&connection, &Traffic::Tcp)) };
        asked.check()?;
        let authority = asked.authority()?;
        let host = match (authority.map(CanonicalHost::parse), reading) {
            (None, _) => None,
            (Some(Ok(host)), _) => Some(host),
            (Some(Err(_)), Reading::Istio) => None,
            (Some(Err(error)), Reading::Canonical) => return Err(Malformed::Host(error)),
        };
        let path = match (CanonicalPath::parse(&asked.path), reading) {
            (Ok(path), _) => path,
            // No rule of such a set looks at it.
            (Err(_), Reading::Istio) => CanonicalPath::parse("/").map_err(Malformed::Path)?,
            (Err(error), Reading::Canonical) => return Err(Malformed::Path(error)),
        };
        let text = istio_path(mesh.path_normalization, &asked.path);
        let protocol = asked.upgrade();
        let request = Request {
            method: &asked.method,
            host: host.as_ref(),
            path: &path,
            kind: match &protocol {
                _ if asked.method == CONNECT => {
                    RequestKind::Connect { port: host.as_ref().and_then(CanonicalHost::port) }
                }
                Some(protocol) => RequestKind::Upgrade { protocol },
                None => RequestKind::Plain,
            },
            authority,
            text: &text,
            headers: &asked.headers,
            token: match &self.proof {
                Proof::Absent => Token::Absent,
                Proof::Invalid => Token::Invalid,
                Proof::Verified(claims) => Token::Verified(claims),
            },
        };
        Ok(ask(&connection, &Traffic::HttpRequest(request)))
    }

    /// Who calls.
    pub fn peer(&self) -> Option<&SpiffeId> {
        self.peer.as_ref()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Method and path of the request, if it is one.
    pub fn request_line(&self) -> Option<String> {
        self.http.as_ref().map(|asked| format!("{} {}", asked.method, asked.path))
    }
}

impl Asked {
    // RFC 9110 5.1, 5.5 and 9.1: names and methods are tokens, values have no controls.
    fn check(&self) -> Result<(), Malformed> {
        if !is_token(&self.method) {
            return Err(Malformed::Method);
        }
        let is_value = |text: &str| text.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        match self.headers.iter().position(|(name, value)| !is_token(name) || !is_value(value)) {
            Some(at) => Err(Malformed::Header { number: at.saturating_add(1) }),
            None => Ok(()),
        }
    }

    // The host of the request, or of its one `Host` field; two that differ are a way around the rules.
    fn authority(&self) -> Result<Option<&str>, Malformed> {
        let fields = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
        let mut found = self.host.as_deref();
        for (_, value) in fields {
            match found {
                Some(host) if !host.eq_ignore_ascii_case(value.trim_ascii()) => return Err(Malformed::Hosts),
                Some(_) => {}
                None => found = Some(value.trim_ascii()),
            }
        }
        Ok(found)
    }

    fn upgrade(&self) -> Option<String> {
        let mut fields = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        let (_, value) = fields.next()?;
        Some(value.trim_ascii().to_ascii_lowercase())
    }
}

fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

impl From<MomentError> for QuestionError {
    fn from(_: MomentError) -> Self {
        Self::Time
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default)]
    peer: Option<String>,
    #[serde(default)]
    source_ip: Option<String>,
    #[serde(default)]
    dest_ip: Option<String>,
    port: u16,
    #[serde(default)]
    sni: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    http: Option<WireHttp>,
    #[serde(default)]
    jwt: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireHttp {
    method: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    headers: Option<Vec<(String, String)>>,
}

impl WireHttp {
    fn asked(self) -> Result<Asked, QuestionError> {
        let path = match self.path {
            Some(path) => path,
            // RFC 9110 9.3.6: such a request names a host and a port only.
            None if self.method == CONNECT => "/".to_owned(),
            None => return Err(QuestionError::NoPath),
        };
        Ok(Asked { method: self.method, host: self.host, path, headers: self.headers.unwrap_or_default() })
    }
}

// What a test case without an address comes from: RFC 5737 gives it to nobody.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Longest accepted question.
pub const MAX_QUESTION_BYTES: usize = 1024 * 1024;
