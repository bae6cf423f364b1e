//! What the manual says, in the plainest code: every rule is looked at, every value compared as text.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::model::{
    Access, AudienceModel, HeadersModel, ISSUERS, JwtModel, KindModel, LayerModel, PolicyModel, RequestModel,
    RuleModel, TokenModel,
};

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
    JwtInvalid,
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
        let invalid =
            access.request.as_ref().is_some_and(|request| matches!(request.token, TokenModel::Invalid));
        let refusal = if invalid { Refusal::JwtInvalid } else { nothing };
        return Answer::Deny { refusal, by };
    }
    Answer::Allow { by, shadow: would_be_denied }
}

/// Whether a policy that enforces protects the workload.
pub(crate) fn is_enforced(policies: &[PolicyModel], access: &Access) -> bool {
    protecting(policies, access).any(|policy| policy.shadow_until.is_none_or(|day| access.day >= day))
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
            let request = match &access.request {
                Some(request) => denies_request(rule, request),
                // What cannot be seen is refused.
                None => true,
            };
            let sni = match (&rule.sni, &access.sni) {
                (None, _) | (Some(_), None) => true,
                (Some(names), Some(name)) => names.contains(name),
            };
            if peer && network(rule, access) && port(rule, access) && sni && request {
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
            let request = match (&rule.layer, &access.request) {
                (LayerModel::Tcp, None) => true,
                (LayerModel::Tcp, Some(_)) | (_, None) => false,
                (_, Some(request)) => allows_request(rule, request),
            };
            let sni = match (&rule.sni, &access.sni) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(names), Some(name)) => names.contains(name),
            };
            if peer && network(rule, access) && port(rule, access) && sni && request {
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
    rule.ports.as_ref().is_none_or(|ports| in_ports(ports, access.port))
}

fn in_ports(ports: &[(u16, u16)], port: u16) -> bool {
    ports.iter().any(|(low, high)| *low <= port && port <= *high)
}

fn denies_request(rule: &RuleModel, request: &RequestModel) -> bool {
    let host = |hosts: &Option<Vec<String>>| match (hosts, &request.host) {
        (None, _) | (Some(_), None) => true,
        (Some(hosts), Some(host)) => hosts.iter().any(|pattern| host_matches(pattern, host)),
    };
    let path = |paths: &Option<Vec<String>>| {
        matches!(request.kind, KindModel::Connect { .. }) || path(paths, request)
    };
    let headers = |wanted: &HeadersModel| {
        wanted.iter().all(|(name, values)| readings(request, name).iter().any(|value| is_one(values, value)))
    };
    let layer = match &rule.layer {
        LayerModel::Tcp => true,
        LayerModel::Http { methods, hosts, paths, headers: wanted } => {
            method(methods, request) && host(hosts) && path(paths) && headers(wanted)
        }
        LayerModel::Grpc { services, methods, hosts, headers: wanted } => {
            request.method == "POST" && host(hosts) && grpc(services, methods, request) && headers(wanted)
        }
        LayerModel::Connect { hosts, to_ports } => {
            let port = match (&request.kind, to_ports) {
                (KindModel::Connect { port: Some(port) }, Some(ports)) => in_ports(ports, *port),
                (KindModel::Connect { .. }, _) => true,
                (KindModel::Plain | KindModel::Upgrade { .. }, _) => false,
            };
            port && host(hosts)
        }
        LayerModel::Upgrade { protocols, hosts, paths, headers: wanted } => {
            let KindModel::Upgrade { protocol } = &request.kind else { return false };
            let named = |name: &str| {
                let name = name.trim().to_lowercase();
                let bare = name.split('/').next().unwrap().to_owned();
                name.is_empty() || protocols.as_ref().unwrap().iter().any(|one| *one == name || *one == bare)
            };
            let protocol = protocols.is_none() || protocol.split(',').any(named);
            protocol && host(hosts) && path(paths) && headers(wanted)
        }
    };
    layer && rule.jwt.as_ref().is_none_or(|jwt| token(jwt, &request.token) != Some(false))
}

fn allows_request(rule: &RuleModel, request: &RequestModel) -> bool {
    let host = |hosts: &Option<Vec<String>>| match (hosts, &request.host) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(hosts), Some(host)) => hosts.iter().any(|pattern| host_matches(pattern, host)),
    };
    let plain = matches!(request.kind, KindModel::Plain);
    let headers = |wanted: &HeadersModel| {
        wanted.iter().all(|(name, values)| {
            let lines = lines(request, name);
            let fits = |line: &String| pieces(name, line).iter().all(|piece| is_one(values, piece));
            !lines.is_empty() && lines.iter().all(fits)
        })
    };
    let layer = match &rule.layer {
        LayerModel::Tcp => false,
        LayerModel::Http { methods, hosts, paths, headers: wanted } => {
            plain && method(methods, request) && host(hosts) && path(paths, request) && headers(wanted)
        }
        LayerModel::Grpc { services, methods, hosts, headers: wanted } => {
            let call = request.method == "POST" && grpc(services, methods, request);
            plain && call && host(hosts) && headers(wanted)
        }
        LayerModel::Connect { hosts, to_ports } => {
            let port = match (&request.kind, to_ports) {
                (KindModel::Connect { .. }, None) => true,
                (KindModel::Connect { port: Some(port) }, Some(ports)) => in_ports(ports, *port),
                (KindModel::Connect { .. } | KindModel::Plain | KindModel::Upgrade { .. }, _) => false,
            };
            port && host(hosts)
        }
        LayerModel::Upgrade { protocols, hosts, paths, headers: wanted } => {
            let KindModel::Upgrade { protocol } = &request.kind else { return false };
            let protocol = protocols.as_ref().is_none_or(|protocols| {
                protocol.split(',').all(|name| protocols.contains(&name.trim().to_lowercase()))
            });
            protocol && host(hosts) && path(paths, request) && headers(wanted)
        }
    };
    layer
        && rule
            .jwt
            .as_ref()
            .is_none_or(|jwt| token(jwt, &request.token) == Some(true) && meant_for_us(jwt, &request.token))
}

