//! The test cases written in policy files, tried on the whole set.

use std::collections::HashMap;

use identity::SpiffeId;
use serde::Serialize;

use crate::access::{Connection, PeerIdentity, Request, RequestKind, Token, Traffic};
use crate::decision::{Decision, RuleRef};
use crate::document::{Effect, Policy, TestCase, TestKind, TestPeer, TestRequest, TestToken};
use crate::set::PolicySet;
use crate::strict::Span;
use crate::workload::WorkloadPolicies;

/// What became of every test case of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// One entry for each case and workload, in the order of the files.
    pub cases: Vec<TriedCase>,
    /// One entry for each rule, in the order of the files.
    pub coverage: Vec<RuleCoverage>,
}

/// How often a rule decided a test case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleCoverage {
    /// The rule.
    pub rule: RuleRef,
    /// `allow` or `deny`.
    pub effect: &'static str,
    /// How many cases it decided. A rule that is never enforced decides those in whose record it would stand.
    pub tests: usize,
}

impl TestReport {
    /// How many cases failed.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| case.outcome != Outcome::Passed).count()
    }

    /// Whether every case passed.
    pub fn passed(&self) -> bool {
        self.failed() == 0
    }

    /// The rules that decided no case.
    pub fn uncovered(&self) -> impl Iterator<Item = &RuleCoverage> {
        self.coverage.iter().filter(|rule| rule.tests == 0)
    }
}

/// A test case, tried on one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TriedCase {
    /// The policy in which it is written.
    pub policy: String,
    /// The file in which it is written.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The access, in words.
    pub description: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The rule that decided it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    #[serde(skip)]
    pub(crate) span: Span,
}

/// What became of a test case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed {
        /// What happened.
        message: String,
        /// What may help.
        #[serde(skip_serializing_if = "Option::is_none")]
        cure: Option<String>,
    },
}

impl PolicySet {
    /// Tries every test case. A set that was compiled passes them all: `compile` refuses one that does not.
    pub fn run_tests(&self) -> TestReport {
        let cases = run(self);
        let coverage = coverage(self, &cases);
        TestReport { cases, coverage }
    }
}

fn coverage(set: &PolicySet, cases: &[TriedCase]) -> Vec<RuleCoverage> {
    let mut decided: HashMap<(&str, &str), usize> = HashMap::new();
    for rule in cases.iter().filter_map(|case| case.rule.as_ref()) {
        let count = decided.entry((&rule.policy, &rule.rule)).or_default();
        *count = count.saturating_add(1);
    }
    let rules = set.loaded().iter().flat_map(|policy| &policy.rules);
    let mut coverage: Vec<RuleCoverage> = rules
        .map(|rule| RuleCoverage {
            rule: rule.reference.clone(),
            effect: match rule.effect {
                Effect::Allow => "allow",
                Effect::Deny => "deny",
            },
            tests: decided
                .get(&(&*rule.reference.policy, &*rule.reference.rule))
                .copied()
                .unwrap_or_default(),
        })
        .collect();
    coverage.sort_by(|one, other| place(&one.rule).cmp(&place(&other.rule)));
    coverage
}

fn place(rule: &RuleRef) -> (&str, u32) {
    (&rule.file, rule.line)
}

// A rule in shadow decides nothing; that it would is what a test of it can show.
fn decided_by(decision: &Decision) -> Option<RuleRef> {
    match decision {
        Decision::Allow(allowed) => {
            let shadow = allowed.shadow.as_ref().and_then(|denial| denial.rule.clone());
            shadow.or_else(|| allowed.rule.clone())
        }
        Decision::Deny(denial) => denial.rule.clone(),
    }
}

pub(crate) fn run(set: &PolicySet) -> Vec<TriedCase> {
    let mut workloads: HashMap<&SpiffeId, WorkloadPolicies> = HashMap::new();
    let mut tried = Vec::new();
    for policy in set.loaded() {
        for case in &policy.tests {
            for workload in &case.to {
                let policies = workloads.entry(workload).or_insert_with(|| set.for_workload(workload));
                tried.push(run_one(policy, case, workload, policies));
            }
        }
    }
    tried
}

