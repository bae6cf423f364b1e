//! A concrete access that shows what an answer means. It can be put to the policies, and was.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use identity::SpiffeId;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::sample::Sample;
use super::space::{Act, SampleToken};
use crate::access::{CONNECT, Connection, PeerIdentity, Request, RequestKind, Token};
use crate::claims::Claims;
use crate::decision::Decision;
use crate::host::CanonicalHost;
use crate::istio::istio_path;
use crate::mesh::{PathNormalization, Workload};
use crate::net::ANY_ADDRESS;
use crate::path::CanonicalPath;
use crate::set::{PolicySet, SetKind};
use crate::workload::WorkloadPolicies;

/// A concrete access. As JSON it is a question that `policy eval` reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Witness {
    /// The workload that is called.
    pub to: SpiffeId,
    /// The workload's labels, where they matter.
    pub labels: BTreeMap<String, String>,
    /// Who calls; absent where nobody proved to be anybody.
    pub peer: Option<SpiffeId>,
    /// The address of the socket's other end.
    pub source: IpAddr,
    /// The address that was connected to, where it matters.
    pub destination: Option<IpAddr>,
    /// The workload's port.
    pub port: u16,
    /// The server name of the handshake, where it matters.
    pub sni: Option<String>,
    /// The request; absent for opaque TCP.
    pub http: Option<WitnessRequest>,
}

/// The request of a [`Witness`].
#[derive(Clone, Debug, PartialEq)]
pub struct WitnessRequest {
    /// The method.
    pub method: String,
    /// The authority, where it matters.
    pub host: Option<String>,
    /// The path.
    pub path: String,
    /// The header fields that matter.
    pub headers: Vec<(String, String)>,
    /// What it proves by a token.
    pub token: WitnessToken,
}

/// The token of a [`Witness`].
#[derive(Clone, Debug, PartialEq)]
pub enum WitnessToken {
    /// There is none.
    Absent,
    /// There is one that proves nothing.
    Invalid,
    /// There is a verified one with these claims.
    Verified(Map<String, Value>),
}

impl Witness {
    pub(crate) fn new(to: &Workload, sample: Sample) -> Option<Self> {
        let peer = match &sample.peer {
            Some(id) => Some(SpiffeId::parse(id).ok()?),
            None => None,
        };
        let (source, destination) = (sample.source.unwrap_or(ANY_ADDRESS), sample.destination);
        let (port, sni) = (sample.port, sample.sni.clone());
        let (to, labels) = (to.id.clone(), to.labels.clone());
        Some(Self { to, labels, peer, source, destination, port, sni, http: request(sample) })
    }

    /// Puts the access to a set of policies. Absent where no request can look like this.
    pub fn decide(&self, set: &PolicySet, now: SystemTime) -> Option<Decision> {
        let workload = Workload { labels: self.labels.clone(), ..Workload::of(&self.to) };
        self.decide_by(&set.protecting(&workload), View::of(set), now)
    }

    pub(super) fn decide_by(
        &self,
        policies: &WorkloadPolicies,
        view: View,
        now: SystemTime,
    ) -> Option<Decision> {
        let peer = self.peer.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
        let connection = Connection {
            destination: self.destination,
            sni: self.sni.as_deref(),
            ..Connection::new(peer, self.source, self.port, now)
        };
        match &self.http {
            None => Some(policies.decide_tcp(&connection)),
            Some(http) => http.decide(policies, view, &connection),
        }
    }
}

/// How a set looks at requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    kind: SetKind,
    normalization: PathNormalization,
}

impl View {
    pub(super) fn of(set: &PolicySet) -> Self {
        Self { kind: set.kind(), normalization: set.mesh().path_normalization }
    }
}

fn request(sample: Sample) -> Option<WitnessRequest> {
    let (method, mut host, mut headers) = (sample.act.clone(), sample.authority, sample.headers);
    let method = match method {
        Act::Tcp => return None,
        Act::Plain(method) => method,
        Act::Connect => {
            if let (Some(host), Some(port)) = (&mut host, sample.tunnel)
                && CanonicalHost::parse(host).is_ok_and(|host| host.port().is_none())
            {
                *host = format!("{host}:{port}");
            }
            CONNECT.to_owned()
        }
        Act::Upgrade { protocol, method } => {
            headers.push(("connection".to_owned(), "upgrade".to_owned()));
            headers.push(("upgrade".to_owned(), protocol));
            method
        }
    };
    let token = match sample.token {
        SampleToken::Absent => WitnessToken::Absent,
        SampleToken::Invalid => WitnessToken::Invalid,
        SampleToken::Verified(claims) => WitnessToken::Verified(claims),
    };
    Some(WitnessRequest { method, host, path: sample.path, headers, token })
}

