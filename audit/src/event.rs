//! What happened, as the deciders tell it: plain data, before it becomes a record.
//!
//! A caller hands over what it has; `record` caps and escapes, and what waits until then is cut to about that.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    id::{ConnectionId, DenialId},
    reason::Reason,
};

/// One thing that happened to one access.
#[derive(Debug, Clone)]
pub struct Event {
    /// When the decision began, or when the connection ended.
    pub time: SystemTime,
    /// What happened.
    pub kind: Kind,
    /// Where in a connection's life it happened.
    pub stage: Stage,
    /// The connection it happened to.
    pub connection: ConnectionId,
    /// Who called.
    pub source: Endpoint,
    /// Who was called; the port is the workload's.
    pub destination: Endpoint,
    /// The port the caller dialled, where interception changed it.
    pub original_port: Option<u16>,
    /// What TLS proved about the peer.
    pub tls: Option<Tls>,
    /// The request, once there is one.
    pub http: Option<Http>,
    /// What the request's token says of itself, where it has one.
    pub jwt: Option<Jwt>,
    /// The rule that decided; `None` where the default did.
    pub policy: Option<PolicyRef>,
    /// The generation of the policy set that decided; empty before the first load.
    pub generation: Arc<str>,
    /// Up to three allow rules that came nearest, for a denial.
    pub near_misses: Vec<NearMiss>,
    /// How many live connections a change of the daemon cut, where it is known.
    pub cut: Option<u64>,
}

impl Event {
    /// Makes an event of a connection with nothing known about it but its name.
    pub fn new(time: SystemTime, kind: Kind, stage: Stage, connection: ConnectionId) -> Self {
        Self {
            time,
            kind,
            stage,
            connection,
            source: Endpoint::default(),
            destination: Endpoint::default(),
            original_port: None,
            tls: None,
            http: None,
            jwt: None,
            policy: None,
            generation: Arc::default(),
            near_misses: Vec::new(),
            cut: None,
        }
    }

    /// Lets go of what no record keeps: what waits for the writer is held in memory, and its size was a peer's choice.
    pub(crate) fn slim(&mut self) {
        if let Some(http) = &mut self.http {
            let texts = [&mut http.method, &mut http.host, &mut http.path];
            texts.into_iter().chain(&mut http.user_agent).for_each(shorten);
            if let Some(raw) = http.path_raw.as_mut().filter(|raw| raw.len() > LONGEST_TEXT) {
                raw.truncate(LONGEST_TEXT);
                raw.shrink_to_fit();
            }
        }
        if let Some(jwt) = &mut self.jwt {
            jwt.issuer.iter_mut().chain(&mut jwt.key_id).for_each(shorten);
        }
        for miss in &mut self.near_misses {
            shorten(&mut miss.wanted);
            shorten(&mut miss.found);
        }
    }

    /// Makes an event about a daemon rather than a connection.
    pub fn lifecycle(time: SystemTime, change: Lifecycle, generation: Arc<str>) -> Self {
        let mut event = Self::new(time, Kind::Lifecycle(change), Stage::Admin, ConnectionId::new(time));
        event.generation = generation;
        event
    }

    /// Returns what the event counts as.
    pub fn decision(&self) -> Decision {
        match &self.kind {
            Kind::Denied(denial) => match denial.effect {
                Effect::Enforced => Decision::Denied,
                Effect::Shadow => Decision::WouldDeny,
            },
            Kind::Opened => Decision::Opened,
            Kind::Closed(_) => Decision::Closed,
            Kind::Allowed => Decision::Allowed,
            Kind::Lifecycle(_) => Decision::Lifecycle,
        }
    }

    /// Returns why access was refused, for a denial.
    pub fn reason(&self) -> Option<Reason> {
        match &self.kind {
            Kind::Denied(denial) => Some(denial.reason),
            Kind::Opened | Kind::Closed(_) | Kind::Allowed | Kind::Lifecycle(_) => None,
        }
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An access was refused, or would have been but for shadow mode.
    Denied(Denial),
    /// A connection was let through.
    Opened,
    /// A connection that was let through ended.
    Closed(Close),
    /// One request was let through. Never a line of its own: requests are summed up.
    Allowed,
    /// A daemon or its policies changed.
    Lifecycle(Lifecycle),
}

/// A refusal.
#[derive(Debug, Clone, Copy)]
pub struct Denial {
    /// What the refused client is told.
    pub id: DenialId,
    /// Why.
    pub reason: Reason,
    /// Whether the refusal took effect.
    pub effect: Effect,
}

/// Whether a refusal took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing passed.
    Enforced,
    /// Passed, and would not have if the shadow policy were enforced.
    Shadow,
}

/// How a connection ended and what it carried.
#[derive(Debug, Clone, Copy)]
pub struct Close {
    /// Bytes from the caller.
    pub bytes_in: u64,
    /// Bytes to the caller.
    pub bytes_out: u64,
    /// How long it lived.
    pub duration: Duration,
    /// Why it ended.
    pub cause: CloseCause,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// One of the two ends was done.
    Finished,
    /// The caller's side broke.
    SourceFailed,
    /// The callee's side broke, or could not be reached.
    DestinationFailed,
    /// A new policy forbids it.
    PolicyChanged,
    /// A bundle or serial number was withdrawn.
    TrustWithdrawn,
    /// The peer's certificate expired.
    PeerExpired,
    /// A request on it was refused in a way that ends the connection.
    Refused,
    /// A time limit passed.
    TimedOut,
    /// The daemon is stopping.
    Draining,
}

