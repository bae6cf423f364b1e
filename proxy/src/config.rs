//! The configuration file `proxy/v1`: read strictly, checked whole, already typed.

mod hardening;
pub(crate) mod istio;
mod jwt;
mod lifecycle;
mod reading;
mod services;
mod telemetry;
#[cfg(test)]
mod tests;
mod transparent;
mod tunnel;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime},
};

use identity::{SpiffeId, TrustDomain};
use policy::strict::{Problems, Source as Text};

pub use hardening::{Hardening, Wall};
pub use jwt::Jwt;
pub use lifecycle::{HANDOVER_DRAIN, Handover, Lifecycle};
pub(crate) use services::ON_UNAVAILABLE;
pub use services::{Calls, Dns, Services, ServicesFrom};
pub use transparent::{
    Called, CalledPort, Calling, Capture, INBOUND_PORT, OUTBOUND_PORT, Probe, Transparent, Unknown,
};
pub use tunnel::{Tunnel, Tunnelling};

/// Everything `run` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which SVID to use where the source yields several.
    pub identity: Option<SpiffeId>,
    /// Where the SVID and the bundles come from.
    pub source: IdentitySource,
    /// Where the policies come from; without any every inbound access is refused.
    pub policies: Option<PolicySource>,
    /// What Istio's policy files presuppose.
    pub istio: Istio,
    /// How the keys of token issuers are fetched.
    pub jwt: Jwt,
    /// Listeners for callers of our workload.
    pub inbound: Vec<Inbound>,
    /// Listeners for calls of our workload.
    pub outbound: Vec<Outbound>,
    /// Where calls may go.
    pub services: Services,
    /// Interception of the workload's traffic.
    pub transparent: Option<Transparent>,
    /// Where callers' tunnels arrive; without it none are taken.
    pub tunnel: Option<Tunnel>,
    /// Health probes and metric scrapes that are let in without a proven identity.
    pub probes: Vec<Probe>,
    /// Where the admin interface listens.
    pub admin: Admin,
    /// Where the audit log goes.
    pub audit: Audit,
    /// How long live connections may take to finish after a stop was asked for.
    pub drain: Duration,
    /// How the proxy comes and goes.
    pub lifecycle: Lifecycle,
    /// What a started sidecar gives up.
    pub hardening: Hardening,
    /// What an operator sees of requests.
    pub telemetry: crate::telemetry::Config,
    /// What bounds everything that a peer can make grow.
    pub limits: Limits,
    /// Threads of the data path; with none it shares the thread of everything else.
    pub workers: usize,
}

impl Config {
    /// Reads a configuration. Every problem found is in the error.
    pub fn parse(text: &Text) -> Result<Self, Problems> {
        reading::config(text)
    }

    /// Whether others may call the workload.
    pub(crate) fn is_called(&self) -> bool {
        let captured = self.transparent.as_ref().is_some_and(|transparent| transparent.inbound.is_some());
        captured || !self.inbound.is_empty()
    }
}

/// Where the SVID and the bundles come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The Workload API socket that `SPIFFE_ENDPOINT_SOCKET` names.
    Environment,
    /// A Workload API socket.
    WorkloadApi(crate::workload_api::Endpoint),
    /// PEM files, read again when they change.
    Pem(PemFiles),
}

/// The PEM files of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemFiles {
    /// The SVID's certificates, leaf first.
    pub certificate: PathBuf,
    /// The SVID's private key.
    pub key: PathBuf,
    /// The bundle of the SVID's own trust domain.
    pub bundle: PathBuf,
    /// Bundles of other trust domains.
    pub federated: Vec<(TrustDomain, PathBuf)>,
}

/// Where the policies come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySource {
    /// A directory, and nobody else has a say.
    Directory(PathBuf),
    /// The agent hands out what the CA has signed.
    Agent {
        /// A directory of files that may refuse more.
        local: Option<PathBuf>,
        /// Where the highest number that was taken is kept, so that no restart forgets it.
        state_dir: Option<PathBuf>,
    },
}

impl Config {
    /// Where the highest number of the CA's services is kept: without a word beside that of the policies.
    pub(crate) fn services_state_dir(&self) -> Option<&std::path::Path> {
        let beside = match &self.policies {
            Some(PolicySource::Agent { state_dir, .. }) => state_dir.as_deref(),
            Some(PolicySource::Directory(_)) | None => None,
        };
        self.services.state_dir.as_deref().or(beside)
    }
}

impl PolicySource {
    /// Returns the directory of files on this host.
    pub fn directory(&self) -> Option<&std::path::Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Agent { local, .. } => local.as_deref(),
        }
    }
}

/// What Istio's policy files presuppose and do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Istio {
    /// The namespace of the workload; else the one in its SPIFFE ID.
    pub namespace: Option<String>,
    /// The labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// The trust domain of the mesh; else that of the workload.
    pub trust_domain: Option<TrustDomain>,
    /// The settings of the mesh. Its trust domain is filled in when it is known.
    pub mesh: policy::Mesh,
}

impl Default for Istio {
    fn default() -> Self {
        // Where nothing selects the workload, Istio lets everything pass. A daemon does so only when it is told to.
        let mesh = policy::Mesh { unselected: policy::Unselected::Deny, ..policy::Mesh::default() };
        Self { namespace: None, labels: BTreeMap::new(), trust_domain: None, mesh }
    }
}

/// What is spoken behind the TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Bytes; decided once for the connection.
    Tcp,
    /// HTTP/1.1 or HTTP/2, as the caller speaks; decided for each request.
    Http,
    /// HTTP where the first bytes are HTTP, else bytes. A server that speaks first is declared `tcp`.
    Auto,
}

impl Protocol {
    /// Returns the word the configuration uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Auto => "auto",
        }
    }
}