fn run_one(policy: &Policy, case: &TestCase, workload: &SpiffeId, policies: &WorkloadPolicies) -> TriedCase {
    let peer = match &case.from {
        TestPeer::Authenticated(id) => PeerIdentity::Authenticated(id),
        TestPeer::Unauthenticated => PeerIdentity::Unauthenticated,
    };
    let connection =
        Connection { sni: case.sni.as_deref(), ..Connection::new(peer, case.source, case.port, case.at) };
    let request = case.request.as_ref().map(supposed);
    let decision = match &request {
        Some(request) => policies.decide_http(&connection, request),
        None => policies.decide_tcp(&connection),
    };
    let traffic = request.map_or(Traffic::Tcp, Traffic::HttpRequest);
    let description = describe(case, workload);
    let outcome = match mismatch(policy, case, &decision) {
        None => Outcome::Passed,
        Some(what) => {
            let near = policies.nearest(&connection, &traffic).into_iter().next();
            let cure = match case.expect {
                Effect::Allow => near.map(|near| format!("nearest: {near}")),
                Effect::Deny => None,
            };
            Outcome::Failed { message: format!("test failed: {description} {what}"), cure }
        }
    };
    TriedCase {
        policy: policy.name().to_owned(),
        file: policy.file().to_owned(),
        line: case.span.start.line,
        description,
        outcome,
        rule: decided_by(&decision),
        span: case.span,
    }
}

fn supposed(request: &TestRequest) -> Request<'_> {
    let kind = match &request.kind {
        TestKind::Plain => RequestKind::Plain,
        TestKind::Connect { port } => RequestKind::Connect { port: *port },
        TestKind::Upgrade { protocol } => RequestKind::Upgrade { protocol },
    };
    let token = match &request.token {
        TestToken::Absent => Token::Absent,
        TestToken::Invalid => Token::Invalid,
        TestToken::Verified(claims) => Token::Verified(claims),
    };
    Request {
        kind,
        token,
        headers: &request.headers,
        ..Request::new(&request.method, request.host.as_ref(), &request.path)
    }
}

fn mismatch(policy: &Policy, case: &TestCase, decision: &Decision) -> Option<String> {
    let (effect, rule, word) = match decision {
        Decision::Allow(allowed) => (Effect::Allow, allowed.rule.as_ref(), "allowed".to_owned()),
        Decision::Deny(denial) => (Effect::Deny, denial.rule.as_ref(), format!("denied ({})", denial.reason)),
    };
    let by = rule.map_or_else(|| "no rule".to_owned(), |rule| rule.to_string());
    if effect != case.expect {
        let expected = match case.expect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        return Some(format!("is {word} by {by}, expected {expected}"));
    }
    match &case.by {
        Some(wanted) if !rule.is_some_and(|rule| is_named(policy, rule, wanted)) => {
            Some(format!("is {word} by {by}, expected by \"{wanted}\""))
        }
        Some(_) | None => None,
    }
}

fn is_named(policy: &Policy, rule: &RuleRef, wanted: &str) -> bool {
    match wanted.split_once('/') {
        Some((other, name)) => *rule.policy == *other && *rule.rule == *name,
        None => *rule.policy == *policy.name && *rule.rule == *wanted,
    }
}

fn describe(case: &TestCase, workload: &SpiffeId) -> String {
    let from = match &case.from {
        TestPeer::Authenticated(id) => id.as_str(),
        TestPeer::Unauthenticated => "unauthenticated",
    };
    let sni = case.sni.as_ref().map(|name| format!(" (sni {name})")).unwrap_or_default();
    match &case.request {
        None => format!("tcp {}{sni} from {from} to {workload}", case.port),
        Some(request) => {
            format!("{}{sni} from {from} to {workload}", asked(request, case.port))
        }
    }
}

fn asked(request: &TestRequest, port: u16) -> String {
    let mut words = match (&request.kind, &request.host) {
        (TestKind::Connect { .. }, Some(host)) => format!("CONNECT {port} {host}"),
        (TestKind::Upgrade { protocol }, _) => format!("upgrade {port} {protocol} {}", request.path),
        (TestKind::Plain | TestKind::Connect { .. }, _) => {
            format!("{} {port} {}", request.method, request.path)
        }
    };
    if let (Some(host), TestKind::Plain | TestKind::Upgrade { .. }) = (&request.host, &request.kind) {
        words.push_str(&format!(" (host {host})"));
    }
    for (name, value) in &request.headers {
        words.push_str(&format!(" ({name}: {value})"));
    }
    match &request.token {
        TestToken::Absent => {}
        TestToken::Invalid => words.push_str(" (jwt invalid)"),
        TestToken::Verified(claims) => {
            let subject = claims.subject().map(|subject| format!(", {subject}")).unwrap_or_default();
            words.push_str(&format!(" (jwt of {}{subject})", claims.issuer().unwrap_or_default()));
        }
    }
    words
}

#[cfg(test)]
mod tests;
