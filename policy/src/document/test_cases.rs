//! From nodes to the test cases of a policy.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::SystemTime;

use identity::SpiffeId;

use super::read::quoted;
use super::rules::{PortError, port};
use super::{Effect, MAX_TESTS, TestCase, TestPeer, TestRequest};
use crate::host::CanonicalHost;
use crate::moment::{LAST, Moment};
use crate::net::ANY_ADDRESS;
use crate::path::{CanonicalPath, PathError};
use crate::pattern::IdPattern;
use crate::strict::{Fields, Node, Reader};

/// Reads the list under `tests`.
pub(super) fn read_tests(
    node: &Node,
    protects: &[IdPattern],
    read: &mut Reader<'_>,
) -> Option<Vec<TestCase>> {
    read.each(node, MAX_TESTS, |read, item| read_test(item, protects, read))
}

fn read_test(node: &Node, protects: &[IdPattern], read: &mut Reader<'_>) -> Option<TestCase> {
    let mut fields = read.map(node)?;
    let from = fields.required("from", read).and_then(|node| read_peer(node, read));
    let to = read_targets(&mut fields, protects, read);
    let asked = read_asked(&mut fields, read);
    let source = match fields.optional("source_ip") {
        Some(node) => read.parsed::<IpAddr>(node, "an address such as 10.20.0.7"),
        None => Some(ANY_ADDRESS),
    };
    let at = match fields.optional("at") {
        Some(node) => read.parsed::<Moment>(node, Moment::WANTED).map(|Moment(at)| at),
        // No `until` is later, so rules are tried as they are meant to become.
        None => Some(SystemTime::UNIX_EPOCH + LAST),
    };
    let expect = fields.required("expect", read).and_then(|node| read.one_of(node, &["allow", "deny"]));
    let by = match fields.optional("by") {
        Some(node) => read.string(node).map(|by| Some(by.to_owned())),
        None => Some(None),
    };
    fields.unsupported("jwt", read);
    fields.unsupported("grpc", read);
    fields.unsupported("headers", read);
    fields.finish(read);
    let (port, request) = asked?;
    let expect = if expect? == "allow" { Effect::Allow } else { Effect::Deny };
    Some(TestCase {
        span: node.span(),
        to: to?,
        from: from?,
        source: source?,
        at: at?,
        port,
        request,
        expect,
        by: by?,
    })
}

fn read_peer(node: &Node, read: &mut Reader<'_>) -> Option<TestPeer> {
    match read.string(node)? {
        "unauthenticated" => Some(TestPeer::Unauthenticated),
        _ => read_spiffe_id(node, read).map(TestPeer::Authenticated),
    }
}

fn read_spiffe_id(node: &Node, read: &mut Reader<'_>) -> Option<SpiffeId> {
    let text = read.string(node)?;
    match SpiffeId::parse(text) {
        Ok(id) => Some(id),
        Err(error) => {
            let cure = text.contains('*').then_some("a test names one caller, without \"*\"");
            read.problem(node, format!("{} is not a SPIFFE ID: {error}", quoted(text)), cure);
            None
        }
    }
}

// Which workloads the case is tried on: the one it names, or every one that the policy names without a wildcard.
fn read_targets(
    fields: &mut Fields<'_>,
    protects: &[IdPattern],
    read: &mut Reader<'_>,
) -> Option<Vec<SpiffeId>> {
    let Some(node) = fields.optional("to") else {
        let named: Vec<SpiffeId> = protects.iter().filter_map(IdPattern::literal).collect();
        if named.is_empty() && !protects.is_empty() {
            let cure = "add \"to:\" with the SPIFFE ID of a workload that the policy protects".to_owned();
            read.place(fields.span(), "the test does not say which workload is called", Some(cure));
            return None;
        }
        return Some(named);
    };
    let id = read_spiffe_id(node, read)?;
    if protects.iter().any(|pattern| pattern.matches(&id)) {
        return Some(vec![id]);
    }
    read.problem(node, format!("the policy does not protect {id}"), None);
    None
}

fn read_asked(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<(u16, Option<TestRequest>)> {
    let host = fields.optional("host");
    match (fields.optional("tcp"), fields.optional("http")) {
        (Some(tcp), None) => {
            if let Some(host) = host {
                read.problem(host, "\"host\" has no meaning for opaque TCP", None);
            }
            let Port(port) = read.parsed(tcp, "a port such as 8443")?;
            Some((port, None))
        }
        (None, Some(http)) => {
            let host = match host {
                Some(node) => Some(read_host(node, read)?),
                None => None,
            };
            let line: RequestLine = read.parsed(http, "a request such as \"GET 8443 /v1/rates\"")?;
            Some((line.port, Some(TestRequest { method: line.method, host, path: line.path })))
        }
        (Some(_), Some(http)) => {
            read.problem(http, "a test asks either \"tcp\" or \"http\"", Some("split it into two tests"));
            None
        }
        (None, None) => {
            let cure = "add \"tcp: 8443\" or \"http: GET 8443 /v1/rates\"".to_owned();
            read.place(fields.span(), "the test asks nothing", Some(cure));
            None
        }
    }
}

fn read_host(node: &Node, read: &mut Reader<'_>) -> Option<CanonicalHost> {
    let text = read.string(node)?;
    CanonicalHost::parse(text)
        .map_err(|error| read.problem(node, format!("{} is not a host: {error}", quoted(text)), None))
        .ok()
}

struct Port(u16);

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        port(text).map(Self)
    }
}

struct RequestLine {
    method: String,
    port: u16,
    path: CanonicalPath,
}

impl FromStr for RequestLine {
    type Err = RequestLineError;

    fn from_str(text: &str) -> Result<Self, RequestLineError> {
        let mut parts = text.split(' ');
        let (Some(method), Some(number), Some(path), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(RequestLineError::Shape);
        };
        if method.is_empty() {
            return Err(RequestLineError::Shape);
        }
        Ok(Self { method: method.to_owned(), port: port(number)?, path: CanonicalPath::parse(path)? })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum RequestLineError {
    #[error("it is a method, a port and a path, with one space between")]
    Shape,
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Path(#[from] PathError),
}
