//! `policy learn`: a patch for review from what an audit log says was refused.

use std::collections::BTreeMap;
use std::io::{self, Write};

use identity::SpiffeId;
use policy::strict::Source;
use policy::{Decision, Learned, Lessons, Options, PolicySet, RefusedCall, RefusedRequest, WorkloadPolicies};
use serde::Serialize;

use super::files;
use super::past::{self, Outcome, PastAsked, PastCall, Was};
use crate::cli::policy::PolicyLearn;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

pub(super) fn run(args: &PolicyLearn) -> Result<Exit, Failure> {
    let in_force = if args.policies.is_empty() {
        None
    } else {
        Some(files::compile(&args.policies, &Options::default()).or_exit(Exit::Unacceptable)?.set)
    };
    let mut student =
        Student { in_force: in_force.as_ref(), workloads: BTreeMap::new(), lessons: Lessons::default() };
    past::each_call(&args.log.files, args.log.since, |call| student.take(call))?;
    let learned = student.lessons.propose();
    check(&learned)?;
    print(&mut output::stdout(), args.output.format, &learned)?;
    Ok(Exit::Done)
}

struct Student<'a> {
    in_force: Option<&'a PolicySet>,
    workloads: BTreeMap<SpiffeId, WorkloadPolicies>,
    lessons: Lessons,
}

impl Student<'_> {
    fn take(&mut self, call: PastCall) {
        match self.obstacle(&call) {
            Some(Obstacle::Known) => {}
            Some(Obstacle::Told(why)) => self.lessons.leave_out(why, call.count),
            None => self.lessons.take(refused(call)),
        }
    }

    /// Why nothing is to be learned of a call.
    fn obstacle(&mut self, call: &PastCall) -> Option<Obstacle> {
        if call.was == Was::Allowed {
            return Some(Obstacle::Known);
        }
        let told = |why| Some(Obstacle::Told(why));
        match call.reason.as_deref() {
            Some("no_allow_matched" | "no_policy") => {}
            Some("explicit_deny") => return told("a deny rule refused them"),
            Some("unauthenticated") => return told("the caller proved no identity"),
            Some("jwt_invalid") => return told("the token was invalid"),
            Some(_) | None => return told("policies did not refuse them"),
        }
        if call.from.is_none() {
            return told("the caller proved no identity");
        }
        if matches!(call.asked, PastAsked::Unreadable | PastAsked::Requests) {
            return told("the record keeps no request");
        }
        if !call.alike {
            return told("the record stands for several requests of which it keeps one, or was cut");
        }
        self.under_policies(call)
    }

    // What the policies in force make of it by now.
    fn under_policies(&mut self, call: &PastCall) -> Option<Obstacle> {
        let set = self.in_force?;
        let policies = self.workloads.entry(call.to.clone()).or_insert_with(|| set.for_workload(&call.to));
        match call.decide(policies, None) {
            Outcome::Decided(Decision::Allow(_)) => Some(Obstacle::Known),
            Outcome::Decided(Decision::Deny(denial)) if denial.rule.is_some() => {
                Some(Obstacle::Told("a deny rule refuses them"))
            }
            Outcome::Decided(Decision::Deny(_)) => None,
            Outcome::Undecidable(_) => {
                Some(Obstacle::Told("the policies look at what the log does not keep"))
            }
        }
    }
}

enum Obstacle {
    /// It passes anyway.
    Known,
    /// It is not to be allowed because of a log, and why.
    Told(&'static str),
}

fn refused(call: PastCall) -> RefusedCall {
    let request = match call.asked {
        PastAsked::Request { method, host, path } => {
            let host = host.map(|host| host.as_str().to_owned());
            Some(RefusedRequest { method, host, path: path.as_str().to_owned() })
        }
        PastAsked::Connection | PastAsked::Requests | PastAsked::Unreadable => None,
    };
    RefusedCall {
        // Calls without an identity were left out before.
        from: call.from.unwrap_or_else(|| call.to.clone()),
        to: call.to,
        port: call.port,
        request,
        count: call.count,
    }
}

// What is proposed must be what a sidecar would load.
fn check(learned: &Learned) -> Result<(), Failure> {
    let file =
        |proposal: &policy::Proposal| Source::new(format!("{}.yaml", proposal.name), proposal.to_string());
    let files: Vec<Source> = learned.proposals.iter().map(file).collect();
    policy::compile(&files).or_exit(Exit::Failed).map(drop)
}

fn print(to: &mut impl Write, format: Format, learned: &Learned) -> io::Result<()> {
    let proposals: Vec<Proposed<'_>> = learned.proposals.iter().map(Proposed::new).collect();
    match format {
        Format::Json => {
            output::json(to, &Document { schema: SCHEMA, proposals, left_out: &learned.left_out })
        }
        Format::Jsonl => proposals.iter().try_for_each(|proposal| {
            serde_json::to_writer(&mut *to, &Line { schema: LINE, proposal })?;
            writeln!(to)
        }),
        Format::Table => {
            for (number, proposal) in learned.proposals.iter().enumerate() {
                // Several files come one after the other, each of which begins with a line of its own.
                if number > 0 {
                    writeln!(to, "\n# --- {}.yaml ---", proposal.name)?;
                }
                write!(to, "{proposal}")?;
            }
            if learned.proposals.is_empty() {
                writeln!(to, "# Nothing to propose.")?;
            }
            learned
                .left_out
                .iter()
                .try_for_each(|(why, calls)| writeln!(to, "# Nothing is proposed for {calls} calls: {why}."))
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    proposals: Vec<Proposed<'a>>,
    left_out: &'a BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    #[serde(flatten)]
    proposal: &'a Proposed<'a>,
}

#[derive(Serialize)]
struct Proposed<'a> {
    name: &'a str,
    protects: String,
    calls: u64,
    rules: Vec<Rule<'a>>,
    text: String,
}

#[derive(Serialize)]
struct Rule<'a> {
    name: &'a str,
    calls: u64,
    reasons: &'a [String],
}

impl<'a> Proposed<'a> {
    fn new(proposal: &'a policy::Proposal) -> Self {
        let rule = |rule: &'a policy::ProposedRule| Rule {
            name: &rule.name,
            calls: rule.calls,
            reasons: &rule.reasons,
        };
        Self {
            name: &proposal.name,
            protects: proposal.protects.to_string(),
            calls: proposal.rules.iter().fold(0, |sum, rule| rule.calls.saturating_add(sum)),
            rules: proposal.rules.iter().map(rule).collect(),
            text: proposal.to_string(),
        }
    }
}

const SCHEMA: &str = "vouchsafe/policy-lessons/v1";
const LINE: &str = "vouchsafe/policy-lesson/v1";
