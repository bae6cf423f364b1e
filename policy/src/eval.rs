//! Requests written as JSON, put to the policies of one workload: what scripts ask and what they are answered.
//!
//! A question is read strictly: an unknown key, a missing port or a peer that is no SPIFFE ID is an error, never a
//! guess. A question that a sidecar would answer with 400 is a denial with the reason `malformed_request`.

mod question;
mod workload;

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::access::{Connection, Traffic};
use crate::decision::{Allowed, Decision, Denial, RuleRef};
use crate::mesh::Mesh;
use crate::workload::WorkloadPolicies;

pub use question::{MAX_QUESTION_BYTES, Malformed, Question, QuestionError, Reading};
pub use workload::{EvalWorkload, MAX_ALIASES, MAX_LABELS, WorkloadError, assumed_workload};

/// The policies of one workload, ready to answer questions.
#[derive(Clone, Debug)]
pub struct Evaluator {
    policies: WorkloadPolicies,
    mesh: Mesh,
    reading: Reading,
}

impl Evaluator {
    /// An evaluator. `reading` says which form of a path the policies look at.
    pub fn new(policies: WorkloadPolicies, mesh: Mesh, reading: Reading) -> Self {
        Self { policies, mesh, reading }
    }

    /// Reads a question and answers it. `now` is the moment, unless the question names another.
    pub fn answer(&self, line: &[u8], now: SystemTime) -> Result<Answer, QuestionError> {
        let question = Question::parse(line)?;
        let decided = question
            .put(&self.mesh, self.reading, now, |connection, traffic| self.decide(connection, traffic));
        Ok(match decided {
            Ok(decision) => Answer::of(&decision),
            Err(malformed) => Answer::malformed(malformed),
        })
    }

    fn decide(&self, connection: &Connection<'_>, traffic: &Traffic<'_>) -> Decision {
        match traffic {
            Traffic::Tcp | Traffic::HttpConnection => self.policies.decide_tcp(connection),
            Traffic::HttpRequest(request) => self.policies.decide_http(connection, request),
        }
    }
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// The rule that decides, as `policy/rule`.
    pub rule: Option<String>,
    /// Why: the reason of a denial, `allow_matched`, or `default_allow` where no rule had to say so.
    pub reason: &'static str,
    /// The file of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// The line of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What is wrong with a malformed request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What would be refused once the policies in shadow enforce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowAnswer>,
}

/// A denial that is not enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowAnswer {
    /// The reason.
    pub reason: &'static str,
    /// The deny rule, as `policy/rule`.
    pub rule: Option<String>,
    /// The file of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// The line of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl Answer {
    /// The answer that a decision is.
    pub fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Allow(Allowed { rule, shadow }) => {
                let reason = if rule.is_some() { ALLOWED_BY_RULE } else { ALLOWED_BY_DEFAULT };
                let shadow = shadow.as_ref().map(ShadowAnswer::of);
                Self { shadow, ..Self::by("allow", reason, rule.as_ref()) }
            }
            Decision::Deny(Denial { reason, rule, .. }) => Self::by("deny", reason.as_str(), rule.as_ref()),
        }
    }

    fn malformed(malformed: Malformed) -> Self {
        let reason = crate::DenyReason::MalformedRequest.as_str();
        Self { detail: Some(malformed.to_string()), ..Self::by("deny", reason, None) }
    }

    fn by(decision: &'static str, reason: &'static str, rule: Option<&RuleRef>) -> Self {
        Self {
            decision,
            rule: rule.map(spelled),
            reason,
            file: rule.map(|rule| Arc::clone(&rule.file)),
            line: rule.map(|rule| rule.line),
            detail: None,
            shadow: None,
        }
    }
}

impl ShadowAnswer {
    fn of(denial: &Denial) -> Self {
        let rule = denial.rule.as_ref();
        Self {
            reason: denial.reason.as_str(),
            rule: rule.map(spelled),
            file: rule.map(|rule| Arc::clone(&rule.file)),
            line: rule.map(|rule| rule.line),
        }
    }
}

fn spelled(rule: &RuleRef) -> String {
    format!("{}/{}", rule.policy, rule.rule)
}

const ALLOWED_BY_RULE: &str = "allow_matched";
const ALLOWED_BY_DEFAULT: &str = "default_allow";

#[cfg(test)]
mod tests;