impl WitnessRequest {
    fn decide(
        &self,
        policies: &WorkloadPolicies,
        view: View,
        connection: &Connection<'_>,
    ) -> Option<Decision> {
        let text = istio_path(view.normalization, &self.path);
        let (path, host) = (CanonicalPath::parse(&self.path), self.host.as_deref().map(CanonicalHost::parse));
        // Where no native rule looks at it, a path or host without a canonical form is not refused for that.
        let (path, host) = match view.kind {
            SetKind::Istio => (path.or_else(|_| CanonicalPath::parse("/")).ok()?, host.and_then(Result::ok)),
            SetKind::Own => (path.ok()?, host.transpose().ok()?),
        };
        let upgrade = self.headers.iter().find(|(name, _)| name == "upgrade").map(|(_, value)| value);
        let kind = match upgrade {
            _ if self.method == CONNECT => {
                RequestKind::Connect { port: host.as_ref().and_then(CanonicalHost::port) }
            }
            Some(protocol) => RequestKind::Upgrade { protocol },
            None => RequestKind::Plain,
        };
        let claims;
        let token = match &self.token {
            WitnessToken::Absent => Token::Absent,
            WitnessToken::Invalid => Token::Invalid,
            WitnessToken::Verified(values) => {
                claims = Claims::verified(values.clone());
                Token::Verified(&claims)
            }
        };
        let request = Request {
            method: &self.method,
            host: host.as_ref(),
            path: &path,
            kind,
            authority: self.host.as_deref(),
            text: &text,
            headers: &self.headers,
            token,
        };
        Some(policies.decide_http(connection, &request))
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.http {
            None => write!(f, "tcp {}", self.port)?,
            Some(http) => {
                write!(f, "{} {} {}", http.method, self.port, http.path)?;
                if let Some(host) = &http.host {
                    write!(f, " (host {host})")?;
                }
                for (name, value) in &http.headers {
                    write!(f, " ({name}: {value:?})")?;
                }
                match &http.token {
                    WitnessToken::Absent => {}
                    WitnessToken::Invalid => f.write_str(" (with an invalid token)")?,
                    WitnessToken::Verified(claims) => {
                        write!(f, " (with the token {})", Value::Object(claims.clone()))?;
                    }
                }
            }
        }
        match &self.peer {
            Some(peer) => write!(f, " from {peer}")?,
            None => f.write_str(" from unauthenticated")?,
        }
        if self.source != ANY_ADDRESS {
            write!(f, " at {}", self.source)?;
        }
        write!(f, " to {}", self.to)?;
        for (name, value) in &self.labels {
            write!(f, " ({name}={value})")?;
        }
        if let Some(destination) = self.destination {
            write!(f, " at {destination}")?;
        }
        match &self.sni {
            Some(sni) => write!(f, " (SNI {sni})"),
            None => Ok(()),
        }
    }
}

impl Serialize for Witness {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let http = self.http.as_ref().map(|http| WireRequest {
            method: &http.method,
            host: http.host.as_deref(),
            path: &http.path,
            headers: &http.headers,
        });
        let jwt = match self.http.as_ref().map(|http| &http.token) {
            None | Some(WitnessToken::Absent) => Value::Null,
            Some(WitnessToken::Invalid) => Value::String("invalid".to_owned()),
            Some(WitnessToken::Verified(claims)) => Value::Object(claims.clone()),
        };
        let wire = Wire {
            peer: self.peer.as_ref(),
            source_ip: self.source,
            dest_ip: self.destination,
            port: self.port,
            sni: self.sni.as_deref(),
            http,
            jwt,
        };
        wire.serialize(serializer)
    }
}

#[derive(Serialize)]
struct Wire<'w> {
    peer: Option<&'w SpiffeId>,
    source_ip: IpAddr,
    dest_ip: Option<IpAddr>,
    port: u16,
    sni: Option<&'w str>,
    http: Option<WireRequest<'w>>,
    jwt: Value,
}

#[derive(Serialize)]
struct WireRequest<'w> {
    method: &'w str,
    host: Option<&'w str>,
    path: &'w str,
    headers: &'w [(String, String)],
}
