//! What a rule asks of a token, and the claims that a test case supposes.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::linking::{Audience, Wanted};
use super::rules::absent;
use super::{ClaimLimit, Effect, MAX_AUDIENCES, MAX_CLAIM_DEPTH, MAX_CLAIM_VALUES, MAX_CLAIMS, TokenLimits};
use crate::strict::{Fields, Node, Reader, Span};

/// Reads the mapping under `jwt` of a rule.
pub(super) fn read_token(
    node: &Node,
    effect: Effect,
    read: &mut Reader<'_>,
) -> Option<(TokenLimits, Wanted)> {
    let mut fields = read.map(node)?;
    let issuer_node = fields.required("issuer", read);
    let issuer: Option<Arc<str>> = issuer_node.and_then(|node| read_text(read, node)).map(Arc::from);
    let audiences = read_audiences(&mut fields, read);
    let claims = match fields.optional("claims") {
        Some(node) => read_claims(node, read),
        None => Some(Vec::new()),
    };
    for key in ["scope", "sub", "scopes", "groups", "roles"] {
        fields.misplaced(key, "is a claim", "move it into claims: {…}", read);
    }
    fields.misplaced("keys", "belongs to the issuer", "write it under \"issuers\"", read);
    fields.finish(read);
    let (issuer, audiences) = (issuer?, audiences?);
    let audience = match (&audiences, effect) {
        (None, Effect::Allow) => Audience::OfIssuer,
        (None, Effect::Deny) | (Some(_), _) => Audience::Said,
    };
    let wanted = Wanted { issuer: Arc::clone(&issuer), at: issuer_node?.span(), audience };
    let audiences = audiences.unwrap_or_default();
    Some((TokenLimits { issuer, audiences, claims: claims?, absent: absent(effect) }, wanted))
}

/// Reads a text of bounded length.
pub(super) fn read_text<'n>(read: &mut Reader<'_>, node: &'n Node) -> Option<&'n str> {
    let text = read.string(node)?;
    if text.len() <= MAX_CLAIM_TEXT {
        return Some(text);
    }
    read.problem(node, format!("the text is longer than {MAX_CLAIM_TEXT} bytes"), None);
    None
}

// The inner option is absent where nothing is said, and empty where any audience is said.
fn read_audiences(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Option<Vec<Arc<str>>>> {
    match (fields.optional("audience"), fields.optional("audiences")) {
        (None, None) => Some(None),
        (Some(one), None) if one.is_plain("any") => Some(Some(Vec::new())),
        (Some(one), None) => read_text(read, one).map(|audience| Some(vec![audience.into()])),
        (None, Some(several)) => read_texts(several, MAX_AUDIENCES, read).map(Some),
        (Some(_), Some(several)) => {
            let message = "\"audience\" and \"audiences\" are both given";
            read.problem(several, message, Some("keep one of the two"));
            None
        }
    }
}

/// Reads a list of texts of bounded length.
pub(super) fn read_texts(node: &Node, most: usize, read: &mut Reader<'_>) -> Option<Vec<Arc<str>>> {
    read.each(node, most, |read, item| read_text(read, item).map(Arc::from))
}

fn read_claims(node: &Node, read: &mut Reader<'_>) -> Option<Vec<ClaimLimit>> {
    let mut limits = Vec::new();
    read_claims_below(node, &[], &mut limits, read)?;
    if limits.len() > MAX_CLAIMS {
        let message = format!("there are {} claims, at most {MAX_CLAIMS} are accepted", limits.len());
        read.problem(node, message, None);
        return None;
    }
    Some(limits)
}

fn read_claims_below(
    node: &Node,
    path: &[Arc<str>],
    limits: &mut Vec<ClaimLimit>,
    read: &mut Reader<'_>,
) -> Option<()> {
    if path.len() >= MAX_CLAIM_DEPTH {
        read.problem(node, format!("claims are nested deeper than {MAX_CLAIM_DEPTH}"), None);
        return None;
    }
    let mut complete = Some(());
    for (name, at, value) in read.pairs(node, MAX_CLAIMS)? {
        let path: Vec<Arc<str>> = path.iter().cloned().chain([name.into()]).collect();
        complete = complete.and(read_claim(at, value, path, limits, read));
    }
    complete
}

fn read_claim(
    at: Span,
    value: &Node,
    path: Vec<Arc<str>>,
    limits: &mut Vec<ClaimLimit>,
    read: &mut Reader<'_>,
) -> Option<()> {
    if let [name] = path.as_slice()
        && let Some((_, why, cure)) = RESERVED.iter().find(|(names, _, _)| names.contains(&&**name))
    {
        read.place(at, format!("\"{name}\" {why}"), Some((*cure).to_owned()));
        return None;
    }
    if value.is_map() {
        return read_claims_below(value, &path, limits, read);
    }
    if !value.is_list() {
        let cure = "write the values in brackets, as in [settle, refund]";
        read.problem(value, "expected a list of values, or a mapping of claims below", Some(cure));
        return None;
    }
    let values = read.each(value, MAX_CLAIM_VALUES, read_claim_value)?;
    limits.push(ClaimLimit { path, values });
    Some(())
}

fn read_claim_value(read: &mut Reader<'_>, node: &Node) -> Option<Arc<str>> {
    match node.plain() {
        Some(word @ ("true" | "false")) => Some(word.into()),
        Some(_) | None => read_text(read, node).map(Arc::from),
    }
}

/// What a test case says of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TestToken {
    /// There is none.
    Absent,
    /// There is one that proves nothing.
    Invalid,
    /// There is one with these claims, and it was verified.
    Verified(crate::claims::Claims),
}