/// One inbound listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The listener's name, for records and metrics.
    pub name: String,
    /// Where callers connect, with mutual TLS.
    pub listen: SocketAddr,
    /// What the application speaks.
    pub protocol: Protocol,
    /// Where the application listens, on loopback, in plaintext.
    pub application: SocketAddr,
    /// Until when callers are let in that prove nothing; policy decides about them as nobody's.
    pub danger_permissive_until: Option<SystemTime>,
}

/// One outbound listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// The listener's name, for records and metrics.
    pub name: String,
    /// Where the application connects, on loopback, in plaintext.
    pub listen: SocketAddr,
    /// Where its calls go.
    pub calls: Calls,
    /// Whether it is reached through tunnels.
    pub tunnel: Tunnelling,
}

/// A host name or address with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Returns the host; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError::NoPort)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(HostPortError::Port)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let valid = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(name),
        };
        if valid { Ok(Self { host: host.to_owned(), port }) } else { Err(HostPortError::Host) }
    }
}

/// Why a text is no host with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// There is no port.
    #[error("it has no port")]
    NoPort,
    /// The port is no number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The host is neither a name nor an address; an IPv6 address stands in brackets.
    #[error("the host is neither a name nor an address")]
    Host,
}

/// Where the admin interface listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// An address on loopback, for probes and scrapers: every process of the host may read there.
    pub listen: Option<SocketAddr>,
    /// A Unix socket, where the sidecar's own user and root may also ask for something to be done.
    pub socket: Option<PathBuf>,
}

/// Where the audit log goes and when its file is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The file, or standard output.
    pub target: AuditTarget,
    /// Bytes after which the file is changed.
    pub rotate_size: u64,
    /// Age after which the file is changed.
    pub rotate_age: Duration,
    /// Full files kept.
    pub keep: usize,
}

/// Where the audit log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditTarget {
    /// A file.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// What bounds everything that a peer can make grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Live connections of all listeners.
    pub connections: usize,
    /// Live connections of one listener.
    pub connections_per_listener: usize,
    /// TLS handshakes in flight.
    pub handshakes: usize,
    /// Bytes of a request or response head.
    pub header_size: usize,
    /// Header fields of a request or response.
    pub header_count: usize,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// For a whole request head, from its first byte.
    pub header_timeout: Duration,
    /// For the first byte on a port that detects what is spoken.
    pub detect_timeout: Duration,
    /// For a connection to the application or an endpoint.
    pub connect_timeout: Duration,
    /// For the next request on a kept-alive connection.
    pub idle_timeout: Duration,
    /// Without a byte of a body, or without a byte taken of a response.
    pub stall_timeout: Duration,
    /// Without a byte on a TCP connection.
    pub tcp_idle_timeout: Duration,
    /// Without a byte on a TCP connection of which one half has ended.
    pub half_close_timeout: Duration,
    /// Whether opaque connections end with the SVID that their peer proved itself with.
    pub cut_at_peer_expiry: bool,
    /// The age at which every connection is to be made again.
    pub max_connection_age: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            connections_per_listener: CONNECTIONS,
            handshakes: HANDSHAKES,
            header_size: HEADER_SIZE,
            header_count: HEADER_COUNT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            header_timeout: HEADER_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
            tcp_idle_timeout: TCP_IDLE_TIMEOUT,
            half_close_timeout: HALF_CLOSE_TIMEOUT,
            detect_timeout: DETECT_TIMEOUT,
            cut_at_peer_expiry: false,
            max_connection_age: None,
        }
    }
}

impl Limits {
    pub(crate) fn live(&self) -> crate::activity::Limits {
        crate::activity::Limits {
            idle: self.idle_timeout,
            head: self.header_timeout,
            stall: self.stall_timeout,
            relay_idle: self.tcp_idle_timeout,
            half_closed: self.half_close_timeout,
        }
    }

    pub(crate) fn ages(&self) -> crate::live::Ages {
        crate::live::Ages { cut_at_expiry: self.cut_at_peer_expiry, oldest: self.max_connection_age }
    }

    pub(crate) fn streams(&self) -> crate::http2::Bounds {
        crate::http2::Bounds { heads: self.head(), stall: self.stall_timeout }
    }

    pub(crate) fn head(&self) -> crate::http1::HeadLimits {
        crate::http1::HeadLimits { bytes: self.header_size, count: self.header_count }
    }
}

/// 10,000 live connections, and some to spare under the usual 20,000 descriptors: each takes two.
pub const CONNECTIONS: usize = 9_500;
/// Handshakes in flight: at half a millisecond of work each, a second's queue on one core.
pub const HANDSHAKES: usize = 1_024;
/// Bytes of a head: what common servers accept.
pub const HEADER_SIZE: usize = 32 * 1024;
/// Header fields of a head: what the library underneath accepts without allocating.
pub const HEADER_COUNT: usize = 100;
/// A handshake across the world takes three round trips of 300 ms; a slow one gets ten times that.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a head; a client that drips bytes is cut.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// For a connection to an application on this host or an endpoint in the same cluster.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the next request on a kept-alive connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Without progress of a body in either direction.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Database pools hold connections for hours; TCP keepalive finds the dead ones.
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// A half that never ends after the other one did.
pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
/// For a client to speak first: after this the server is waited for.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(1);
/// One thread carries one workload.
pub const WORKERS: usize = 1;
/// Live connections after a stop was asked for.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Most listeners of one kind.
pub(crate) const MAX_LISTENERS: usize = 256;
/// Most endpoints of one service.
pub(crate) const MAX_ENDPOINTS: usize = 256;
/// Most identities one service may have.
pub(crate) const MAX_EXPECTED: usize = 256;
/// DNS names end here (RFC 1035 2.3.4).
const MAX_HOST: usize = 253;
