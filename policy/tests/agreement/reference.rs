//! What the manual says, in the plainest code: every rule is looked at, every value compared as text.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{Access, HttpModel, PolicyModel, RequestModel, RuleModel};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Allow { by: BTreeSet<String>, shadow: Option<(Refusal, BTreeSet<String>)> },
    Deny { refusal: Refusal, by: BTreeSet<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Explicit,
    NothingAllows,
    Unauthenticated,
    NoPolicy,
}

/// Decides, and says which rules may be named for it.
pub(crate) fn decide(policies: &[PolicyModel], access: &Access) -> Answer {
    let protecting: Vec<&PolicyModel> = protecting(policies, access).collect();
    if protecting.is_empty() {
        return Answer::Deny { refusal: Refusal::NoPolicy, by: BTreeSet::new() };
    }
    let (enforcing, waiting): (Vec<&PolicyModel>, Vec<&PolicyModel>) =
        protecting.into_iter().partition(|policy| policy.shadow_until.is_none_or(|day| access.day >= day));
    let denied = denying(&enforcing, access);
    if !denied.is_empty() {
        return Answer::Deny { refusal: Refusal::Explicit, by: denied };
    }
    let nothing = if access.from.is_some() { Refusal::NothingAllows } else { Refusal::Unauthenticated };
    let would_be_denied = denying(&waiting, access);
    let would_be_denied = (!would_be_denied.is_empty()).then_some((Refusal::Explicit, would_be_denied));
    if enforcing.is_empty() {
        let by = allowing(&waiting, access);
        let shadow = match (would_be_denied, by.is_empty()) {
            (Some(denied), _) => Some(denied),
            (None, true) => Some((nothing, BTreeSet::new())),
            (None, false) => None,
        };
        return Answer::Allow { by, shadow };
    }
    let by = allowing(&enforcing, access);
    if by.is_empty() {
        return Answer::Deny { refusal: nothing, by };
    }
    Answer::Allow { by, shadow: would_be_denied }
}

/// The rules that match, whatever the mode of their policies.
pub(crate) fn matching(policies: &[PolicyModel], access: &Access) -> BTreeSet<String> {
    let all: Vec<&PolicyModel> = protecting(policies, access).collect();
    &allowing(&all, access) | &denying(&all, access)
}

fn protecting<'p>(policies: &'p [PolicyModel], access: &Access) -> impl Iterator<Item = &'p PolicyModel> {
    policies.iter().filter(|policy| policy.protects.iter().any(|pattern| id_matches(pattern, &access.to)))
}

fn denying(policies: &[&PolicyModel], access: &Access) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for policy in policies {
        for rule in &policy.deny {
            let peer = match &access.from {
                Some(id) => named(rule, id),
                None => rule.from.iter().any(|word| word == "anyone" || word == "unauthenticated"),
            };
            let request = match (&rule.http, &access.request) {
                (Some(http), Some(request)) => denies_request(http, request),
                (Some(_), None) | (None, _) => true,
            };
            if peer && network(rule, access) && port(rule, access) && request {
                names.insert(format!("{}/{}", policy.name, rule.name));
            }
        }
    }
    names
}

fn allowing(policies: &[&PolicyModel], access: &Access) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for policy in policies {
        for rule in &policy.allow {
            let peer = match &access.from {
                Some(id) => named(rule, id),
                None => rule.from.iter().any(|word| word == "unauthenticated"),
            };
            let request = match (&rule.http, &access.request) {
                (Some(http), Some(request)) => allows_request(http, request),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if peer && network(rule, access) && port(rule, access) && request {
                names.insert(format!("{}/{}", policy.name, rule.name));
            }
        }
    }
    names
}

fn named(rule: &RuleModel, id: &str) -> bool {
    let meant = rule.from.iter().any(|pattern| pattern == "anyone" || id_matches(pattern, id));
    meant && !rule.except.iter().any(|pattern| id_matches(pattern, id))
}

fn network(rule: &RuleModel, access: &Access) -> bool {
    rule.nets.as_ref().is_none_or(|nets| nets.iter().any(|net| net_contains(net, &access.source)))
}

fn port(rule: &RuleModel, access: &Access) -> bool {
    let within = |(low, high): &(u16, u16)| *low <= access.port && access.port <= *high;
    rule.ports.as_ref().is_none_or(|ports| ports.iter().any(within))
}

fn denies_request(http: &HttpModel, request: &RequestModel) -> bool {
    let host = match (&http.hosts, &request.host) {
        (None, _) | (Some(_), None) => true,
        (Some(hosts), Some(host)) => hosts.iter().any(|pattern| host_matches(pattern, host)),
    };
    method(http, request) && host && path(http, request)
}

fn allows_request(http: &HttpModel, request: &RequestModel) -> bool {
    let host = match (&http.hosts, &request.host) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(hosts), Some(host)) => hosts.iter().any(|pattern| host_matches(pattern, host)),
    };
    request.method != "CONNECT" && method(http, request) && host && path(http, request)
}

fn method(http: &HttpModel, request: &RequestModel) -> bool {
    http.methods.as_ref().is_none_or(|methods| methods.contains(&request.method))
}

fn path(http: &HttpModel, request: &RequestModel) -> bool {
    let path = plain_path(&request.path);
    http.paths.as_ref().is_none_or(|paths| paths.iter().any(|pattern| segments_match(pattern, path)))
}

/// The paths of the model in the form that rules see; a table, so that no code of the crate is trusted.
fn plain_path(raw: &str) -> &str {
    match raw {
        "//a" | "/x/../a" | "/%61" => "/a",
        "/a/./b" => "/a/b",
        "/a%40b" => "/a@b",
        "/a%20b?q=1" => "/a%20b",
        same => same,
    }
}

fn host_matches(pattern: &str, raw: &str) -> bool {
    let host = raw.to_lowercase();
    let host = host.strip_suffix(":80").unwrap_or(&host);
    let host = host.strip_suffix('.').unwrap_or(host);
    match pattern.strip_prefix("*.") {
        None => host == pattern,
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent) && host != "10.0.0.1",
    }
}

fn id_matches(pattern: &str, id: &str) -> bool {
    let strip = |text: &str| text.strip_prefix("spiffe://").unwrap_or("?").to_owned();
    segments_match(&strip(pattern), &strip(id))
}

fn segments_match(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    rest_matches(&pattern, &name)
}

fn rest_matches(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        (["**"], _) | ([], []) => true,
        (["*", pattern @ ..], [segment, name @ ..]) => !segment.is_empty() && rest_matches(pattern, name),
        ([literal, pattern @ ..], [segment, name @ ..]) => literal == segment && rest_matches(pattern, name),
        _ => false,
    }
}

fn net_contains(net: &str, source: &str) -> bool {
    let (base, bits) = net.split_once('/').unwrap();
    let bits: usize = bits.parse().unwrap();
    let (base, bits) = match base.strip_prefix("::ffff:") {
        Some(v4) => (v4, bits - 96),
        None => (base, bits),
    };
    let source = source.strip_prefix("::ffff:").unwrap_or(source);
    let (base, source) = (binary(base), binary(source));
    base.len() == source.len() && base[..bits] == source[..bits]
}

fn binary(address: &str) -> String {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => format!("{:032b}", u32::from(v4)),
        IpAddr::V6(v6) => format!("{:0128b}", u128::from(v6)),
    }
}
