//! Native policies as text.

use std::collections::{BTreeMap, BTreeSet};

use super::requests::Http;
use super::rules::Rewritten;
use super::tokens::{Audience, Jwt, key_file};
use crate::document::{Effect, Issuer, KeySource, MAX_NAME};
use crate::load::compile;
use crate::strict::{Reader, Source};

/// A policy to be written.
pub(super) struct Draft<'d> {
    pub(super) name: String,
    /// Where the original is.
    pub(super) origin: String,
    pub(super) protects: Vec<String>,
    /// The issuers that no earlier file declares.
    pub(super) issuers: Vec<&'d Issuer>,
    pub(super) rules: Vec<Rewritten>,
}

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

/// The text of a policy, in its one form.
pub(super) fn policy(draft: &Draft<'_>) -> String {
    let text = unformatted(draft);
    let source = Source::new(format!("{}.yaml", draft.name), text.clone());
    crate::format::format(&source).unwrap_or(text)
}

/// Why the language refuses a rule, if it does.
pub(super) fn refused(rule: &Rewritten, issuers: &[&Issuer]) -> Option<String> {
    let wanted = |issuer: &&&Issuer| rule.jwt.as_ref().is_some_and(|jwt| *jwt.issuer == *issuer.issuer);
    let draft = Draft {
        name: "one".to_owned(),
        origin: String::new(),
        protects: vec!["spiffe://example.org/one".to_owned()],
        issuers: issuers.iter().filter(wanted).copied().collect(),
        rules: vec![rule.clone()],
    };
    let keys = draft.issuers.iter().filter_map(|issuer| key_file(issuer));
    let mut files: Vec<Source> = keys.map(|(name, text)| Source::new(name, text)).collect();
    files.push(Source::new("one.yaml", unformatted(&draft)));
    let problems = compile(&files).err()?;
    Some(problems.iter().next().map(|problem| problem.message.clone()).unwrap_or_default())
}

fn unformatted(draft: &Draft<'_>) -> String {
    let origin = one_line(&draft.origin);
    let mut text = format!("# Rewritten from {origin}.\nvouchsafe: policy/v1\nname: {}\n", draft.name);
    match draft.protects.as_slice() {
        [one] => text.push_str(&format!("protects: {}\n", word(one))),
        several => text.push_str(&format!("protects: {}\n", list(several))),
    }
    if !draft.issuers.is_empty() {
        text.push_str("issuers:\n");
        draft.issuers.iter().for_each(|issuer| text.push_str(&declaration(issuer)));
    }
    let mut names = BTreeSet::new();
    for (key, effect) in [("allow", Effect::Allow), ("deny", Effect::Deny)] {
        let mut rules = draft.rules.iter().filter(|rule| rule.effect == effect).peekable();
        if rules.peek().is_some() {
            text.push_str(&format!("{key}:\n"));
        }
        for rule in rules {
            let name = named(rule, &draft.rules, &mut names);
            text.push_str(&one(rule, &name));
        }
    }
    text
}

// The name says which of Istio's rules it comes from, and where one came to several, on which layer.
fn named(rule: &Rewritten, all: &[Rewritten], names: &mut BTreeSet<String>) -> String {
    let alone = all.iter().filter(|other| other.name == rule.name).count() == 1;
    let base = match (alone, &rule.http) {
        (true, _) => rule.name.clone(),
        (false, None) => format!("{}-tcp", rule.name),
        (false, Some(_)) => format!("{}-http", rule.name),
    };
    let mut name = base.clone();
    let mut number = 2_usize;
    while !names.insert(name.clone()) {
        name = format!("{base}-{number}");
        number = number.saturating_add(1);
    }
    name
}

fn declaration(issuer: &Issuer) -> String {
    let audiences: Vec<String> = issuer.audiences.iter().map(ToString::to_string).collect();
    let mut fields = vec![format!("issuer: {}", word(&issuer.issuer))];
    if !audiences.is_empty() {
        fields.push(format!("audiences: {}", list(&audiences)));
    }
    fields.push(match (&issuer.keys, key_file(issuer)) {
        (KeySource::Inline(_), Some((file, _))) => format!("keys: {{file: {}}}", word(&file)),
        (KeySource::Url(url) | KeySource::Inline(url), _) => format!("keys: {{url: {}}}", word(url)),
    });
    format!("  - {{{}}}\n", fields.join(", "))
}

