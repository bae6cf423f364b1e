//! From nodes to what the lists of a rule are made of. A bad element fails the rule, and with it the whole load.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use super::read::quoted;
use super::{Limit, MAX_PORTS};
use crate::net::{Network, NetworkError};
use crate::pattern::{HostPattern, HostPatternError, PathPattern, PathPatternError};
use crate::strict::{Fields, Node, Reader};

/// Reads a list of at most `most` elements; without the key everything is meant.
pub(super) fn limit<T>(
    node: Option<&Node>,
    most: usize,
    read: &mut Reader<'_>,
    each: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>,
) -> Option<Limit<T>> {
    let Some(node) = node else { return Some(Limit::Any) };
    let mut each = each;
    read.each(node, most, |read, item| each(read, item)).map(Limit::Only)
}

/// Reads `port` or `ports`, of which there must be one.
pub(super) fn read_ports(
    fields: &mut Fields<'_>,
    read: &mut Reader<'_>,
) -> Option<Limit<RangeInclusive<u16>>> {
    match (fields.optional("port"), fields.optional("ports")) {
        (Some(one), None) => match read.parsed(one, "a port such as 8443, or any")? {
            PortWord::Any => Some(Limit::Any),
            PortWord::Range(range) => Some(Limit::Only(vec![range])),
        },
        (None, Some(several)) => {
            let cure = "write \"port: any\"";
            read.each(several, MAX_PORTS, |read, node| read_range(read, node, cure)).map(Limit::Only)
        }
        (Some(_), Some(several)) => {
            read.problem(several, "\"port\" and \"ports\" are both given", Some("keep one of the two"));
            None
        }
        (None, None) => {
            let cure = "add \"port: 8443\", \"ports: [8443, 9000-9010]\" or \"port: any\"".to_owned();
            read.place(fields.span(), "the key \"port\" is missing", Some(cure));
            None
        }
    }
}

/// Reads one of several ports or ranges; `cure` says how every port is written.
pub(super) fn read_range(read: &mut Reader<'_>, node: &Node, cure: &str) -> Option<RangeInclusive<u16>> {
    match read.parsed(node, "a port such as 8443, or a range such as 9000-9010")? {
        PortWord::Range(range) => Some(range),
        PortWord::Any => {
            read.problem(node, "\"any\" is not one of several ports", Some(cure));
            None
        }
    }
}

/// Reads a network.
pub(super) fn read_network(read: &mut Reader<'_>, node: &Node) -> Option<Network> {
    let text = read.string(node)?;
    match Network::parse(text) {
        Ok(network) => Some(network),
        Err(error) => {
            let cure = match &error {
                NetworkError::NoPrefix { network } | NetworkError::HostBits { network } => {
                    Some(format!("write \"{network}\""))
                }
                NetworkError::Syntax => Some("write it as in 10.20.0.0/16".to_owned()),
                NetworkError::Mapped => None,
            };
            read.problem(node, format!("{} is not a network: {error}", quoted(text)), cure.as_deref());
            None
        }
    }
}

/// Reads the method of a request that wants an answer.
pub(super) fn read_method(read: &mut Reader<'_>, node: &Node) -> Option<Arc<str>> {
    let text = read.string(node)?;
    let upper = text.to_ascii_uppercase();
    let token = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if text == "CONNECT" {
        let cure = "write a rule with \"connect: {port: …}\"";
        read.problem(node, "the method CONNECT asks for a tunnel, which is a kind of its own", Some(cure));
        return None;
    }
    if token && text == upper && text.len() <= MAX_METHOD {
        return Some(text.into());
    }
    let cure = (token && text != upper).then(|| format!("did you mean \"{upper}\"? methods differ by case"));
    read.problem(node, format!("{} is not a method", quoted(text)), cure.as_deref());
    None
}

/// Reads a host or a pattern of hosts.
pub(super) fn read_host(read: &mut Reader<'_>, node: &Node) -> Option<HostPattern> {
    let text = read.string(node)?;
    match HostPattern::parse(text) {
        Ok(host) => Some(host),
        Err(error) => {
            let cure = match &error {
                HostPatternError::NotCanonical { canonical } => Some(format!("write \"{canonical}\"")),
                HostPatternError::Port => Some("name the port under \"port\"".to_owned()),
                HostPatternError::Wildcard => Some("write it as in \"*.shop.example\"".to_owned()),
                HostPatternError::Host(_) => None,
            };
            read.problem(node, format!("{} is not a host: {error}", quoted(text)), cure.as_deref());
            None
        }
    }
}

