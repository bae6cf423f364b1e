//! `policy replay`: which past calls would other policies have decided otherwise, and which can the log not tell?

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use identity::SpiffeId;
use policy::{Answer, Options, PolicySet, WorkloadPolicies};
use serde::Serialize;

use super::files;
use super::past::{self, Outcome, PastAsked, PastCall, Was};
use super::words::counted;
use crate::cli::policy::PolicyReplay;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

pub(super) fn run(args: &PolicyReplay) -> Result<Exit, Failure> {
    let set = files::compile(&args.paths, &Options::default()).or_exit(Exit::Unacceptable)?.set;
    let mut replayed = Replayed::new(&set, args.at.map(|at| at.0));
    past::each_call(&args.log.files, args.log.since, |call| replayed.take(&call))?;
    let report = replayed.report();
    print(&mut output::stdout(), args.output.format, &report)?;
    Ok(if report.changed.is_empty() && report.undecidable.is_empty() { Exit::Done } else { Exit::Found })
}

/// What calls come to under the new policies.
struct Replayed<'a> {
    set: &'a PolicySet,
    at: Option<SystemTime>,
    workloads: BTreeMap<SpiffeId, WorkloadPolicies>,
    calls: u64,
    same: u64,
    changed: BTreeMap<Key, Tally>,
    undecidable: BTreeMap<Key, Tally>,
    left_out: u64,
}

/// Calls that are told together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    from: String,
    to: String,
    port: u16,
    asked: String,
    was: Was,
    would_be: String,
}

#[derive(Debug, Clone)]
struct Tally {
    calls: u64,
    place: String,
    answer: Option<Answer>,
}

impl<'a> Replayed<'a> {
    fn new(set: &'a PolicySet, at: Option<SystemTime>) -> Self {
        Self {
            set,
            at,
            workloads: BTreeMap::new(),
            calls: 0,
            same: 0,
            changed: BTreeMap::new(),
            undecidable: BTreeMap::new(),
            left_out: 0,
        }
    }

    fn take(&mut self, call: &PastCall) {
        self.calls = self.calls.saturating_add(call.count);
        if !self.workloads.contains_key(&call.to) {
            if self.workloads.len() >= MAX_KINDS {
                self.left_out = self.left_out.saturating_add(call.count);
                return;
            }
            self.workloads.insert(call.to.clone(), self.set.for_workload(&call.to));
        }
        let Some(policies) = self.workloads.get(&call.to) else { return };
        let outcome = call.decide(policies, self.at);
        let (tallies, would_be, answer) = match &outcome {
            Outcome::Decided(decision) => {
                let answer = Answer::of(decision);
                if unchanged(call.was, &answer) {
                    self.same = self.same.saturating_add(call.count);
                    return;
                }
                (&mut self.changed, in_words(&answer), Some(answer))
            }
            Outcome::Undecidable(why) => (&mut self.undecidable, why.clone(), None),
        };
        let key = Key {
            from: call.from.as_ref().map_or("unauthenticated", SpiffeId::as_str).to_owned(),
            to: call.to.to_string(),
            port: call.port,
            asked: asked_in_words(&call.asked),
            was: call.was,
            would_be,
        };
        if tallies.len() >= MAX_KINDS && !tallies.contains_key(&key) {
            self.left_out = self.left_out.saturating_add(call.count);
            return;
        }
        let fresh = Tally { calls: 0, place: call.place.clone(), answer };
        let tally = tallies.entry(key).or_insert(fresh);
        tally.calls = tally.calls.saturating_add(call.count);
    }

    fn report(self) -> Report {
        let rows = |tallies: BTreeMap<Key, Tally>| tallies.into_iter().map(Replay::new).collect();
        let undecidable = u64::from(self.left_out > 0);
        let mut report = Report {
            schema: SCHEMA,
            generation: self.set.generation().to_owned(),
            calls: self.calls,
            same: self.same,
            left_out: self.left_out,
            changed: rows(self.changed),
            undecidable: rows(self.undecidable),
        };
        if undecidable > 0 {
            report.undecidable.push(Replay::left_out(self.left_out));
        }
        report
    }
}

