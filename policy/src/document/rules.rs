//! From nodes to rules. A bad element fails the rule, and with it the whole load.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use super::read::{Origin, quoted, read_id, read_name};
use super::{
    Effect, HttpLimits, Kinds, Layer, Limit, MAX_FROM, MAX_HOSTS, MAX_METHODS, MAX_NETWORKS, MAX_PATHS,
    MAX_PORTS, MAX_RULES_PER_POLICY, Peers, Rule,
};
use crate::decision::RuleRef;
use crate::net::{Network, NetworkError};
use crate::pattern::{HostPattern, HostPatternError, IdPattern, PathPattern, PathPatternError};
use crate::strict::{Fields, Node, Reader, Span, suggest};

/// Reads the list under `allow` or `deny`.
pub(super) fn read_rules(
    node: &Node,
    effect: Effect,
    origin: &Origin,
    read: &mut Reader<'_>,
) -> Option<Vec<(Span, Arc<Rule>)>> {
    read.each(node, MAX_RULES_PER_POLICY, |read, item| {
        let rule = read_rule(item, effect, origin, read)?;
        Some((item.span(), Arc::new(rule)))
    })
}

fn read_rule(node: &Node, effect: Effect, origin: &Origin, read: &mut Reader<'_>) -> Option<Rule> {
    let mut fields = read.map(node)?;
    let name = fields.required("name", read).and_then(|node| read_name(node, read));
    let from = match fields.optional("from") {
        Some(node) => read_peers(node, read),
        None => {
            let cure = "name the callers; \"from: [anyone]\" means every one of them".to_owned();
            read.place(fields.span(), "the key \"from\" is missing", Some(cure));
            None
        }
    };
    let except = match fields.optional("except") {
        Some(node) => read_except(node, from.as_ref(), read),
        None => Some(Vec::new()),
    };
    let source_net = limit(fields.optional("source_net"), MAX_NETWORKS, read, read_network);
    let unsupported = ["grpc", "jwt", "headers", "sni"].map(|key| fields.unsupported(key, read));
    let layer = read_layer(&mut fields, effect, unsupported.contains(&true), read);
    fields.finish(read);
    let (ports, layer) = layer?;
    let reference = RuleRef {
        policy: Arc::clone(&origin.policy),
        rule: name?.into(),
        file: Arc::clone(&origin.file),
        line: node.line(),
    };
    let (from, except, source_net) = (from?, except?, source_net?);
    Some(Rule {
        reference,
        effect,
        mode: origin.mode,
        from,
        except,
        source_net,
        ports,
        layer,
        at_connect: Vec::new(),
        at_request: Vec::new(),
    })
}

fn read_layer(
    fields: &mut Fields<'_>,
    effect: Effect,
    refused: bool,
    read: &mut Reader<'_>,
) -> Option<(Limit<RangeInclusive<u16>>, Layer)> {
    let (tcp, http) = (fields.optional("tcp"), fields.optional("http"));
    match (tcp, http) {
        (Some(node), None) => read_tcp(node, read),
        (None, Some(node)) => read_http(node, effect, read),
        (Some(_), Some(http)) => {
            let cure = "split it into two rules";
            read.problem(http, "a rule is either \"tcp\" or \"http\"", Some(cure));
            None
        }
        (None, None) => {
            if !refused {
                let cure = "add \"tcp: {port: …}\" or \"http: {port: …}\"".to_owned();
                read.place(fields.span(), "a rule needs \"tcp\" or \"http\"", Some(cure));
            }
            None
        }
    }
}

fn read_tcp(node: &Node, read: &mut Reader<'_>) -> Option<(Limit<RangeInclusive<u16>>, Layer)> {
    let mut fields = read.map(node)?;
    let ports = read_ports(&mut fields, read);
    for key in ["methods", "paths", "hosts", "headers"] {
        fields.misplaced(key, "has no meaning for opaque TCP", "write \"http\" in place of \"tcp\"", read);
    }
    fields.unsupported("sni", read);
    fields.finish(read);
    Some((ports?, Layer::Tcp))
}

