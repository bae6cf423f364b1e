//! What is asked of the policies: who, from where, for what, and when.

use std::net::IpAddr;
use std::time::SystemTime;

use identity::SpiffeId;

use crate::host::CanonicalHost;
use crate::path::CanonicalPath;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerIdentity<'a> {
    /// A verified SPIFFE ID.
    Authenticated(&'a SpiffeId),
    /// Nobody proved to be anybody.
    Unauthenticated,
}

/// A connection to a port of the workload.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Who connects.
    pub peer: PeerIdentity<'a>,
    /// The address of the socket's other end; a mapped IPv6 address is taken for the IPv4 address it means.
    pub source: IpAddr,
    /// The workload's port: the one that was accepted, never one that a peer names.
    pub port: u16,
    /// The moment of the decision.
    pub now: SystemTime,
}

/// An HTTP request on such a connection.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method as it came: methods differ by case.
    pub method: &'a str,
    /// The host asked for, absent where the request names none.
    pub host: Option<&'a CanonicalHost>,
    /// The path that is forwarded.
    pub path: &'a CanonicalPath,
}

/// How the port is served, and what is asked on it.
#[derive(Clone, Copy, Debug)]
pub enum Traffic<'a> {
    /// Opaque bytes.
    Tcp,
    /// HTTP, before a request was read.
    HttpConnection,
    /// HTTP, one request.
    HttpRequest(Request<'a>),
}
