//! Why a decision is what it is: every rule looked at in turn, and the allow rules that come nearest.
//!
//! This walks the rules one by one and shares no code with the index, so that each checks the other in the tests.

mod failures;
mod words;

use std::fmt;

use serde::Serialize;

use self::failures::{Failures, failures};
use crate::access::{Connection, Traffic};
use crate::decision::{Decision, Dimension, NearMiss, RuleRef};
use crate::document::{Effect, Mode, Policy};
use crate::moment::shown;
use crate::workload::{AtConnect, Protected, WorkloadPolicies};

/// The whole way to a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The decision, with the nearest allow rules if it is a denial. Absent for an HTTP connection on which it depends
    /// on the request.
    pub decision: Option<Decision>,
    /// The generation of the policies.
    pub generation: String,
    /// The policies that protect the workload.
    pub policies: Vec<ExplainedPolicy>,
    /// Every rule, in the order in which rules are named.
    pub steps: Vec<Step>,
}

/// A policy that protects the workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedPolicy {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// `enforce`, or `shadow until` a moment.
    pub mode: String,
    /// Whether it enforces at the moment asked about.
    pub enforces: bool,
}

/// What one rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The rule.
    pub rule: RuleRef,
    /// `allow` or `deny`.
    pub effect: &'static str,
    /// Whether its policy enforces at the moment asked about.
    pub enforces: bool,
    /// Whether it matches.
    pub verdict: Verdict,
}

/// Whether a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does.
    Matches,
    /// It does as far as the connection goes; the rest is in the request.
    DependsOnRequest,
    /// It does not.
    Fails {
        /// The first thing that does not match.
        dimension: Dimension,
        /// What the rule asks for.
        wanted: String,
        /// What was there.
        found: String,
    },
}

impl WorkloadPolicies {
    /// Decides and explains. For people and for records of denials, not for every request: it takes as long as there
    /// are rules.
    pub fn explain(&self, connection: &Connection<'_>, traffic: &Traffic<'_>) -> Explanation {
        let decision = match traffic {
            Traffic::Tcp => Some(self.decide_tcp(connection)),
            Traffic::HttpRequest(request) => Some(self.decide_http(connection, request)),
            Traffic::HttpConnection => match self.at_connect(connection) {
                AtConnect::Deny(denial) => Some(Decision::Deny(denial)),
                AtConnect::Residual(_) => None,
            },
        };
        let decision = decision.map(|decision| self.with_near_misses(decision, connection, traffic));
        let (policies, steps) = match self.protected() {
            Ok(protected) => (explained(protected, connection), steps(protected, connection, traffic)),
            Err(_) => (Vec::new(), Vec::new()),
        };
        Explanation { decision, generation: self.generation().to_owned(), policies, steps }
    }

    /// The allow rules that come nearest to granting an access that is refused, at most [`MAX_NEAR_MISSES`].
    ///
    /// Nearest is which has the fewest things that do not match, then the one whose first such thing comes last.
    pub fn nearest(&self, connection: &Connection<'_>, traffic: &Traffic<'_>) -> Vec<NearMiss> {
        let Ok(protected) = self.protected() else { return Vec::new() };
        let mut nearest: Vec<(usize, std::cmp::Reverse<Dimension>, usize, Failures<'_>)> = Vec::new();
        let rules = protected.policies.iter().flat_map(|policy| &policy.rules);
        for (order, rule) in rules.enumerate().filter(|(_, rule)| rule.effect == Effect::Allow) {
            let failures = failures(rule, connection, traffic);
            let Some(first) = failures.first() else { continue };
            nearest.push((failures.count(), std::cmp::Reverse(first), order, failures));
            nearest.sort_by_key(|(count, first, order, _)| (*count, *first, *order));
            nearest.truncate(MAX_NEAR_MISSES);
        }
        nearest.into_iter().filter_map(|(.., failures)| failures.near_miss()).collect()
    }

    fn with_near_misses(
        &self,
        decision: Decision,
        connection: &Connection<'_>,
        traffic: &Traffic<'_>,
    ) -> Decision {
        match decision {
            Decision::Allow(mut allowed) => {
                if let Some(denial) = &mut allowed.shadow {
                    denial.near_misses = self.nearest(connection, traffic);
                }
                Decision::Allow(allowed)
            }
            Decision::Deny(mut denial) => {
                denial.near_misses = self.nearest(connection, traffic);
                Decision::Deny(denial)
            }
        }
    }
}

fn explained(protected: &Protected, connection: &Connection<'_>) -> Vec<ExplainedPolicy> {
    let one = |policy: &Policy| ExplainedPolicy {
        name: policy.name().to_owned(),
        file: policy.file().to_owned(),
        mode: mode_in_words(policy.mode()),
        enforces: policy.mode().enforces_at(connection.now),
    };
    protected.policies.iter().map(|policy| one(policy)).collect()
}

fn steps(protected: &Protected, connection: &Connection<'_>, traffic: &Traffic<'_>) -> Vec<Step> {
    let rules = protected.policies.iter().flat_map(|policy| &policy.rules);
    rules
        .map(|rule| Step {
            rule: rule.reference.clone(),
            effect: match rule.effect {
                Effect::Allow => "allow",
                Effect::Deny => "deny",
            },
            enforces: rule.mode.enforces_at(connection.now),
            verdict: failures(rule, connection, traffic).verdict(),
        })
        .collect()
}

fn mode_in_words(mode: Mode) -> String {
    match mode {
        Mode::Enforce => "enforce".to_owned(),
        Mode::Shadow { until } => format!("shadow until {}", shown(until)),
        Mode::DryRun => "dry run".to_owned(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.decision {
            Some(Decision::Allow(allowed)) => {
                write!(f, "allow")?;
                if let Some(rule) = &allowed.rule {
                    write!(f, " by {rule}")?;
                }
                if let Some(denial) = &allowed.shadow {
                    write!(f, "\nshadow: would be denied ({})", denial.reason)?;
                    write_denial(f, denial)?;
                }
            }
            Some(Decision::Deny(denial)) => {
                write!(f, "deny ({})", denial.reason)?;
                write_denial(f, denial)?;
            }
            None => write!(f, "depends on the request")?,
        }
        for policy in &self.policies {
            write!(f, "\npolicy {} ({}, {})", policy.name, policy.file, policy.mode)?;
            let name = policy.name.as_str();
            for step in self.steps.iter().filter(|step| *step.rule.policy == *name) {
                write!(
                    f,
                    "\n  line {:<5} {:<5} {}: {}",
                    step.rule.line, step.effect, step.rule.rule, step.verdict
                )?;
            }
        }
        Ok(())
    }
}

fn write_denial(f: &mut fmt::Formatter<'_>, denial: &crate::decision::Denial) -> fmt::Result {
    if let Some(rule) = &denial.rule {
        write!(f, " by {rule}")?;
    }
    for near in &denial.near_misses {
        write!(f, "\n  nearest: {near}")?;
    }
    Ok(())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matches => f.write_str("matches"),
            Self::DependsOnRequest => f.write_str("depends on the request"),
            Self::Fails { dimension, wanted, found } => {
                write!(f, "no: {dimension} is {found}, the rule wants {wanted}")
            }
        }
    }
}

/// Most allow rules named as nearest.
pub const MAX_NEAR_MISSES: usize = 3;

#[cfg(test)]
mod tests;
