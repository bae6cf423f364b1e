//! `AuthorizationPolicy`: its rules as clauses, checked and with nothing interpreted away.

use super::clauses::{OPERATION, SOURCE, Values, read_clause};
use super::conditions::Test;
use super::resource::{Metadata, Name};
use super::scope::{Scope, read_scope};
use super::{Attribute, MAX_ENTRIES};
use crate::mesh::{Compat, Mesh};
use crate::strict::{Fields, Node, Reader};

/// An `AuthorizationPolicy`.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) name: Name,
    pub(crate) scope: Scope,
    pub(crate) action: Action,
    pub(crate) dry_run: bool,
    pub(crate) rules: Vec<IstioRule>,
}

/// What its rules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    Audit,
}

/// One rule: some clause of `from`, some clause of `to` and every test of `when` must hold. An absent list of clauses always does.
#[derive(Clone, Debug)]
pub(crate) struct IstioRule {
    pub(crate) line: u32,
    pub(crate) from: Vec<Clause>,
    pub(crate) to: Vec<Clause>,
    pub(crate) when: Vec<Test>,
}

/// Tests that must all hold.
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    pub(crate) tests: Vec<Test>,
}

impl Authorization {
    /// The principals that it names, as they are written.
    pub(crate) fn principals(&self) -> impl Iterator<Item = &str> {
        let tests = self.rules.iter().flat_map(IstioRule::tests);
        tests
            .filter(|test| test.attribute == Attribute::Principal)
            .flat_map(|test| {
                [&test.values, &test.not_values].into_iter().flat_map(|values| match values {
                    Values::Texts(texts) => texts.as_slice(),
                    Values::Ports(_) | Values::Networks(_) => &[],
                })
            })
            .map(|text| &**text)
    }
}

impl IstioRule {
    /// Every test of the rule.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &Test> {
        let clauses = self.from.iter().chain(&self.to);
        clauses.flat_map(|clause| &clause.tests).chain(&self.when)
    }
}

/// Reads a `spec`.
pub(super) fn read(
    metadata: Metadata,
    spec: &Node,
    mesh: &Mesh,
    read: &mut Reader<'_>,
) -> Option<Authorization> {
    let mut fields = read.map(spec)?;
    let scope = read_scope(&mut fields, &metadata.name, mesh, read);
    let action = read_action(&mut fields, read);
    fields.misplaced(
        "provider",
        "belongs to the action CUSTOM, which is not supported",
        "remove it, or write the rules out",
        read,
    );
    let rules = match fields.optional("rules") {
        Some(node) => read_rules(node, action, &metadata, mesh, read),
        None => Some(Vec::new()),
    };
    fields.finish(read);
    let (action, rules) = (action?, rules?);
    if action == Action::Deny && rules.is_empty() {
        let cure = "write \"rules: [{}]\" to refuse everything";
        read.problem(spec, "a policy that denies has no rules and would do nothing", Some(cure));
        return None;
    }
    warn_of_policy(&metadata, action, &rules, mesh, read);
    Some(Authorization { name: metadata.name, scope: scope?, action, dry_run: metadata.dry_run, rules })
}

fn read_action(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Action> {
    let Some(node) = fields.optional("action") else { return Some(Action::Allow) };
    if node.is_text("CUSTOM") {
        let cure = "write the rules as ALLOW and DENY policies";
        read.problem(node, "the action CUSTOM is not supported: nobody would be asked", Some(cure));
        return None;
    }
    match read.one_of(node, &["ALLOW", "DENY", "AUDIT"])? {
        "ALLOW" => Some(Action::Allow),
        "DENY" => Some(Action::Deny),
        _ => Some(Action::Audit),
    }
}

fn read_rules(
    node: &Node,
    action: Option<Action>,
    metadata: &Metadata,
    mesh: &Mesh,
    read: &mut Reader<'_>,
) -> Option<Vec<IstioRule>> {
    // To Kubernetes an empty list is an absent one.
    if read.list(node)?.is_empty() {
        return Some(Vec::new());
    }
    let namespace = &metadata.name.namespace;
    read.each(node, MAX_ENTRIES, |read, item| {
        let rule = read_rule(item, namespace, mesh, read)?;
        warn_of_rule(item, action, &rule, mesh, read);
        Some(rule)
    })
}

fn read_rule(node: &Node, namespace: &str, mesh: &Mesh, read: &mut Reader<'_>) -> Option<IstioRule> {
    let mut fields = read.map(node)?;
    let from = read_clauses(fields.optional("from"), "source", &SOURCE, (namespace, mesh), read);
    let to = read_clauses(fields.optional("to"), "operation", &OPERATION, (namespace, mesh), read);
    let when = match fields.optional("when") {
        Some(node) => {
            read.each(node, MAX_ENTRIES, |read, item| super::when::read(item, namespace, mesh, read))
        }
        None => Some(Vec::new()),
    };
    fields.finish(read);
    Some(IstioRule { line: node.line(), from: from?, to: to?, when: when? })
}

fn read_clauses(
    node: Option<&Node>,
    inner: &'static str,
    keys: &[(&'static str, &'static str, Attribute)],
    (namespace, mesh): (&str, &Mesh),
    read: &mut Reader<'_>,
) -> Option<Vec<Clause>> {
    let Some(node) = node else { return Some(Vec::new()) };
    read.each(node, MAX_ENTRIES, |read, item| {
        let mut fields = read.map(item)?;
        let clause = fields.required(inner, read);
        fields.finish(read);
        read_clause(clause?, keys, (namespace, mesh), read)
    })
}

fn warn_of_policy(
    metadata: &Metadata,
    action: Action,
    rules: &[IstioRule],
    mesh: &Mesh,
    read: &mut Reader<'_>,
) {
    if action == Action::Audit {
        let cure =
            "remove it; every refusal is on record anyhow, and shadow policies say what they would refuse";
        read.warn(metadata.name.at, "a policy with the action AUDIT changes no decision", cure);
    }
    if action == Action::Allow && !rules.is_empty() && mesh.compat == Compat::Ambient {
        let none = rules.iter().all(|rule| rule.tests().any(|test| !test.attribute.is_known_to_ztunnel()));
        if none {
            let cure = "ztunnel sees no requests: allow connections, or read the files as those of sidecars";
            read.warn(metadata.name.at, "no rule of the policy can grant anything in ambient mode", cure);
        }
    }
}

fn warn_of_rule(node: &Node, action: Option<Action>, rule: &IstioRule, mesh: &Mesh, read: &mut Reader<'_>) {
    if action != Some(Action::Deny) {
        return;
    }
    match mesh.compat {
        Compat::Ambient => {
            let empty =
                |clause: &Clause| clause.tests.iter().all(|test| !test.attribute.is_known_to_ztunnel());
            let dead = (!rule.from.is_empty() && rule.from.iter().all(empty))
                || (!rule.to.is_empty() && rule.to.iter().all(empty))
                || rule.when.iter().any(|test| !test.attribute.is_known_to_ztunnel());
            if dead {
                let cure = "name what can be seen of a connection: callers, addresses and ports";
                read.warn(
                    node.span(),
                    "the rule denies nothing: ztunnel leaves out what is about requests",
                    cure,
                );
            }
        }
        Compat::Sidecar => {
            if rule.tests().any(|test| test.attribute.is_http()) {
                let cure = "add \"ports\" to keep it to the ports that are served as HTTP";
                let message = "on ports served as opaque TCP the rule denies more: what it says about requests is left out there";
                read.warn(node.span(), message, cure);
            }
        }
    }
}
