//! Rules that are acceptable and probably not what was meant.

mod ids;
mod useless;

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use super::{Terms, Unsettled};
use crate::decision::RuleRef;
use crate::document::{ConnectionCondition, Effect, Mode, Policy, Rule, Sense};
use crate::moment::shown;
use crate::pattern::IdPattern;
use crate::set::PolicySet;

/// What a set was found to have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Lint {
    /// What is probably not meant, by file and line.
    pub findings: Vec<Finding>,
    /// What could not be settled.
    pub unsettled: Vec<Unsettled>,
}

/// Something that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The policy.
    pub policy: String,
    /// The rule, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The file.
    pub file: String,
    /// The line of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What it is, in one line.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// No access can match the rule.
    NeverMatches,
    /// Deny rules refuse everything that the rule allows.
    Contradicted,
    /// Another rule of the same effect does all that the rule does.
    Repeated,
    /// Other rules of the same effect do together all that the rule does.
    Covered,
    /// No registration entry can have the ID.
    UnknownId,
    /// No test case is decided by the rule.
    Untested,
    /// The policy was in shadow, and is not any more.
    ShadowEnded,
    /// The rule allows more callers than rules should.
    Broad,
}

impl FindingKind {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverMatches => "never_matches",
            Self::Contradicted => "contradicted",
            Self::Repeated => "repeated",
            Self::Covered => "covered",
            Self::UnknownId => "unknown_id",
            Self::Untested => "untested",
            Self::ShadowEnded => "shadow_ended",
            Self::Broad => "broad",
        }
    }
}

impl Finding {
    fn of_rule(kind: FindingKind, rule: &RuleRef, message: impl Into<String>, cure: Option<String>) -> Self {
        Self {
            kind,
            policy: rule.policy.to_string(),
            rule: Some(rule.rule.to_string()),
            file: rule.file.to_string(),
            line: Some(rule.line),
            message: message.into(),
            cure,
        }
    }

    fn of_policy(kind: FindingKind, policy: &Policy, message: String, cure: Option<String>) -> Self {
        let (name, file) = (policy.name().to_owned(), policy.file().to_owned());
        Self { kind, policy: name, rule: None, file, line: None, message, cure }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: ", self.file)?,
            None => write!(f, "{}: ", self.file)?,
        }
        match &self.rule {
            Some(rule) => write!(f, "{}/{rule}: {}", self.policy, self.message)?,
            None => write!(f, "{}: {}", self.policy, self.message)?,
        }
        match &self.cure {
            Some(cure) => write!(f, "\n  = {cure}"),
            None => Ok(()),
        }
    }
}

/// Looks a set through. `known` are the IDs and patterns of the registration entries, if they are known; `now` is the
/// moment by which shadow policies count as ended.
pub fn lint(set: &PolicySet, known: Option<&[IdPattern]>, now: SystemTime, terms: Terms) -> Lint {
    let mut lint = Lint::default();
    useless::find(set, terms, &mut lint);
    if let Some(known) = known {
        ids::find(set, known, &mut lint);
    }
    for policy in set.policies() {
        lint.findings.extend(ended(policy, now));
        lint.findings.extend(policy.rules.iter().filter_map(|rule| broad(rule)));
    }
    let report = set.run_tests();
    let uncovered = report.uncovered().map(|coverage| {
        let cure = Some("add a case under \"tests:\" that this rule decides".to_owned());
        Finding::of_rule(FindingKind::Untested, &coverage.rule, "no test in the files is decided by it", cure)
    });
    lint.findings.extend(uncovered);
    lint.findings.sort_by(|one, other| {
        let place = |finding: &Finding| (finding.file.clone(), finding.line, finding.kind);
        place(one).cmp(&place(other))
    });
    lint
}

fn ended(policy: &Policy, now: SystemTime) -> Option<Finding> {
    match policy.mode() {
        Mode::Shadow { until } if until <= now => {
            let message = format!("its shadow ended at {}: it enforces", shown(until));
            let cure = Some("remove \"mode\" and \"until\"".to_owned());
            Some(Finding::of_policy(FindingKind::ShadowEnded, policy, message, cure))
        }
        Mode::Shadow { .. } | Mode::Enforce | Mode::DryRun => None,
    }
}

fn broad(rule: &Rule) -> Option<Finding> {
    if rule.effect == Effect::Deny {
        return None;
    }
    // Istio's rules name callers by conditions.
    let named = |condition: &ConnectionCondition| {
        matches!(condition, ConnectionCondition::Peer { sense: Sense::Is, .. })
    };
    if rule.at_connect.iter().any(named) {
        return None;
    }
    let whole = rule.from.patterns.iter().find(|pattern| is_whole_domain(pattern));
    let (who, cure) = match whole {
        _ if rule.from.unauthenticated => {
            ("callers without any identity".to_owned(), "limit it by port, path and source_net")
        }
        _ if rule.from.anyone => {
            ("every caller of every trust domain".to_owned(), "name the callers, or their namespace")
        }
        Some(pattern) => (format!("every caller of a trust domain ({pattern})"), "name the callers"),
        None => return None,
    };
    let message = format!("it allows {who}");
    Some(Finding::of_rule(FindingKind::Broad, &rule.reference, message, Some(cure.to_owned())))
}

fn is_whole_domain(pattern: &IdPattern) -> bool {
    let segments = pattern.segments();
    segments.rest && segments.steps.len() == 1
}

#[cfg(test)]
mod tests;
