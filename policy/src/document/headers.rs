//! What a rule says about header fields.

use std::sync::Arc;

use super::read::quoted;
use super::{Effect, HeaderReading, MAX_HEADER_VALUES, MAX_HEADERS, RequestCondition};
use crate::pattern::{Case, Piece, TextPattern};
use crate::strict::{Node, Reader, Span};

/// Reads the mapping under `headers`, from names to lists of values or `any`.
pub(super) fn read_headers(
    node: Option<&Node>,
    effect: Effect,
    read: &mut Reader<'_>,
) -> Option<Vec<RequestCondition>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let pairs = read.pairs(node, MAX_HEADERS)?;
    let reading = match effect {
        Effect::Allow => HeaderReading::Every,
        Effect::Deny => HeaderReading::Any,
    };
    let mut conditions = Some(Vec::new());
    for (name, at, value) in pairs {
        let name = read_header_name(name, at, read);
        let any_of = read_values(value, read);
        conditions = match (conditions, name, any_of) {
            (Some(mut conditions), Some(name), Some(any_of)) => {
                conditions.push(RequestCondition::Header { name, any_of, reading });
                Some(conditions)
            }
            _ => None,
        };
    }
    conditions
}

/// Checks the name of a header field, which is written in lower case so that no two spellings of it are two conditions.
pub(super) fn read_header_name(name: &str, at: Span, read: &mut Reader<'_>) -> Option<Arc<str>> {
    let lower = name.to_ascii_lowercase();
    let token = !name.is_empty() && name.len() <= MAX_HEADER_NAME && name.bytes().all(is_token);
    if let Some((_, why, cure)) = UNSEEN.iter().find(|(names, _, _)| names.contains(&lower.as_str())) {
        read.place(at, format!("no rule sees the header {}: {why}", quoted(name)), Some((*cure).to_owned()));
        return None;
    }
    if !token {
        let cure = "write it as in x-environment".to_owned();
        read.place(at, format!("{} is not the name of a header", quoted(name)), Some(cure));
        return None;
    }
    if lower != name {
        let message = format!("{} is not in lower case; the names of headers have none", quoted(name));
        read.place(at, message, Some(format!("write \"{lower}\"")));
        return None;
    }
    Some(lower.into())
}

fn read_values(node: &Node, read: &mut Reader<'_>) -> Option<Vec<TextPattern>> {
    if node.is_list() {
        return read.each(node, MAX_HEADER_VALUES, |read, item| {
            read_header_value(read, item).map(TextPattern::exact)
        });
    }
    if node.is_plain("any") {
        return Some(vec![TextPattern::new(vec![Piece::Run], Case::Sensitive, "any")]);
    }
    let cure = "write the values in brackets, as in [prod, staging], or the word any";
    read.problem(node, "expected a list of values, or any", Some(cure));
    None
}

/// Reads one value of a header field. Fields are taken apart at commas, so a value has none.
pub(super) fn read_header_value<'n>(read: &mut Reader<'_>, node: &'n Node) -> Option<&'n str> {
    let text = read.string(node)?;
    let (message, cure) = match text {
        _ if text.contains(',') => {
            ("a value has no comma: what stands between commas is a value each", "list the parts")
        }
        _ if text.trim() != text => ("a value neither begins nor ends with a space", "remove the space"),
        _ if text.len() > MAX_HEADER_VALUE => ("the value is longer than 1024 bytes", "shorten it"),
        _ => return Some(text),
    };
    read.problem(node, message, Some(cure));
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Header fields that are judged, rewritten or removed before a request is decided and forwarded.
const UNSEEN: &[(&[&str], &str, &str)] = &[
    (&["host", ":authority"], "it is the host of the request", "use \"hosts\""),
    (&[":method"], "it is the method of the request", "use \"methods\""),
    (&[":path", ":scheme"], "it is part of the target", "use \"paths\""),
    (&["upgrade", ":protocol"], "it makes the request an upgrade", "write a rule with \"upgrade\""),
    (
        &[
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "content-length",
            "expect",
        ],
        "it is about the connection and written anew for the application",
        "remove it",
    ),
    (
        &["x-http-method-override", "x-http-method", "x-method-override"],
        "it is removed, so that no other method is served than the one decided",
        "use \"methods\"",
    ),
    (
        &["x-forwarded-for", "x-forwarded-client-cert", "x-real-ip", "forwarded"],
        "it is removed, since nobody before the sidecar is trusted to say whose call it is",
        "use \"from\" or \"source_net\"",
    ),
];

/// Longest name of a header field in a rule.
pub(super) const MAX_HEADER_NAME: usize = 128;

/// Longest value of a header field in a rule.
pub(super) const MAX_HEADER_VALUE: usize = 1024;

#[cfg(test)]
mod tests;
