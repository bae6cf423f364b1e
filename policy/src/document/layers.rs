//! What kind of traffic a rule is about: exactly one of `tcp`, `http`, `grpc`, `connect` and `upgrade`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::elements::{limit, read_host, read_method, read_path, read_ports, read_protocol, read_range};
use super::headers::read_headers;
use super::read::quoted;
use super::{
    Effect, HttpLimits, Kinds, Layer, Limit, MAX_HOSTS, MAX_METHODS, MAX_PATHS, MAX_PORTS, MAX_PROTOCOLS,
    MAX_SERVICES, RequestCondition,
};
use crate::pattern::{HostPattern, PathPattern};
use crate::strict::{Fields, Node, Reader};

/// The traffic that a rule is about.
pub(super) struct Asked {
    pub(super) ports: Limit<RangeInclusive<u16>>,
    pub(super) layer: Layer,
    pub(super) headers: Vec<RequestCondition>,
}

impl Asked {
    /// Every connection.
    pub(super) fn anything() -> Self {
        Self { ports: Limit::Any, layer: Layer::Tcp, headers: Vec::new() }
    }
}

/// The keys that say which kind of traffic is meant.
pub(super) const LAYERS: [&str; 5] = ["tcp", "http", "grpc", "connect", "upgrade"];

/// Takes the key that says which kind of traffic is meant. `thing` is what there is only one of in each, such as `rule`;
/// absent is for the caller to judge.
pub(super) fn take_layer<'n>(
    fields: &mut Fields<'n>,
    thing: &str,
    read: &mut Reader<'_>,
) -> Option<Option<(&'static str, &'n Node)>> {
    let mut given = LAYERS.into_iter().filter_map(|key| fields.optional(key).map(|node| (key, node)));
    let first = given.next();
    let others: Vec<_> = given.collect();
    if others.is_empty() {
        return Some(first);
    }
    for (key, node) in others {
        let (one, _) = first?;
        let message = format!("a {thing} is either \"{one}\" or \"{key}\"");
        read.problem(node, message, Some(&format!("split it into two {thing}s")));
    }
    None
}

/// Reads what follows one of [`LAYERS`].
pub(super) fn read_layer(key: &str, node: &Node, effect: Effect, read: &mut Reader<'_>) -> Option<Asked> {
    let mut fields = read.map(node)?;
    let ports = read_ports(&mut fields, read);
    let asked = match key {
        "http" => read_http(&mut fields, effect, read),
        "grpc" => read_grpc(&mut fields, effect, read),
        "connect" => read_connect(&mut fields, read),
        "upgrade" => read_upgrade(&mut fields, effect, read),
        _ => Some((Layer::Tcp, Vec::new())),
    };
    explain_misplaced(key, &mut fields, read);
    fields.finish(read);
    let (layer, headers) = asked?;
    Some(Asked { ports: ports?, layer, headers })
}

fn read_http(
    fields: &mut Fields<'_>,
    effect: Effect,
    read: &mut Reader<'_>,
) -> Option<(Layer, Vec<RequestCondition>)> {
    let methods = limit(fields.optional("methods"), MAX_METHODS, read, read_method);
    let hosts = read_hosts(fields, read);
    let paths = limit(fields.optional("paths"), MAX_PATHS, read, read_path);
    let headers = read_headers(fields.optional("headers"), effect, read);
    let limits = HttpLimits { methods: methods?, hosts: hosts?, paths: paths?, kinds: plain(effect) };
    Some((Layer::Http(limits), headers?))
}

// An allow rule grants requests that want an answer; a deny rule refuses whatever has these attributes.
fn plain(effect: Effect) -> Kinds {
    match effect {
        Effect::Allow => Kinds::Plain,
        Effect::Deny => Kinds::Every,
    }
}