/// Where the rule names no audience, the declaration of the issuer does.
fn meant_for_us(jwt: &JwtModel, token: &TokenModel) -> bool {
    let (AudienceModel::Any | AudienceModel::Unsaid, TokenModel::Verified(claims)) = (&jwt.audience, token)
    else {
        return true;
    };
    let declared = ISSUERS.iter().find(|(issuer, _)| *issuer == jwt.issuer).unwrap().1;
    let declared: Vec<String> = declared.iter().map(|audience| (*audience).to_owned()).collect();
    has(&claims["aud"], &declared, false) == Some(true)
}

/// Whether the token is as the rule wants it; nothing if there is no such token or not what should be compared.
fn token(jwt: &JwtModel, token: &TokenModel) -> Option<bool> {
    let TokenModel::Verified(claims) = token else { return None };
    if claims["iss"] != *jwt.issuer {
        return None;
    }
    // A token for none of those whom the issuer's declaration names proves nothing: it escapes no deny rule.
    let audiences = match &jwt.audience {
        AudienceModel::Any | AudienceModel::Unsaid => Vec::new(),
        AudienceModel::Only(audiences) => audiences.clone(),
    };
    let audience = if audiences.is_empty() { Some(true) } else { has(&claims["aud"], &audiences, false) };
    let mut all = vec![audience];
    for (name, values) in &jwt.claims {
        let claim = match name.as_str() {
            "deep.role" => &claims["deep"]["role"],
            name => &claims[name],
        };
        all.push(has(claim, values, name == "scope"));
    }
    if all.contains(&Some(false)) {
        return Some(false);
    }
    all.into_iter().collect::<Option<Vec<bool>>>().map(|_| true)
}

fn has(claim: &Value, values: &[String], scope: bool) -> Option<bool> {
    match claim {
        Value::Null | Value::Object(_) => None,
        Value::Bool(_) => Some(values.contains(&claim.to_string())),
        Value::Number(number) => {
            Some(values.iter().any(|value| value.parse::<f64>().ok() == number.as_f64()))
        }
        Value::String(text) => Some(
            values.contains(text) || scope && text.split(' ').any(|word| values.contains(&word.to_owned())),
        ),
        Value::Array(items) => {
            let each: Vec<Option<bool>> = items
                .iter()
                .map(|item| if item.is_array() { None } else { has(item, values, false) })
                .collect();
            if each.contains(&Some(true)) {
                Some(true)
            } else if each.contains(&None) {
                None
            } else {
                Some(false)
            }
        }
    }
}

pub(crate) fn is_one(values: &Option<Vec<String>>, value: &str) -> bool {
    values.as_ref().is_none_or(|values| values.iter().any(|one| one == value))
}

pub(crate) fn lines(request: &RequestModel, name: &str) -> Vec<String> {
    let named = request.headers.iter().filter(|(field, _)| field.to_lowercase() == name);
    named.map(|(_, line)| line.trim().to_owned()).collect()
}

pub(crate) fn pieces(name: &str, line: &str) -> Vec<String> {
    let between = if name == "cookie" { ';' } else { ',' };
    line.split(between).map(|piece| piece.trim().to_owned()).collect()
}

/// Everything that an application may take for a value of the header.
pub(crate) fn readings(request: &RequestModel, name: &str) -> Vec<String> {
    let lines = lines(request, name);
    let mut readings = lines.clone();
    for line in &lines {
        readings.extend(pieces(name, line));
        // Where quotes hold a value together: the pieces with an even number of quotes each.
        let (mut open, mut whole) = (false, String::new());
        for letter in line.chars() {
            open ^= letter == '"';
            if letter == (if name == "cookie" { ';' } else { ',' }) && !open {
                readings.push(std::mem::take(&mut whole).trim().to_owned());
            } else {
                whole.push(letter);
            }
        }
        readings.push(whole.trim().to_owned());
    }
    if lines.len() > 1 {
        let joiners = if name == "cookie" { vec!["; ", ";", ","] } else { vec![",", ", "] };
        readings.extend(joiners.into_iter().map(|joiner| lines.join(joiner)));
    }
    readings
}

fn grpc(services: &Option<Vec<String>>, methods: &Option<Vec<String>>, request: &RequestModel) -> bool {
    let path = plain_path(&request.path);
    let [_, service, method] = path.split('/').collect::<Vec<_>>()[..] else { return false };
    !service.is_empty() && !method.is_empty() && is_one(services, service) && is_one(methods, method)
}

fn method(methods: &Option<Vec<String>>, request: &RequestModel) -> bool {
    is_one(methods, &request.method)
}

fn path(paths: &Option<Vec<String>>, request: &RequestModel) -> bool {
    let path = plain_path(&request.path);
    paths.as_ref().is_none_or(|paths| paths.iter().any(|pattern| segments_match(pattern, path)))
}

/// The paths of the model in the form that rules see; a table, so that no code of the crate is trusted.
pub(crate) fn plain_path(raw: &str) -> &str {
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
