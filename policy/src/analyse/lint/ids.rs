//! IDs that nobody can have: no registration entry gives them out.

use std::collections::BTreeSet;

use super::{Finding, FindingKind, Lint};
use crate::decision::RuleRef;
use crate::document::Policy;
use crate::pattern::{IdPattern, Segment};
use crate::set::PolicySet;
use crate::strict::suggest;

/// Adds the IDs and patterns of which no known one is a part. Those of a trust domain that is not among the known are left
/// alone, unless its name looks like a mistyped one: entries of others are not known here.
pub(super) fn find(set: &PolicySet, known: &[IdPattern], lint: &mut Lint) {
    let registry = Registry::new(known);
    for policy in set.policies() {
        for pattern in policy.protects() {
            lint.findings.extend(registry.finding(pattern, policy, None));
        }
        for rule in &policy.rules {
            for pattern in rule.from.patterns.iter().chain(&rule.except) {
                lint.findings.extend(registry.finding(pattern, policy, Some(&rule.reference)));
            }
        }
    }
}

struct Registry<'k> {
    literals: BTreeSet<&'k str>,
    wide: Vec<&'k IdPattern>,
    all: &'k [IdPattern],
    domains: BTreeSet<&'k str>,
}

impl<'k> Registry<'k> {
    fn new(all: &'k [IdPattern]) -> Self {
        let (literals, wide): (Vec<_>, Vec<_>) = all.iter().partition(|known| known.segments().is_literal());
        Self {
            literals: literals.iter().map(|known| known.as_str()).collect(),
            wide,
            all,
            domains: all.iter().map(domain).collect(),
        }
    }

    fn finding(&self, pattern: &IdPattern, policy: &Policy, rule: Option<&RuleRef>) -> Option<Finding> {
        let (message, cure) = if self.domains.contains(domain(pattern)) {
            if self.knows(pattern) {
                return None;
            }
            let (what, meant) = if pattern.segments().is_literal() {
                ("no registration entry has the ID", nearest(pattern, self.literals.iter().copied()))
            } else {
                let wide = self.wide.iter().map(|known| known.as_str());
                ("no registration entry has an ID like", nearest(pattern, wide))
            };
            (format!("{what} {pattern}"), meant.map(str::to_owned))
        } else {
            let meant = suggest(domain(pattern), self.domains.iter().copied())?;
            let whole = pattern.as_str().replacen(domain(pattern), meant, 1);
            (format!("the trust domain of {pattern} is not known"), Some(whole))
        };
        let cure = cure.map(|meant| format!("did you mean \"{meant}\"?"));
        Some(match rule {
            Some(rule) => Finding::of_rule(FindingKind::UnknownId, rule, message, cure),
            None => Finding::of_policy(FindingKind::UnknownId, policy, message, cure),
        })
    }

    fn knows(&self, pattern: &IdPattern) -> bool {
        if pattern.segments().is_literal() {
            return self.literals.contains(pattern.as_str())
                || self.wide.iter().any(|known| meet(known, pattern));
        }
        self.all.iter().any(|known| meet(known, pattern))
    }
}

/// The ID that was probably meant: as many segments, and those that differ look like mistyped ones.
fn nearest<'k>(pattern: &IdPattern, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let differing = |known: &str| -> Option<usize> {
        let (mut own, mut other) = (pattern.as_str().split('/'), known.split('/'));
        let mut differing = 0;
        loop {
            match (own.next(), other.next()) {
                (None, None) => return Some(differing),
                (Some(own), Some(other)) if own == other => {}
                (Some(own), Some(other)) => {
                    suggest(own, [other])?;
                    differing += 1;
                }
                (Some(_), None) | (None, Some(_)) => return None,
            }
        }
    };
    known.filter_map(|known| Some((differing(known)?, known))).min().map(|(_, known)| known)
}

/// Whether some ID is meant by both patterns.
fn meet(one: &IdPattern, other: &IdPattern) -> bool {
    let (one, other) = (one.segments(), other.segments());
    let fit = |(own, other): (&Segment, &Segment)| match (own, other) {
        (Segment::Any, _) | (_, Segment::Any) => true,
        (Segment::Literal(own), Segment::Literal(other)) => own == other,
    };
    let lengths = match (one.rest, other.rest) {
        (true, true) => true,
        (true, false) => one.steps.len() <= other.steps.len(),
        (false, true) => other.steps.len() <= one.steps.len(),
        (false, false) => one.steps.len() == other.steps.len(),
    };
    lengths && one.steps.iter().zip(&other.steps).all(fit)
}

fn domain(pattern: &IdPattern) -> &str {
    pattern.as_str().split('/').nth(2).unwrap_or_default()
}