/// Reads what follows `jwt` in a test case: the claims of a token that was verified, or `invalid`.
pub(super) fn read_test_token(node: &Node, read: &mut Reader<'_>) -> Option<(TestToken, Option<Wanted>)> {
    if node.is_plain("invalid") {
        return Some((TestToken::Invalid, None));
    }
    if !node.is_map() {
        let cure = "write it as in jwt: {iss: https://login.example.com, scope: settle}";
        read.problem(node, "expected the claims of a verified token, or the word invalid", Some(cure));
        return None;
    }
    let claims = read_object(node, 0, read);
    let mut fields = read.map(node)?;
    let Some(issuer_node) = fields.optional("iss") else {
        let cure = "add \"iss:\" with the issuer, as it is declared under \"issuers\"".to_owned();
        read.place(node.span(), "the token says no issuer: it would not be accepted", Some(cure));
        return None;
    };
    let issuer = read_text(read, issuer_node)?;
    let wanted = Wanted { issuer: issuer.into(), at: issuer_node.span(), audience: Audience::Said };
    Some((TestToken::Verified(crate::claims::Claims::verified(claims?)), Some(wanted)))
}

fn read_object(node: &Node, depth: usize, read: &mut Reader<'_>) -> Option<Map<String, Value>> {
    let mut object = Some(Map::new());
    for (name, _, value) in read.pairs(node, MAX_CLAIMS)? {
        let value = read_value(value, depth.saturating_add(1), read);
        object = object.zip(value).map(|(mut object, value)| {
            object.insert(name.to_owned(), value);
            object
        });
    }
    object
}

fn read_value(node: &Node, depth: usize, read: &mut Reader<'_>) -> Option<Value> {
    if depth > MAX_CLAIM_DEPTH {
        read.problem(node, format!("claims are nested deeper than {MAX_CLAIM_DEPTH}"), None);
        return None;
    }
    if node.is_map() {
        return read_object(node, depth, read).map(Value::Object);
    }
    if node.is_list() {
        let items = read.each(node, MAX_CLAIM_VALUES, |read, item| read_value(item, depth + 1, read));
        return items.map(Value::Array);
    }
    match node.plain() {
        Some(word @ ("true" | "false")) => Some(Value::Bool(word == "true")),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            read.integer(node, 0..=u64::from(u32::MAX) << 8).map(Value::from)
        }
        Some(_) | None => read_text(read, node).map(Value::from),
    }
}

/// Claims that are judged otherwise than by their value.
const RESERVED: &[(&[&str], &str, &str)] = &[
    (&["iss"], "is the issuer, which is no claim to list", "write it under \"issuer\""),
    (&["aud"], "is the audience, which is no claim to list", "write it under \"audience\""),
    (&["exp", "nbf", "iat"], "is judged for every token", "remove it"),
];

/// Longest text that is compared with a claim.
pub(super) const MAX_CLAIM_TEXT: usize = 2048;

#[cfg(test)]
mod tests;