/// Reads a server name as it stands in a handshake.
pub(super) fn read_server_name(read: &mut Reader<'_>, node: &Node) -> Option<Arc<str>> {
    let text = read.string(node)?;
    let (why, cure) = match HostPattern::parse(text) {
        // RFC 6066 3: addresses are not permitted; a name is letters.
        Ok(_) if text.contains('*') => {
            ("a server name is spelled out".to_owned(), "list the names".to_owned())
        }
        Ok(_) if is_address(text) => {
            ("handshakes name no address".to_owned(), "use \"source_net\" or \"port\"".to_owned())
        }
        Ok(_) => return Some(text.into()),
        Err(HostPatternError::NotCanonical { canonical }) => {
            (format!("handshakes for it arrive as \"{canonical}\""), format!("write \"{canonical}\""))
        }
        Err(HostPatternError::Port) => {
            ("a server name has no port".to_owned(), "name the port under \"port\"".to_owned())
        }
        Err(HostPatternError::Wildcard) => {
            ("a server name is spelled out".to_owned(), "list the names".to_owned())
        }
        Err(HostPatternError::Host(error)) => (error.to_string(), "write it as in api.example".to_owned()),
    };
    read.problem(node, format!("{} is not a server name: {why}", quoted(text)), Some(&cure));
    None
}

fn is_address(text: &str) -> bool {
    text.starts_with('[') || text.parse::<std::net::IpAddr>().is_ok()
}

/// Reads a path or a pattern of paths.
pub(super) fn read_path(read: &mut Reader<'_>, node: &Node) -> Option<PathPattern> {
    let text = read.string(node)?;
    match PathPattern::parse(text) {
        Ok(path) => Some(path),
        Err(error) => {
            let cure = match &error {
                PathPatternError::NotCanonical { canonical } => Some(format!("write \"{canonical}\"")),
                PathPatternError::Segment(_) => {
                    Some("\"*\" is one whole segment, a trailing \"/**\" is the rest".to_owned())
                }
                PathPatternError::Path(_) | PathPatternError::Query | PathPatternError::EncodedWildcard => {
                    None
                }
            };
            read.problem(node, format!("{} is not a path: {error}", quoted(text)), cure.as_deref());
            None
        }
    }
}

/// Reads the protocol that is to follow on a connection.
pub(super) fn read_protocol(read: &mut Reader<'_>, node: &Node) -> Option<Arc<str>> {
    let text = read.string(node)?;
    match protocol(text) {
        Ok(protocol) => Some(protocol),
        Err(error) => {
            let cure = match error {
                ProtocolError::Case => Some(format!("write \"{}\"", text.to_ascii_lowercase())),
                ProtocolError::Token | ProtocolError::Hidden => None,
            };
            read.problem(node, format!("{} is not a protocol: {error}", quoted(text)), cure.as_deref());
            None
        }
    }
}

/// Checks the name of a protocol, as in `websocket`.
pub(super) fn protocol(text: &str) -> Result<Arc<str>, ProtocolError> {
    let token = !text.is_empty() && text.len() <= MAX_PROTOCOL && text.bytes().all(is_token);
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        _ if !token => Err(ProtocolError::Token),
        "h2c" | "tls" => Err(ProtocolError::Hidden),
        lower if lower != text => Err(ProtocolError::Case),
        lower => Ok(lower.into()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("protocols are named as in websocket")]
    Token,
    #[error("protocols are compared in lower case")]
    Case,
    #[error("the requests that follow could not be seen")]
    Hidden,
}

/// Whether a byte may stand in a token (RFC 9110 5.6.2), or be the slash before a protocol's version.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte)
}

enum PortWord {
    Any,
    Range(RangeInclusive<u16>),
}

impl FromStr for PortWord {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(PortError::Backwards);
        }
        Ok(Self::Range(first..=last))
    }
}

/// Parses a port in decimal, without sign or leading zero.
pub(super) fn port(text: &str) -> Result<u16, PortError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.starts_with('0') {
        return Err(PortError::Number);
    }
    text.parse().map_err(|_| PortError::Number)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PortError {
    #[error("ports are the numbers from 1 to 65535")]
    Number,
    #[error("the range ends before it begins")]
    Backwards,
}

/// Longest method.
const MAX_METHOD: usize = 32;

/// Longest name of a protocol.
const MAX_PROTOCOL: usize = 32;
