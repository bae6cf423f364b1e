//! From the node tree of one file to a policy.

use std::collections::HashMap;
use std::sync::Arc;

use super::guarantees::read_guarantees;
use super::issuers::{Declarations, read_issuers};
use super::linking::{Declared, KeyFiles, Wanted};
use super::rules::{Listed, read_rules};
use super::test_cases::read_tests;
use super::{Effect, MAX_NAME, MAX_PROTECTS, MAX_RULES_PER_POLICY, Mode, Policy, Stance};
use crate::decision::{RulePlace, RuleRef};
use crate::moment::Moment;
use crate::pattern::{IdPattern, IdPatternError};
use crate::strict::{Fields, Node, Problems, Reader, Source, Span};

/// A policy, the places that problems between files point at, and what it wants of other files.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) policy: Arc<Policy>,
    pub(crate) name_at: Span,
    pub(crate) declared: Vec<Declared>,
    pub(crate) key_files: Vec<String>,
    pub(crate) relied_on: Vec<Wanted>,
}

/// Reads a file, or says everything that is wrong in it. Key sets that it names are found in `keys`.
pub(crate) fn read(source: &Source, keys: &KeyFiles) -> Result<Document, Problems> {
    let (mut reader, root) = Reader::open(source);
    let document = root.and_then(|root| read_policy(&root, source, keys, &mut reader));
    reader.finish()?;
    // Whatever is absent was noted; if nothing was, the refusal says at least which file it is.
    document.ok_or_else(|| {
        Problems::from(crate::strict::Problem::in_file(&source.name, "the file is not a policy", None))
    })
}

fn read_policy(root: &Node, source: &Source, keys: &KeyFiles, read: &mut Reader<'_>) -> Option<Document> {
    let mut fields = read.map(root)?;
    if fields.unsupported("apiVersion", read) {
        return None;
    }
    let version = fields.version("policy/v1", read);
    let name_node = fields.required("name", read);
    let name: Option<Arc<str>> = name_node.and_then(|node| read_name(node, read)).map(Arc::from);
    let owner = match fields.optional("owner") {
        Some(node) => read.string(node).map(|owner| Some(owner.to_owned())),
        None => Some(None),
    };
    let protects = fields.required("protects", read).and_then(|node| read_protects(node, read));
    let mode = read_mode(&mut fields, read);
    let declared = match fields.optional("issuers") {
        Some(node) => read_issuers(node, &source.name, keys, read),
        None => Some(Declarations::default()),
    };
    let origin = Origin {
        policy: name.clone().unwrap_or_else(|| "".into()),
        file: source.name.as_str().into(),
        mode: mode.unwrap_or(Mode::Enforce),
    };
    let rules = read_both(&mut fields, &origin, read);
    let known = protects.as_deref().unwrap_or_default();
    let guarantees = match fields.optional("guarantees") {
        Some(node) => read_guarantees(node, known, &origin, read),
        None => Some(Vec::new()),
    };
    let tests = match fields.optional("tests") {
        Some(node) => read_tests(node, known, read),
        None => Some((Vec::new(), Vec::new())),
    };
    explain_misplaced(&mut fields, read);
    fields.finish(read);
    version?;
    let (declared, tests) = (declared?, tests?);
    let (rules, wanted): (Vec<_>, Vec<_>) =
        rules?.into_iter().map(|listed| (listed.rule, listed.wanted)).unzip();
    let (tests, of_tests) = tests;
    let policy = Policy {
        name: name?,
        owner: owner?,
        file: origin.file,
        protects: protects?,
        stance: Stance::Closed,
        mode: mode?,
        rules,
        issuers: declared.issuers.iter().map(|declared| Arc::clone(&declared.issuer)).collect(),
        guarantees: guarantees?,
        tests,
    };
    Some(Document {
        policy: Arc::new(policy),
        name_at: name_node?.span(),
        declared: declared.issuers,
        key_files: declared.key_files,
        relied_on: wanted.into_iter().flatten().chain(of_tests).collect(),
    })
}

fn explain_misplaced(fields: &mut Fields<'_>, read: &mut Reader<'_>) {
    for key in ["from", "tcp", "http", "grpc", "jwt", "sni", "connect", "upgrade"] {
        let cure = "write a rule under \"allow:\" or \"deny:\"";
        fields.misplaced(key, "belongs to a rule", cure, read);
    }
    fields.misplaced("never", "belongs to a guarantee", "write it under \"guarantees:\"", read);
}

/// What every rule of a file has in common.
pub(super) struct Origin {
    pub(super) policy: Arc<str>,
    pub(super) file: Arc<str>,
    pub(super) mode: Mode,
}

