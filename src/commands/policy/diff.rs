//! `policy diff`: every access that a change opens or closes, each with a request that shows it.
//!
//! What could not be settled counts as opened: a gate in front of a merge must not be passed by being hard to answer.

use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use policy::analyse::{self, Change, Diff, Instant, Terms};
use policy::{Checks, Options, PolicySet};
use serde::Serialize;

use super::files;
use super::words::counted;
use crate::cli::moment::Moment;
use crate::cli::policy::PolicyDiff;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

pub(super) fn run(args: &PolicyDiff) -> Result<Exit, Failure> {
    let (old, new) = (load(&args.old, Checks::Proved)?, load(&args.new, Checks::Proved)?);
    let mut diff = analyse::diff(&old, &new, terms(args.at.as_ref()));
    let exit = if diff.only_narrows() { Exit::Done } else { Exit::Found };
    let verdict = verdict(&diff);
    if args.only_narrows {
        diff.lost.clear();
    }
    print(&mut output::stdout(), args.output.format, &diff, &verdict)?;
    if let Err(problems) = files::compile(std::slice::from_ref(&args.new), &Options::default()) {
        let (path, problems) = (args.new.display().to_string(), problems.to_string());
        let (path, problems) = (audit::shown(&path), output::shown_lines(&problems));
        writeln!(output::stderr(), "warning: {path} would not be loaded:\n{problems}")?;
    }
    Ok(exit)
}

// What a set lets through can be told though its own tests and guarantees speak against it: then it is asked most.
fn load(path: &Path, checks: Checks) -> Result<PolicySet, Failure> {
    let options = Options { checks, ..Options::default() };
    let compiled = files::compile(&[path.to_owned()], &options).or_exit(Exit::Unacceptable)?;
    Ok(compiled.set)
}

/// As of a moment, or from now on: what a policy in shadow lets pass until it enforces is gained as well.
fn terms(at: Option<&Moment>) -> Terms {
    let moment = at.map_or_else(|| Instant::From(SystemTime::now()), |at| Instant::At(at.0));
    Terms { moment, ..Terms::default() }
}

fn print(to: &mut impl Write, format: Format, diff: &Diff, verdict: &str) -> io::Result<()> {
    match format {
        Format::Json => output::json(to, &Tagged { schema: SCHEMA, only_narrows: diff.only_narrows(), diff }),
        Format::Jsonl => {
            for (kind, changes) in [("gained", &diff.gained), ("lost", &diff.lost)] {
                for change in changes {
                    serde_json::to_writer(&mut *to, &Line { schema: LINE, kind, change })?;
                    writeln!(to)?;
                }
            }
            for unsettled in &diff.unsettled {
                serde_json::to_writer(&mut *to, &Open { schema: LINE, kind: "unsettled", unsettled })?;
                writeln!(to)?;
            }
            Ok(())
        }
        Format::Table => table(to, diff, verdict),
    }
}

fn table(to: &mut impl Write, diff: &Diff, verdict: &str) -> io::Result<()> {
    for (sign, changes) in [('+', &diff.gained), ('-', &diff.lost)] {
        for change in changes {
            let text = change.to_string();
            for (number, line) in text.lines().enumerate() {
                let lead = if number == 0 { sign } else { ' ' };
                writeln!(to, "{lead} {}", audit::shown(line))?;
            }
        }
    }
    for unsettled in &diff.unsettled {
        writeln!(to, "? {}", audit::shown(&unsettled.to_string()))?;
    }
    if diff.left_out > 0 {
        writeln!(to, "and {} more", diff.left_out)?;
    }
    writeln!(to, "{verdict}")
}

fn verdict(diff: &Diff) -> String {
    if diff.is_equivalent() {
        return "nothing is gained and nothing lost: both mean the same".to_owned();
    }
    let lost = counted(diff.lost.len(), "kind of access", "kinds of access");
    if diff.only_narrows() {
        return format!("nothing is gained, {lost} lost: the change only narrows");
    }
    let gained = counted(diff.gained.len(), "kind of access", "kinds of access");
    let open = match diff.unsettled.len() {
        0 => String::new(),
        count => format!(", {} not settled", counted(count, "question", "questions")),
    };
    let widens = if diff.gained.is_empty() { "may widen" } else { "widens" };
    format!("{gained} gained, {lost} lost{open}: the change {widens}")
}

#[derive(Serialize)]
struct Tagged<'a> {
    schema: &'static str,
    only_narrows: bool,
    #[serde(flatten)]
    diff: &'a Diff,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    change: &'a Change,
}

#[derive(Serialize)]
struct Open<'a> {
    schema: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    unsettled: &'a analyse::Unsettled,
}

const SCHEMA: &str = "vouchsafe/policy-diff/v1";
const LINE: &str = "vouchsafe/policy-change/v1";