fn one(rule: &Rewritten, name: &str) -> String {
    let mut text = String::new();
    if let Some(origin) = &rule.origin {
        text.push_str(&format!("  # {}\n", one_line(origin)));
    }
    text.push_str(&format!("  - name: {name}\n    from: {}\n", list(&rule.from)));
    for (key, values) in [("except", &rule.except), ("source_net", &rule.source_net), ("sni", &rule.sni)] {
        if !values.is_empty() {
            text.push_str(&format!("    {key}: {}\n", list(values)));
        }
    }
    if let Some(jwt) = &rule.jwt {
        text.push_str(&format!("    jwt: {}\n", token(jwt)));
    }
    let ports = match rule.ports.as_deref() {
        None => "port: any".to_owned(),
        Some([port]) if !port.contains('-') => format!("port: {port}"),
        Some(ports) => format!("ports: [{}]", ports.join(", ")),
    };
    match &rule.http {
        None => text.push_str(&format!("    tcp: {{{ports}}}\n")),
        Some(http) => text.push_str(&format!("    http: {{{}}}\n", fields(ports, http))),
    }
    text
}

fn token(jwt: &Jwt) -> String {
    let mut fields = vec![format!("issuer: {}", word(&jwt.issuer))];
    match &jwt.audience {
        Audience::OfIssuer => {}
        Audience::Any => fields.push("audience: any".to_owned()),
        Audience::Only(audiences) => match audiences.as_slice() {
            [one] if one != "any" => fields.push(format!("audience: {}", word(one))),
            several => fields.push(format!("audiences: {}", list(several))),
        },
    }
    let claims: Vec<Claim<'_>> = jwt.claims.iter().map(|(path, values)| Claim { path, values }).collect();
    if !claims.is_empty() {
        fields.push(format!("claims: {}", nested(&claims)));
    }
    format!("{{{}}}", fields.join(", "))
}

struct Claim<'j> {
    path: &'j [String],
    values: &'j [String],
}

// No path is the start of another, so each name has either values or names below.
fn nested(claims: &[Claim<'_>]) -> String {
    let mut below: BTreeMap<&str, Vec<Claim<'_>>> = BTreeMap::new();
    for Claim { path, values } in claims {
        if let Some((first, path)) = path.split_first() {
            below.entry(first).or_default().push(Claim { path, values });
        }
    }
    let fields = below.iter().map(|(name, inner)| match inner.as_slice() {
        [Claim { path: [], values }] => format!("{}: {}", word(name), list(values)),
        deeper => format!("{}: {}", word(name), nested(deeper)),
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

fn fields(ports: String, http: &Http) -> String {
    let mut all = vec![ports];
    for (key, values) in [("methods", &http.methods), ("hosts", &http.hosts), ("paths", &http.paths)] {
        all.extend(values.as_ref().map(|values| format!("{key}: {}", list(values))));
    }
    if !http.headers.is_empty() {
        let each = http.headers.iter().map(|(name, values)| match values {
            None => format!("{}: any", word(name)),
            Some(values) => format!("{}: {}", word(name), list(values)),
        });
        all.push(format!("headers: {{{}}}", each.collect::<Vec<_>>().join(", ")));
    }
    all.join(", ")
}

fn list(values: &[String]) -> String {
    let words: Vec<String> = values.iter().map(|value| word(value)).collect();
    format!("[{}]", words.join(", "))
}

// A text that no reader takes for anything else stands as it is; one of JSON is one of YAML in quotes.
fn word(text: &str) -> String {
    let simple = |letter: char| letter.is_ascii_alphanumeric() || "-_./:*".contains(letter);
    let begins = text.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '/');
    if begins && text.chars().all(simple) && reads_as_itself(text) {
        return text.to_owned();
    }
    serde_json::Value::String(text.to_owned()).to_string()
}

fn reads_as_itself(text: &str) -> bool {
    let source = Source::new("word", format!("{{a: {text}, {text}: b}}"));
    let (mut read, root) = Reader::open(&source);
    let Some(root) = root else { return false };
    let same = read.entries(&root).is_some_and(|entries| match entries.as_slice() {
        [(_, value), (key, _)] => *key == text && value.is_text(text),
        _ => false,
    });
    let Some(entries) = read.entries(&root) else { return false };
    let texts = entries.first().is_some_and(|(_, value)| read.string(value).is_some());
    same && texts && read.finish().is_ok()
}

fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

const DIGEST: usize = 12;