fn read_http(
    node: &Node,
    effect: Effect,
    read: &mut Reader<'_>,
) -> Option<(Limit<RangeInclusive<u16>>, Layer)> {
    let mut fields = read.map(node)?;
    let ports = read_ports(&mut fields, read);
    let methods = limit(fields.optional("methods"), MAX_METHODS, read, read_method);
    let hosts = limit(fields.optional("hosts"), MAX_HOSTS, read, read_host);
    let paths = limit(fields.optional("paths"), MAX_PATHS, read, read_path);
    for key in ["headers", "jwt", "upgrade", "connect"] {
        fields.unsupported(key, read);
    }
    fields.finish(read);
    let kinds = match effect {
        Effect::Allow => Kinds::Plain,
        Effect::Deny => Kinds::Every,
    };
    Some((ports?, Layer::Http(HttpLimits { methods: methods?, hosts: hosts?, paths: paths?, kinds })))
}

fn read_ports(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Limit<RangeInclusive<u16>>> {
    match (fields.optional("port"), fields.optional("ports")) {
        (Some(one), None) => match read.parsed(one, "a port such as 8443, or any")? {
            PortWord::Any => Some(Limit::Any),
            PortWord::Range(range) => Some(Limit::Only(vec![range])),
        },
        (None, Some(several)) => {
            let read_one = |read: &mut Reader<'_>, node: &Node| match read
                .parsed(node, "a port such as 8443, or a range such as 9000-9010")?
            {
                PortWord::Range(range) => Some(range),
                PortWord::Any => {
                    read.problem(node, "\"any\" is not one of several ports", Some("write \"port: any\""));
                    None
                }
            };
            read.each(several, MAX_PORTS, read_one).map(Limit::Only)
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

fn read_peers(node: &Node, read: &mut Reader<'_>) -> Option<Peers> {
    let mut peers = Peers::default();
    let read_one = |read: &mut Reader<'_>, item: &Node| {
        match read.string(item)? {
            "anyone" => peers.anyone = true,
            "unauthenticated" => peers.unauthenticated = true,
            text if text.contains("://") || text.contains('/') => peers.patterns.push(read_id(item, read)?),
            text => {
                let cure = match text {
                    "*" | "**" | "any" | "all" | "everyone" => {
                        Some("write \"anyone\" for every caller".to_owned())
                    }
                    other => suggest(other, ["anyone", "unauthenticated"])
                        .map(|word| format!("did you mean \"{word}\"?")),
                };
                let message =
                    format!("{} is no SPIFFE ID, nor \"anyone\" or \"unauthenticated\"", quoted(text));
                read.problem(item, message, cure.as_deref());
                return None;
            }
        }
        Some(())
    };
    read.each(node, MAX_FROM, read_one)?;
    Some(peers)
}

// An absent identity must never satisfy a negative, so there is one only below a set of identities.
fn read_except(node: &Node, from: Option<&Peers>, read: &mut Reader<'_>) -> Option<Vec<IdPattern>> {
    let except = read.each(node, MAX_FROM, |read, item| match read.string(item)? {
        word @ ("anyone" | "unauthenticated") => {
            let message = format!("\"{word}\" cannot be excepted");
            read.problem(item, message, Some("except names SPIFFE IDs; leave the word out of \"from\""));
            None
        }
        _ => read_id(item, read),
    });
    if from.is_some_and(|from| !from.anyone && from.patterns.is_empty()) {
        let cure = "remove it: \"from\" names nobody with a SPIFFE ID";
        read.problem(node, "there is nobody to except", Some(cure));
        return None;
    }
    except
}

fn read_network(read: &mut Reader<'_>, node: &Node) -> Option<Network> {
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

fn read_method(read: &mut Reader<'_>, node: &Node) -> Option<Arc<str>> {
    let text = read.string(node)?;
    let upper = text.to_ascii_uppercase();
    let token = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if text == "CONNECT" {
        read.problem(node, "the method CONNECT is not supported by this version", None);
        return None;
    }
    if token && text == upper && text.len() <= MAX_METHOD {
        return Some(text.into());
    }
    let cure =
        if token { format!("did you mean \"{upper}\"? methods differ by case") } else { String::new() };
    let cure = (!cure.is_empty()).then_some(cure);
    read.problem(node, format!("{} is not a method", quoted(text)), cure.as_deref());
    None
}

fn read_host(read: &mut Reader<'_>, node: &Node) -> Option<HostPattern> {
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

fn read_path(read: &mut Reader<'_>, node: &Node) -> Option<PathPattern> {
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

fn limit<T>(
    node: Option<&Node>,
    most: usize,
    read: &mut Reader<'_>,
    each: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>,
) -> Option<Limit<T>> {
    let Some(node) = node else { return Some(Limit::Any) };
    let mut each = each;
    read.each(node, most, |read, item| each(read, item)).map(Limit::Only)
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