fn read_hosts(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Limit<HostPattern>> {
    limit(fields.optional("hosts"), MAX_HOSTS, read, read_host)
}

// gRPC over HTTP/2, "Requests": POST to the service, a slash and the method.
fn read_grpc(
    fields: &mut Fields<'_>,
    effect: Effect,
    read: &mut Reader<'_>,
) -> Option<(Layer, Vec<RequestCondition>)> {
    let services = read_services(fields, read);
    let methods = limit(fields.optional("methods"), MAX_METHODS, read, |read, node| {
        read_grpc_name(read, node, "a gRPC method", "write it as in Submit", is_identifier)
    });
    let hosts = read_hosts(fields, read);
    let headers = read_headers(fields.optional("headers"), effect, read);
    let paths = grpc_paths(services?, methods?, fields, read);
    let limits = HttpLimits {
        methods: Limit::Only(vec!["POST".into()]),
        hosts: hosts?,
        paths: Limit::Only(paths?),
        kinds: plain(effect),
    };
    Some((Layer::Http(limits), headers?))
}

fn read_services(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Limit<Arc<str>>> {
    let service = |read: &mut Reader<'_>, node: &Node| {
        let cure = "write it with its package, as in payments.v1.Settlement";
        read_grpc_name(read, node, "a gRPC service", cure, |text| text.split('.').all(is_identifier))
    };
    match (fields.optional("service"), fields.optional("services")) {
        (Some(one), None) => service(read, one).map(|name| Limit::Only(vec![name])),
        (None, several) => limit(several, MAX_SERVICES, read, service),
        (Some(_), Some(several)) => {
            read.problem(several, "\"service\" and \"services\" are both given", Some("keep one of the two"));
            None
        }
    }
}

fn read_grpc_name(
    read: &mut Reader<'_>,
    node: &Node,
    what: &str,
    cure: &str,
    fits: fn(&str) -> bool,
) -> Option<Arc<str>> {
    let text = read.string(node)?;
    if text.len() <= MAX_GRPC_NAME && fits(text) {
        return Some(text.into());
    }
    read.problem(node, format!("{} is not {what}", quoted(text)), Some(cure));
    None
}

/// Whether a text names something in a protocol buffer file.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn grpc_paths(
    services: Limit<Arc<str>>,
    methods: Limit<Arc<str>>,
    fields: &Fields<'_>,
    read: &mut Reader<'_>,
) -> Option<Vec<PathPattern>> {
    let names = |limit: Limit<Arc<str>>| match limit {
        Limit::Any => vec![Arc::from("*")],
        Limit::Only(names) => names,
    };
    let (services, methods) = (names(services), names(methods));
    let count = services.len().saturating_mul(methods.len());
    if count > MAX_PATHS {
        let message =
            format!("services and methods make {count} combinations, at most {MAX_PATHS} are accepted");
        read.place(fields.span(), message, Some("split it into several rules".to_owned()));
        return None;
    }
    let all = services.iter().flat_map(|service| methods.iter().map(move |method| (service, method)));
    all.map(|(service, method)| PathPattern::parse(&format!("/{service}/{method}")).ok()).collect()
}

fn read_connect(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<(Layer, Vec<RequestCondition>)> {
    let hosts = read_hosts(fields, read);
    let to_ports = limit(fields.optional("to_ports"), MAX_PORTS, read, |read, node| {
        read_range(read, node, "leave \"to_ports\" out for every port")
    });
    let kinds = Kinds::Connect { to_ports: to_ports? };
    Some((
        Layer::Http(HttpLimits { methods: Limit::Any, hosts: hosts?, paths: Limit::Any, kinds }),
        Vec::new(),
    ))
}

fn read_upgrade(
    fields: &mut Fields<'_>,
    effect: Effect,
    read: &mut Reader<'_>,
) -> Option<(Layer, Vec<RequestCondition>)> {
    let protocols = limit(fields.optional("protocols"), MAX_PROTOCOLS, read, read_protocol);
    let hosts = read_hosts(fields, read);
    let paths = limit(fields.optional("paths"), MAX_PATHS, read, read_path);
    let headers = read_headers(fields.optional("headers"), effect, read);
    let kinds = Kinds::Upgrade { protocols: protocols? };
    let limits = HttpLimits { methods: Limit::Any, hosts: hosts?, paths: paths?, kinds };
    Some((Layer::Http(limits), headers?))
}

/// Refuses keys that have a meaning, but not here, with the place where they have it.
fn explain_misplaced(layer: &str, fields: &mut Fields<'_>, read: &mut Reader<'_>) {
    for key in ["from", "except", "source_net", "sni", "jwt", "name"] {
        let why = format!("belongs to the rule, beside \"{layer}\"");
        fields.misplaced(key, &why, "move it out of the braces", read);
    }
    for (at, keys, why, cure) in MISPLACED {
        for key in keys.iter().filter(|_| *at == layer) {
            fields.misplaced(key, why, cure, read);
        }
    }
}

/// Where, which keys, why not, and what to do.
const MISPLACED: &[(&str, &[&str], &str, &str)] = &[
    (
        "tcp",
        &["methods", "paths", "hosts", "headers"],
        "has no meaning for opaque TCP",
        "write \"http\" in place of \"tcp\"",
    ),
    ("tcp", &["service", "services"], "has no meaning for opaque TCP", "write \"grpc\" in place of \"tcp\""),
    ("tcp", &["protocols"], "has no meaning for opaque TCP", "write \"upgrade\" in place of \"tcp\""),
    ("tcp", &["to_ports"], "has no meaning for opaque TCP", "write \"connect\" in place of \"tcp\""),
    (
        "http",
        &["service", "services"],
        "belongs to gRPC requests",
        "write \"grpc\" in place of \"http\", or name the path",
    ),
    (
        "http",
        &["protocols", "upgrade"],
        "belongs to upgrades, a kind of their own",
        "write a rule with \"upgrade\"",
    ),
    (
        "http",
        &["to_ports", "connect"],
        "belongs to tunnels, a kind of their own",
        "write a rule with \"connect\"",
    ),
    (
        "grpc",
        &["paths"],
        "is what \"service\" and \"methods\" say of a gRPC request",
        "write \"http\" in place of \"grpc\"",
    ),
    (
        "connect",
        &["methods", "paths", "headers", "protocols"],
        "has no meaning for a tunnel",
        "leave it out, or write a rule with \"http\"",
    ),
    (
        "upgrade",
        &["methods", "to_ports"],
        "has no meaning for an upgrade",
        "leave it out, or write a rule with \"http\"",
    ),
];

/// Longest name of a gRPC service or method.
const MAX_GRPC_NAME: usize = 255;

#[cfg(test)]
mod tests;
