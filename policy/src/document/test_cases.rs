//! From nodes to the test cases of a policy.

use std::net::IpAddr;
use std::time::SystemTime;

use identity::SpiffeId;

use super::elements::read_server_name;
use super::linking::Wanted;
use super::read::quoted;
use super::test_requests::{Question, read_question};
use super::{Effect, MAX_TESTS, TestCase, TestPeer};
use crate::moment::{LAST, Moment};
use crate::net::ANY_ADDRESS;
use crate::pattern::IdPattern;
use crate::strict::{Fields, Node, Reader};

/// Reads the list under `tests`, and the issuers that the cases suppose.
pub(super) fn read_tests(
    node: &Node,
    protects: &[IdPattern],
    read: &mut Reader<'_>,
) -> Option<(Vec<TestCase>, Vec<Wanted>)> {
    let mut supposed = Vec::new();
    let cases = read.each(node, MAX_TESTS, |read, item| {
        let (case, wanted) = read_test(item, protects, read)?;
        supposed.extend(wanted);
        Some(case)
    })?;
    Some((cases, supposed))
}

fn read_test(
    node: &Node,
    protects: &[IdPattern],
    read: &mut Reader<'_>,
) -> Option<(TestCase, Option<Wanted>)> {
    let mut fields = read.map(node)?;
    let from = fields.required("from", read).and_then(|node| read_peer(node, read));
    let to = read_targets(&mut fields, protects, read);
    let asked = read_question(&mut fields, read);
    let sni = match fields.optional("sni") {
        Some(node) => read_server_name(read, node).map(Some),
        None => Some(None),
    };
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
    for key in ["method", "methods", "path", "paths", "port", "ports"] {
        let cure = "write it as in http: GET 8443 /v1/rates";
        fields.misplaced(key, "is said with the request in a test", cure, read);
    }
    fields.finish(read);
    let Question { port, request, wanted } = asked?;
    let expect = if expect? == "allow" { Effect::Allow } else { Effect::Deny };
    let (span, sni) = (node.span(), sni?);
    let (to, from, source, at, by) = (to?, from?, source?, at?, by?);
    Some((TestCase { span, to, from, source, at, port, sni, request, expect, by }, wanted))
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
