//! What a test case asks: a connection, or a request of one kind.

use std::str::FromStr;

use super::elements::{PortError, ProtocolError, port, protocol};
use super::headers::{read_header_name, read_header_value};
use super::layers::{is_identifier, take_layer};
use super::linking::Wanted;
use super::read::quoted;
use super::tokens::{TestToken, read_test_token};
use super::{MAX_HEADER_VALUES, MAX_HEADERS, TestKind, TestRequest};
use crate::access::CONNECT;
use crate::host::{CanonicalHost, HostError};
use crate::path::{CanonicalPath, PathError};
use crate::strict::{Fields, Node, Reader};

/// What a test case asks for, and the issuer of the token that it supposes.
pub(super) struct Question {
    pub(super) port: u16,
    pub(super) request: Option<TestRequest>,
    pub(super) wanted: Option<Wanted>,
}

/// Takes the key that says what is asked, and those that say more of the request.
pub(super) fn read_question(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Question> {
    let more = [fields.optional("host"), fields.optional("headers"), fields.optional("jwt")];
    let (layer, node) = match take_layer(fields, "test", read)? {
        Some(asked) => asked,
        None => {
            let cure = "add \"tcp: 8443\" or \"http: GET 8443 /v1/rates\"".to_owned();
            read.place(fields.span(), "the test asks nothing", Some(cure));
            return None;
        }
    };
    if layer == "tcp" {
        for (node, key) in more.into_iter().zip(["host", "headers", "jwt"]) {
            if let Some(node) = node {
                read.problem(node, format!("\"{key}\" has no meaning for opaque TCP"), None);
            }
        }
        let Port(port) = read.parsed(node, "a port such as 8443")?;
        return Some(Question { port, request: None, wanted: None });
    }
    let [host, headers, token] = more;
    let host = host.map(|node| read_test_host(node, layer, read));
    let headers = headers.map_or(Some(Vec::new()), |node| read_fields(node, read));
    let token = token.map_or(Some((TestToken::Absent, None)), |node| read_test_token(node, read));
    let line = read_line(layer, node, read);
    let host = match host {
        Some(host) => Some(host?),
        None => None,
    };
    let (headers, (token, wanted), line) = (headers?, token?, line?);
    let Line { method, port, host: tunnel, path, kind } = line;
    let request = TestRequest { method, host: host.or(tunnel), path, kind, headers, token };
    Some(Question { port, request: Some(request), wanted })
}

fn read_test_host(node: &Node, layer: &str, read: &mut Reader<'_>) -> Option<CanonicalHost> {
    if layer == "connect" {
        let cure = "write it as in connect: 8443 db.example:5432";
        read.problem(node, "the host of a tunnel is said under \"connect\"", Some(cure));
        return None;
    }
    let text = read.string(node)?;
    CanonicalHost::parse(text)
        .map_err(|error| read.problem(node, format!("{} is not a host: {error}", quoted(text)), None))
        .ok()
}

fn read_fields(node: &Node, read: &mut Reader<'_>) -> Option<Vec<(String, String)>> {
    let mut lines = Some(Vec::new());
    for (name, at, value) in read.pairs(node, MAX_HEADERS)? {
        let name = read_header_name(name, at, read);
        let values = if value.is_list() {
            read.each(value, MAX_HEADER_VALUES, |read, item| read_header_value(read, item).map(str::to_owned))
        } else {
            // A whole field line, with commas where the sender joined several values.
            read.string(value).map(|line| vec![line.to_owned()])
        };
        lines = lines.zip(name.zip(values)).map(|(mut lines, (name, values))| {
            lines.extend(values.into_iter().map(|value| (name.to_string(), value)));
            lines
        });
    }
    lines
}

fn read_line(layer: &str, node: &Node, read: &mut Reader<'_>) -> Option<Line> {
    match layer {
        "grpc" => {
            let GrpcLine(line) =
                read.parsed(node, "a call such as \"9443 payments.v1.Settlement/Submit\"")?;
            Some(line)
        }
        "connect" => {
            let ConnectLine(line) = read.parsed(node, "a tunnel such as \"8443 db.example:5432\"")?;
            Some(line)
        }
        "upgrade" => {
            let UpgradeLine(line) = read.parsed(node, "an upgrade such as \"8443 websocket /live\"")?;
            Some(line)
        }
        _ => {
            let HttpLine(line) = read.parsed(node, "a request such as \"GET 8443 /v1/rates\"")?;
            Some(line)
        }
    }
}

struct Port(u16);

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        port(text).map(Self)
    }
}

/// A request, as one line says it.
struct Line {
    method: String,
    port: u16,
    host: Option<CanonicalHost>,
    path: CanonicalPath,
    kind: TestKind,
}

struct HttpLine(Line);

impl FromStr for HttpLine {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        let [method, number, path] = parts(text).ok_or(LineError::Http)?;
        if method == CONNECT {
            return Err(LineError::Connect);
        }
        let (method, port, path) = (method.to_owned(), port(number)?, CanonicalPath::parse(path)?);
        Ok(Self(Line { method, port, host: None, path, kind: TestKind::Plain }))
    }
}

struct GrpcLine(Line);

impl FromStr for GrpcLine {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        let [number, call] = parts(text).ok_or(LineError::Grpc)?;
        let (service, method) = call.split_once('/').ok_or(LineError::Grpc)?;
        if !service.split('.').all(is_identifier) || !is_identifier(method) {
            return Err(LineError::Grpc);
        }
        let path = CanonicalPath::parse(&format!("/{call}"))?;
        let port = port(number)?;
        Ok(Self(Line { method: "POST".to_owned(), port, host: None, path, kind: TestKind::Plain }))
    }
}

struct ConnectLine(Line);

impl FromStr for ConnectLine {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        let [number, authority] = parts(text).ok_or(LineError::Tunnel)?;
        let host = CanonicalHost::parse(authority)?;
        let kind = TestKind::Connect { port: host.port() };
        // A tunnel names no path; rules about paths are asked about the root.
        let (port, path) = (port(number)?, CanonicalPath::parse("/")?);
        Ok(Self(Line { method: CONNECT.to_owned(), port, host: Some(host), path, kind }))
    }
}

struct UpgradeLine(Line);

impl FromStr for UpgradeLine {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        let [number, name, path] = parts(text).ok_or(LineError::Upgrade)?;
        let kind = TestKind::Upgrade { protocol: protocol(name)? };
        let (port, path) = (port(number)?, CanonicalPath::parse(path)?);
        Ok(Self(Line { method: "GET".to_owned(), port, host: None, path, kind }))
    }
}

fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    let parts: Vec<&str> = text.split(' ').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    parts.try_into().ok()
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum LineError {
    #[error("it is a method, a port and a path, with one space between")]
    Http,
    #[error("a tunnel is asked for with \"connect: 8443 db.example:5432\"")]
    Connect,
    #[error("it is a port, a service, a slash and a method")]
    Grpc,
    #[error("it is a port, a host and its port, as in \"8443 db.example:5432\"")]
    Tunnel,
    #[error("it is a port, a protocol and a path, with one space between")]
    Upgrade,
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

#[cfg(test)]
mod tests;
