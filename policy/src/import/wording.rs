//! Native policies as text.

use super::requests::Http;
use super::rules::Rewritten;
use crate::document::{Effect, MAX_NAME};

/// The name of a policy, of its namespace and name.
pub(super) fn name(namespace: &str, name: &str) -> String {
    let whole = format!("{namespace}.{name}");
    if whole.len() <= MAX_NAME {
        return whole;
    }
    // What is cut off still tells two names apart.
    let digest = identity::crypto::hex(&identity::crypto::sha256(whole.as_bytes()));
    let start: String = whole.chars().take(MAX_NAME - DIGEST - 1).collect();
    format!("{start}-{}", digest.get(..DIGEST).unwrap_or_default())
}

/// The text of a policy.
pub(super) fn policy(name: &str, origin: &str, protects: &[String], rules: &[Rewritten]) -> String {
    let mut text =
        format!("# Rewritten from {}.\nvouchsafe: policy/v1\nname: {name}\n", origin.replace('\n', " "));
    text.push_str(&format!("protects: {}\n", list(protects)));
    for (key, effect) in [("deny", Effect::Deny), ("allow", Effect::Allow)] {
        let mut first = true;
        for (number, rule) in rules.iter().filter(|rule| rule.effect == effect).enumerate() {
            if std::mem::take(&mut first) {
                text.push_str(&format!("{key}:\n"));
            }
            text.push_str(&one(rule, key, number));
        }
    }
    text
}

fn one(rule: &Rewritten, key: &str, number: usize) -> String {
    let name = rule.name.clone().unwrap_or_else(|| format!("{key}-{number}"));
    let mut text = format!("  - name: {name}\n    from: {}\n", list(&rule.from));
    for (key, values) in [("except", &rule.except), ("source_net", &rule.source_net)] {
        if !values.is_empty() {
            text.push_str(&format!("    {key}: {}\n", list(values)));
        }
    }
    let ports = match &rule.ports {
        None => "port: any".to_owned(),
        Some(ports) => format!("ports: [{}]", ports.join(", ")),
    };
    match &rule.http {
        None => text.push_str(&format!("    tcp: {{{ports}}}\n")),
        Some(http) => text.push_str(&format!("    http: {{{}}}\n", fields(ports, http))),
    }
    text
}

fn fields(ports: String, http: &Http) -> String {
    let mut all = vec![ports];
    for (key, values) in [("methods", &http.methods), ("hosts", &http.hosts), ("paths", &http.paths)] {
        all.extend(values.as_ref().map(|values| format!("{key}: {}", list(values))));
    }
    if !http.headers.is_empty() {
        let each = http.headers.iter().map(|(name, values)| match values {
            None => format!("{}: any", quoted(name)),
            Some(values) => format!("{}: {}", quoted(name), list(values)),
        });
        all.push(format!("headers: {{{}}}", each.collect::<Vec<_>>().join(", ")));
    }
    all.join(", ")
}

fn list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    format!("[{}]", quoted.join(", "))
}

// A text of JSON is one of YAML in quotes.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

const DIGEST: usize = 12;
