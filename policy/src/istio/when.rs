//! `when`: an attribute by its name, and its values.

use std::sync::Arc;

use super::clauses::{NO_PROXIES, Values};
use super::conditions::Test;
use super::elements::read_values;
use super::{Attribute, MAX_CLAIM_DEPTH};
use crate::mesh::{Compat, Mesh};
use crate::strict::{Node, Reader, quote, suggest};

/// Reads one condition.
pub(super) fn read(node: &Node, namespace: &str, mesh: &Mesh, read: &mut Reader<'_>) -> Option<Test> {
    let mut fields = read.map(node)?;
    let attribute = fields.required("key", read).and_then(|node| read_key(node, mesh, read));
    let (values, not_values) = (fields.optional("values"), fields.optional("notValues"));
    fields.finish(read);
    if values.is_none() && not_values.is_none() {
        let cure = "add \"values\" or \"notValues\"";
        read.problem(node, "the condition has nothing to compare with", Some(cure));
        return None;
    }
    let attribute = attribute?;
    let mut side = |node: Option<&Node>| match node {
        Some(node) => read_values(node, &attribute, read),
        None => Some(Values::none()),
    };
    let (values, not_values) = (side(values), side(not_values));
    Some(Test { attribute, values: values?, not_values: not_values?, namespace: namespace.into() })
}

fn read_key(node: &Node, mesh: &Mesh, read: &mut Reader<'_>) -> Option<Attribute> {
    let key = read.string(node)?;
    let plain = PLAIN.iter().find(|(name, _)| *name == key);
    if let Some((_, attribute)) = plain {
        if mesh.compat == Compat::Ambient && *attribute == Attribute::TrustDomain {
            let cure = "write the trust domain into \"source.principal\"";
            read.problem(node, "trust domains are not compared in ambient mode", Some(cure));
            return None;
        }
        return Some(attribute.clone());
    }
    match key {
        "request.auth.audiences" => Some(Attribute::Claim(vec!["aud".into()])),
        "request.auth.presenter" => Some(Attribute::Claim(vec!["azp".into()])),
        "remote.ip" => {
            let cure = "write \"source.ip\" with the addresses that connect";
            read.problem(node, format!("\"remote.ip\" {NO_PROXIES}"), Some(cure));
            None
        }
        _ if key.starts_with("experimental.envoy.filters.") => {
            let message = format!("{} asks what a filter of Envoy says, and there is none here", quote(key));
            read.problem(node, message, None);
            None
        }
        _ => read_bracketed(key, node, read),
    }
}

fn read_bracketed(key: &str, node: &Node, read: &mut Reader<'_>) -> Option<Attribute> {
    if let Some(rest) = key.strip_prefix("request.headers") {
        return match names(rest).as_deref() {
            Some([name]) => header(name, node, read),
            Some(_) | None => brackets(key, "request.headers[x-version]", node, read),
        };
    }
    if let Some(rest) = key.strip_prefix("request.auth.claims") {
        return match names(rest) {
            Some(path) if path.len() <= MAX_CLAIM_DEPTH => {
                Some(Attribute::Claim(path.into_iter().map(Arc::from).collect()))
            }
            Some(_) | None => brackets(key, "request.auth.claims[realm][role]", node, read),
        };
    }
    let known = PLAIN.iter().map(|(name, _)| *name).chain(OTHERS);
    let cure = suggest(key, known).map(|near| format!("did you mean \"{near}\"?"));
    read.problem(node, format!("unknown attribute {}", quote(key)), cure.as_deref());
    None
}

fn header(name: &str, node: &Node, read: &mut Reader<'_>) -> Option<Attribute> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        // Envoy keeps the host under the name that HTTP/2 gives it.
        ":authority" | "host" => {
            let cure = "write \"hosts\" under \"operation\"";
            read.problem(node, format!("{} is no header here", quote(name)), Some(cure));
            None
        }
        ":method" => {
            read.problem(
                node,
                "\":method\" is no header here",
                Some("write \"methods\" under \"operation\""),
            );
            None
        }
        _ if lower.starts_with(':') => {
            let cure = "write \"paths\" under \"operation\"";
            read.problem(node, format!("{} is no header here", quote(name)), Some(cure));
            None
        }
        _ => Some(Attribute::Header(lower.into())),
    }
}

fn brackets(key: &str, example: &str, node: &Node, read: &mut Reader<'_>) -> Option<Attribute> {
    let cure = format!("write it as in \"{example}\"");
    read.problem(node, format!("{} does not say which one", quote(key)), Some(&cure));
    None
}

/// `[a][b]` as its names.
fn names(text: &str) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.strip_prefix('[')?.split_once(']')?;
        if name.is_empty() || name.contains('[') {
            return None;
        }
        found.push(name);
        rest = after;
    }
    (!found.is_empty()).then_some(found)
}

const PLAIN: [(&str, Attribute); 9] = [
    ("source.ip", Attribute::SourceIp),
    ("source.namespace", Attribute::Namespace),
    ("source.serviceAccount", Attribute::ServiceAccount),
    ("source.principal", Attribute::Principal),
    ("source.trustDomain", Attribute::TrustDomain),
    ("request.auth.principal", Attribute::RequestPrincipal),
    ("destination.ip", Attribute::DestinationIp),
    ("destination.port", Attribute::Port),
    ("connection.sni", Attribute::Sni),
];

const OTHERS: [&str; 4] =
    ["request.auth.audiences", "request.auth.presenter", "request.headers[]", "request.auth.claims[]"];
