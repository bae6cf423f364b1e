//! From an `AuthorizationPolicy` to a policy of the internal form: each `from` with each `to`, once for opaque TCP and once for HTTP where
//! that differs.

use std::sync::Arc;

use super::authorization::{Action, Authorization, Clause, IstioRule};
use super::conditions::{Parts, Test};
use super::{MAX_EXPANSION, Selected, Weight};
use crate::decision::{RulePlace, RuleRef};
use crate::document::{Effect, HttpLimits, Kinds, Layer, Limit, Mode, Policy, Rule, Stance};
use crate::mesh::{Compat, Mesh};
use crate::strict::{Problem, Problems};

/// Compiles a policy.
pub(super) fn compile(policy: &Authorization, mesh: &Mesh) -> Result<Selected, Problems> {
    let mode = if policy.dry_run { Mode::DryRun } else { Mode::Enforce };
    let full_name = policy.name.full();
    let (stance, effect) = match policy.action {
        Action::Allow => (Stance::Closed, Some(Effect::Allow)),
        Action::Deny => (Stance::Open, Some(Effect::Deny)),
        Action::Audit => (Stance::Open, None),
    };
    let mut rules = Vec::new();
    for (number, rule) in policy.rules.iter().enumerate() {
        let Some(effect) = effect else { continue };
        let reference = RulePlace {
            policy: Arc::clone(&full_name),
            rule: format!("rule[{number}]").into(),
            file: Arc::clone(&policy.name.file),
            line: rule.line,
        }
        .into();
        if !expand(rule, &Head { effect, mode, reference, mesh }, &mut rules) {
            let message = format!(
                "policy {full_name} comes to more than {MAX_EXPANSION} rules, each \"from\" with each \"to\""
            );
            let cure = Some("split it, or put several values into one list".to_owned());
            return Err(Problems::from(Problem::in_file(&policy.name.file, message, cure)));
        }
    }
    let weight = match (effect, mode) {
        (Some(_), Mode::Enforce) => Weight::Protects,
        (Some(_), Mode::DryRun | Mode::Shadow { .. }) | (None, _) => Weight::Watches,
    };
    let compiled = Policy { rules, ..super::plain(&policy.name, stance, mode) };
    Ok(Selected { policy: compiled, scope: policy.scope.clone(), weight })
}

/// What the rules that one rule comes to have in common.
struct Head<'m> {
    effect: Effect,
    mode: Mode,
    reference: RuleRef,
    mesh: &'m Mesh,
}

// Whether there was room for all of them.
fn expand(rule: &IstioRule, head: &Head<'_>, rules: &mut Vec<Arc<Rule>>) -> bool {
    if head.mesh.compat == Compat::Ambient && is_lost(rule, head.effect) {
        return true;
    }
    let whole = [Clause { tests: Vec::new() }];
    let clauses = |clauses: &'_ [Clause]| -> Vec<Clause> {
        if clauses.is_empty() { whole.to_vec() } else { clauses.to_vec() }
    };
    let http = rule.tests().any(|test| test.attribute.is_http());
    let (from, to) = (clauses(&rule.from), clauses(&rule.to));
    for source in from.iter().filter(|clause| is_seen(clause, head.mesh)) {
        for operation in to.iter().filter(|clause| is_seen(clause, head.mesh)) {
            let tests = source.tests.iter().chain(&operation.tests).chain(&rule.when);
            let seen = tests.filter(|test| seen(test, head.mesh));
            add(seen, http, head, rules);
            if rules.len() > MAX_EXPANSION {
                return false;
            }
        }
    }
    true
}

// ztunnel sees no requests. A rule that allows them is left out whole; of one that denies them, clauses that would be empty match nothing.
fn is_lost(rule: &IstioRule, effect: Effect) -> bool {
    let unseen = |test: &Test| !test.attribute.is_known_to_ztunnel();
    match effect {
        Effect::Allow => rule.tests().any(unseen),
        Effect::Deny => rule.when.iter().any(unseen),
    }
}

fn is_seen(clause: &Clause, mesh: &Mesh) -> bool {
    clause.tests.is_empty() || clause.tests.iter().any(|test| seen(test, mesh))
}

fn seen(test: &Test, mesh: &Mesh) -> bool {
    match mesh.compat {
        Compat::Sidecar => true,
        Compat::Ambient => test.attribute.is_known_to_ztunnel(),
    }
}

fn add<'t>(tests: impl Iterator<Item = &'t Test>, http: bool, head: &Head<'_>, rules: &mut Vec<Arc<Rule>>) {
    let mut parts = Parts::new();
    for test in tests {
        parts.narrow(test, head.effect, head.mesh);
    }
    let http = http && head.mesh.compat == Compat::Sidecar;
    let limits = |methods: Limit<Arc<str>>| {
        Layer::Http(HttpLimits { methods, hosts: Limit::Any, paths: Limit::Any, kinds: Kinds::Every })
    };
    match (head.effect, http) {
        // On opaque TCP a rule about requests grants nothing and denies by what is left of it, which is what the index does with it.
        (Effect::Allow | Effect::Deny, true) => {
            let layer = limits(parts.methods.clone());
            rules.push(rule(head, parts, layer));
        }
        (Effect::Deny, false) => rules.push(rule(head, parts, Layer::Tcp)),
        (Effect::Allow, false) => {
            rules.push(rule(head, parts.clone(), Layer::Tcp));
            rules.push(rule(head, parts, limits(Limit::Any)));
        }
    }
}

fn rule(head: &Head<'_>, parts: Parts, layer: Layer) -> Arc<Rule> {
    Arc::new(Rule {
        reference: head.reference.clone(),
        effect: head.effect,
        mode: head.mode,
        from: parts.from,
        except: Vec::new(),
        source_net: parts.source_net,
        ports: parts.ports,
        layer,
        at_connect: parts.at_connect,
        at_request: parts.at_request,
    })
}