impl CloseCause {
    /// Returns the name the record carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::SourceFailed => "source_failed",
            Self::DestinationFailed => "destination_failed",
            Self::PolicyChanged => "policy_changed",
            Self::TrustWithdrawn => "trust_withdrawn",
            Self::PeerExpired => "peer_expired",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Draining => "draining",
        }
    }
}

/// A change of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// The daemon serves.
    Started,
    /// The daemon is about to end.
    Stopped,
    /// A new policy set decides.
    PolicyChanged,
    /// A new policy set was refused and the last good one still decides.
    PolicyRefused,
    /// The daemon presents a new certificate.
    IdentityRotated,
}

impl Lifecycle {
    /// Returns the name the record carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::PolicyChanged => "policy_changed",
            Self::PolicyRefused => "policy_refused",
            Self::IdentityRotated => "identity_rotated",
        }
    }
}

/// What an event counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Refused.
    Denied,
    /// Passed only because the policy is in shadow.
    WouldDeny,
    /// A connection let through.
    Opened,
    /// The end of a connection that was let through.
    Closed,
    /// A request let through.
    Allowed,
    /// Not an access: a change of the daemon or of the log itself.
    Lifecycle,
}

impl Decision {
    /// Every decision there is.
    pub const ALL: [Self; 6] =
        [Self::Denied, Self::WouldDeny, Self::Opened, Self::Closed, Self::Allowed, Self::Lifecycle];

    /// Returns the name the record and the metric carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::WouldDeny => "would_deny",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Allowed => "allowed",
            Self::Lifecycle => "lifecycle",
        }
    }
}

/// Where in a connection's life something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// In the TLS handshake, before there is a peer.
    Handshake,
    /// On a connection, before any byte of it passed.
    Connect,
    /// On one request.
    Request,
    /// On a live connection, because policy or trust changed under it.
    Reevaluate,
    /// On a call to the daemon itself.
    Admin,
}

impl Stage {
    /// Returns the name the record carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Connect => "connect",
            Self::Request => "request",
            Self::Reevaluate => "reevaluate",
            Self::Admin => "admin",
        }
    }
}

/// One end of a connection. What is unknown is absent, never empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The address; none on a Unix socket.
    pub ip: Option<IpAddr>,
    /// The port; none on a Unix socket.
    pub port: Option<u16>,
    /// The whole SPIFFE ID; none where nobody proved one.
    pub id: Option<Arc<str>>,
    /// The name the configuration gives it, such as the listener's.
    pub name: Option<Arc<str>>,
}

/// What TLS showed about the peer.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The protocol version, such as `1.3`.
    pub version: &'static str,
    /// The server name the client asked for.
    pub sni: Option<String>,
    /// The peer's leaf.
    pub certificate: Option<Certificate>,
}

/// What finds the peer's exact certificate again.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The trust domain whose bundle the chain ends in, as `spiffe://name`.
    pub issuer: Arc<str>,
    /// The serial number, lower case hex.
    pub serial: Arc<str>,
    /// SHA-256 of the certificate, lower case hex.
    pub fingerprint: Arc<str>,
}

/// A request line and the little beside it that a record carries.
#[derive(Debug, Clone, Default)]
pub struct Http {
    /// The method.
    pub method: String,
    /// The host, without the port.
    pub host: String,
    /// The path as it is forwarded. A query is cut off.
    pub path: String,
    /// What the client calls itself.
    pub user_agent: Option<String>,
    /// The path as it came, where that was different. A query is cut off.
    pub path_raw: Option<Vec<u8>>,
}

/// A token, as far as a record may show it: never the token itself, nor whom it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jwt {
    /// Who issued it; unproven where there is a flaw.
    pub issuer: Option<String>,
    /// The key it names; unproven where there is a flaw.
    pub key_id: Option<String>,
    /// Why it proves nothing.
    pub flaw: Option<&'static str>,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRef {
    /// The policy's name.
    pub policy: Arc<str>,
    /// The rule's name.
    pub rule: Arc<str>,
    /// The file it is written in.
    pub file: Arc<str>,
    /// The line it starts at.
    pub line: u32,
}

impl PolicyRef {
    /// Returns `file#rule`, the name that is unique in a policy set.
    pub fn uid(&self) -> String {
        format!("{}#{}", self.file, self.rule)
    }
}

/// An allow rule that did not match, and the first thing in it that did not.
#[derive(Debug, Clone)]
pub struct NearMiss {
    /// The rule.
    pub rule: PolicyRef,
    /// The dimension that failed first, such as `path`.
    pub failed: String,
    /// What the rule asks for.
    pub wanted: String,
    /// What the access had.
    pub found: String,
}

fn shorten(text: &mut String) {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        text.shrink_to_fit();
    }
}

/// More than a record keeps of any text, so that it still says where it was cut.
pub(crate) const LONGEST_TEXT: usize = 1_536;
