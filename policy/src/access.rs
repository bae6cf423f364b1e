//! What is asked of the policies: who, from where, for what, and when.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use identity::SpiffeId;

use crate::claims::Claims;
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
    /// The address that was connected to, where it is known.
    pub destination: Option<IpAddr>,
    /// The server name of the TLS handshake, in lower case, where there was one.
    pub sni: Option<&'a str>,
}

impl<'a> Connection<'a> {
    /// A connection of which no more is known than these four.
    pub fn new(peer: PeerIdentity<'a>, source: IpAddr, port: u16, now: SystemTime) -> Self {
        Self { peer, source, port, now, destination: None, sni: None }
    }
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
    /// What the peer wants of the connection.
    pub kind: RequestKind<'a>,
    /// The authority as it came, port included. Istio's `hosts` compare this.
    pub authority: Option<&'a str>,
    /// The path as Istio's rules compare it; the canonical one, where nothing else was asked for.
    pub text: &'a str,
    /// The header fields.
    pub headers: &'a dyn HeaderFields,
    /// What the request proves beside the connection.
    pub token: Token<'a>,
}

impl<'a> Request<'a> {
    /// A plain request without header fields and token.
    pub fn new(method: &'a str, host: Option<&'a CanonicalHost>, path: &'a CanonicalPath) -> Self {
        Self {
            method,
            host,
            path,
            kind: if method == CONNECT { RequestKind::Connect { port: None } } else { RequestKind::Plain },
            authority: host.map(CanonicalHost::as_str),
            text: path.as_str(),
            headers: &NoHeaders,
            token: Token::Absent,
        }
    }
}

/// What a request wants of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind<'a> {
    /// An answer.
    Plain,
    /// A tunnel to the host of the request, at this port.
    Connect {
        /// The port, where the request names one.
        port: Option<u16>,
    },
    /// Another protocol on the same connection.
    Upgrade {
        /// The protocol, in lower case.
        protocol: &'a str,
    },
}

/// The header fields of a request, wherever they are kept.
pub trait HeaderFields: fmt::Debug {
    /// Shows the value of every field line with a name, which is compared without case, in the order in which they came.
    fn each(&self, name: &str, see: &mut dyn FnMut(&[u8]));
}

/// No header fields at all.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

impl HeaderFields for NoHeaders {
    fn each(&self, _name: &str, _see: &mut dyn FnMut(&[u8])) {}
}

impl HeaderFields for Vec<(String, String)> {
    fn each(&self, name: &str, see: &mut dyn FnMut(&[u8])) {
        for (_, value) in self.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)) {
            see(value.as_bytes());
        }
    }
}

/// What a request proves by a token.
#[derive(Clone, Copy, Debug)]
pub enum Token<'a> {
    /// It has none.
    Absent,
    /// It has one that proves nothing: badly signed, expired, of an issuer nobody declared, or more than one.
    Invalid,
    /// It has one, and it was verified.
    Verified(&'a Claims),
}

/// The method that asks for a tunnel.
pub(crate) const CONNECT: &str = "CONNECT";

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