impl Origin {
    /// What records call the rule at `node`.
    pub(super) fn reference(&self, name: &str, node: &Node) -> RuleRef {
        let (policy, file) = (Arc::clone(&self.policy), Arc::clone(&self.file));
        RulePlace { policy, rule: name.into(), file, line: node.line() }.into()
    }
}

fn read_both(fields: &mut Fields<'_>, origin: &Origin, read: &mut Reader<'_>) -> Option<Vec<Listed>> {
    let deny = match fields.optional("deny") {
        Some(node) => read_rules(node, Effect::Deny, origin, read),
        None => Some(Vec::new()),
    };
    let allow = match fields.optional("allow") {
        Some(node) => read_rules(node, Effect::Allow, origin, read),
        None => Some(Vec::new()),
    };
    let mut rules = deny?;
    rules.extend(allow?);
    if rules.len() > MAX_RULES_PER_POLICY {
        let message =
            format!("the policy has {} rules, at most {MAX_RULES_PER_POLICY} are accepted", rules.len());
        read.place(fields.span(), message, Some("split it into several policies".to_owned()));
        return None;
    }
    unique_names(&rules, read)?;
    Some(rules)
}

fn unique_names(rules: &[Listed], read: &mut Reader<'_>) -> Option<()> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut unique = Some(());
    let mut in_order: Vec<&Listed> = rules.iter().collect();
    in_order.sort_by_key(|listed| listed.at.start);
    for Listed { at, rule, .. } in in_order {
        if let Some(first) = seen.insert(&rule.reference.rule, at.start.line) {
            let message =
                format!("the rule name \"{}\" is already used on line {first}", rule.reference.rule);
            read.place(*at, message, Some("give each rule of a policy a name of its own".to_owned()));
            unique = None;
        }
    }
    unique
}

fn read_mode(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Mode> {
    let mode_node = fields.optional("mode");
    let until_node = fields.optional("until");
    let word = match mode_node {
        Some(node) => read.one_of(node, &["enforce", "shadow"])?,
        None => "enforce",
    };
    match (word, mode_node, until_node) {
        ("shadow", _, Some(until)) => {
            let Moment(until) = read.parsed(until, Moment::WANTED)?;
            Some(Mode::Shadow { until })
        }
        ("shadow", Some(node), None) => {
            let cure = "add \"until:\" with the day from which it enforces, such as until: 2027-01-31";
            read.problem(node, "a policy in shadow needs an end", Some(cure));
            None
        }
        (_, _, Some(until)) => {
            read.problem(
                until,
                "\"until\" belongs to mode: shadow",
                Some("write mode: shadow, or remove it"),
            );
            None
        }
        (_, _, None) => Some(Mode::Enforce),
    }
}

fn read_protects(node: &Node, read: &mut Reader<'_>) -> Option<Vec<IdPattern>> {
    if node.is_list() {
        read.each(node, MAX_PROTECTS, |read, item| read_id(item, read))
    } else {
        read_id(node, read).map(|pattern| vec![pattern])
    }
}

/// Reads a SPIFFE ID or a pattern of them.
pub(super) fn read_id(node: &Node, read: &mut Reader<'_>) -> Option<IdPattern> {
    let text = read.string(node)?;
    match IdPattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let cure = match &error {
                IdPatternError::Scheme => {
                    let prefixed = format!("spiffe://{}", text.trim_start_matches('/'));
                    IdPattern::parse(&prefixed).is_ok().then(|| format!("write \"{prefixed}\""))
                }
                IdPatternError::TrustDomain => {
                    Some("list the IDs of each trust domain with their domain".to_owned())
                }
                IdPatternError::Segment(_) => {
                    Some("\"*\" is one whole segment, a trailing \"/**\" is the rest".to_owned())
                }
                IdPatternError::Id(_) => None,
            };
            read.problem(node, format!("{} is not a SPIFFE ID: {error}", quoted(text)), cure.as_deref());
            None
        }
    }
}

/// Reads the name of a policy or rule.
pub(super) fn read_name<'n>(node: &'n Node, read: &mut Reader<'_>) -> Option<&'n str> {
    let name = read.string(node)?;
    let letters =
        name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'));
    if letters && name.len() <= MAX_NAME {
        return Some(name);
    }
    let message = format!("{} is not a name", quoted(name));
    let cure = format!("use letters, digits, \"-\", \"_\" and \".\", at most {MAX_NAME} of them");
    read.problem(node, message, Some(&cure));
    None
}

pub(super) fn quoted(text: &str) -> String {
    crate::strict::quote(text)
}