// What a policy in shadow would deny has passed, so it is the same if it passes.
fn unchanged(was: Was, answer: &Answer) -> bool {
    match was {
        Was::Allowed => answer.decision == "allow" && answer.shadow.is_none(),
        Was::Denied => answer.decision == "deny",
        Was::WouldDeny => answer.decision == "allow" && answer.shadow.is_some(),
    }
}

fn in_words(answer: &Answer) -> String {
    let by = match (&answer.rule, &answer.file, answer.line) {
        (Some(rule), Some(file), Some(line)) => format!(" by {rule} ({file}:{line})"),
        _ => String::new(),
    };
    match &answer.shadow {
        Some(shadow) => format!("allow{by}, would be denied in force: {}", shadow.reason),
        None => format!("{} ({}){by}", answer.decision, answer.reason),
    }
}

fn asked_in_words(asked: &PastAsked) -> String {
    match asked {
        PastAsked::Connection => "connection".to_owned(),
        PastAsked::Requests => "connection with requests".to_owned(),
        PastAsked::Request { method, host, path } => match host {
            Some(host) => format!("{method} {path} (host {})", host.as_str()),
            None => format!("{method} {path}"),
        },
        PastAsked::Unreadable => "request".to_owned(),
    }
}

fn print(to: &mut impl Write, format: Format, report: &Report) -> io::Result<()> {
    match format {
        Format::Json => output::json(to, report),
        Format::Jsonl => {
            for (kind, replay) in report.rows() {
                serde_json::to_writer(&mut *to, &Line { schema: LINE, kind, replay })?;
                writeln!(to)?;
            }
            Ok(())
        }
        Format::Table => table(to, report),
    }
}

fn table(to: &mut impl Write, report: &Report) -> io::Result<()> {
    for (title, rows) in
        [("Decided otherwise:", &report.changed), ("The log cannot decide:", &report.undecidable)]
    {
        if rows.is_empty() {
            continue;
        }
        writeln!(to, "{title}")?;
        for row in rows {
            let what = format!("{} -> {} port {}: {}", row.from, row.to, row.port, row.asked);
            writeln!(to, "  {} ({}, {})", audit::shown(&what), calls(row.calls), audit::shown(&row.place))?;
            writeln!(to, "    was {}, now {}", row.was, audit::shown(&row.would_be))?;
        }
        writeln!(to)?;
    }
    let sum = |rows: &[Replay]| rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.calls));
    writeln!(
        to,
        "{} on record: {} the same, {} otherwise, {} undecidable",
        calls(report.calls),
        report.same,
        sum(&report.changed),
        sum(&report.undecidable)
    )
}

fn calls(count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), "call", "calls")
}

/// What replaying came to.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    generation: String,
    calls: u64,
    same: u64,
    left_out: u64,
    changed: Vec<Replay>,
    undecidable: Vec<Replay>,
}

impl Report {
    fn rows(&self) -> impl Iterator<Item = (&'static str, &Replay)> {
        let changed = self.changed.iter().map(|row| ("changed", row));
        changed.chain(self.undecidable.iter().map(|row| ("undecidable", row)))
    }
}

/// Calls of one kind.
#[derive(Debug, Serialize)]
struct Replay {
    from: String,
    to: String,
    port: u16,
    asked: String,
    was: &'static str,
    would_be: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Answer>,
    calls: u64,
    /// The first record of them.
    place: String,
}

impl Replay {
    fn new((key, tally): (Key, Tally)) -> Self {
        Self {
            from: key.from,
            to: key.to,
            port: key.port,
            asked: key.asked,
            was: match key.was {
                Was::Allowed => "allowed",
                Was::Denied => "denied",
                Was::WouldDeny => "allowed, with a shadow denial",
            },
            would_be: key.would_be,
            decision: tally.answer,
            calls: tally.calls,
            place: tally.place,
        }
    }

    fn left_out(calls: u64) -> Self {
        Self {
            from: "others".to_owned(),
            to: "others".to_owned(),
            port: 0,
            asked: "other calls".to_owned(),
            was: "recorded",
            would_be: format!("there are more than {MAX_KINDS} kinds of calls: look at a part of the log"),
            decision: None,
            calls,
            place: String::new(),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    replay: &'a Replay,
}

const SCHEMA: &str = "vouchsafe/policy-replay/v1";
const LINE: &str = "vouchsafe/policy-replayed-call/v1";

/// Most kinds of calls told apart.
const MAX_KINDS: usize = 100_000;
