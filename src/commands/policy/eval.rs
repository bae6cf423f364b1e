//! `policy eval`: requests from a script, a decision for each.
//!
//! Nothing is skipped: a line that is no request has a line of its own in the answer and makes the command exit 2.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use policy::{Answer, Evaluator, MAX_QUESTION_BYTES, QuestionError};
use serde::Serialize;

use super::asked;
use super::lines::{self, Next};
use super::words::counted;
use crate::cli::policy::PolicyEval;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::Format;

pub(super) fn run(args: &PolicyEval) -> Result<Exit, Failure> {
    let asked = asked::load(&args.policies, args.workload.as_deref(), args.compat)?;
    let policies = asked.set().protecting(&asked.workload);
    let evaluator = Evaluator::new(policies, asked.set().mesh(), asked.reading);
    let mut requests = requests(&args.requests)?;
    let mut to = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let tally = answer_all(&evaluator, &mut requests, &mut to, args.format)?;
    to.flush()?;
    if tally.flawed == 0 {
        return Ok(Exit::Done);
    }
    let told = format!("{} of {} cannot be read", tally.flawed, counted(tally.lines, "request", "requests"));
    Err(Failure::because(Exit::Unacceptable, told))
}

fn requests(path: &Path) -> Result<BufReader<Box<dyn Read>>, Failure> {
    if path == Path::new("-") {
        return Ok(BufReader::with_capacity(BUFFER, Box::new(io::stdin())));
    }
    let file = File::open(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .or_exit(Exit::Unacceptable)?;
    Ok(BufReader::with_capacity(BUFFER, Box::new(file)))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    lines: usize,
    flawed: usize,
}

fn answer_all(
    evaluator: &Evaluator,
    from: &mut BufReader<impl Read>,
    to: &mut impl Write,
    format: Format,
) -> Result<Tally, Failure> {
    // One moment for all, so that the same requests have the same answers.
    let now = SystemTime::now();
    let (mut line, mut tally) = (Vec::new(), Tally::default());
    if format == Format::Json {
        write!(to, "{{\"schema\":\"{DECISIONS}\",\"items\":[")?;
    }
    loop {
        let answer = match lines::next(from, &mut line, MAX_QUESTION_BYTES)
            .context("cannot read the requests")
            .or_exit(Exit::Failed)?
        {
            Next::Line => evaluator.answer(&line, now),
            Next::TooLong => Err(QuestionError::TooLong),
            Next::End => break,
        };
        tally.lines += 1;
        tally.flawed += usize::from(answer.is_err());
        print(to, format, tally.lines, &answer)?;
        // Who asks one request at a time waits for its answer.
        if from.buffer().is_empty() {
            to.flush()?;
        }
    }
    if format == Format::Json {
        writeln!(to, "]}}")?;
    }
    Ok(tally)
}

fn print(
    to: &mut impl Write,
    format: Format,
    number: usize,
    answer: &Result<Answer, QuestionError>,
) -> io::Result<()> {
    if format == Format::Table {
        return match answer {
            Ok(answer) => {
                let rule = answer.rule.as_deref().unwrap_or("-");
                writeln!(
                    to,
                    "{number:>6}  {:5}  {:18}  {rule}{}",
                    answer.decision,
                    answer.reason,
                    place(answer)
                )
            }
            Err(error) => writeln!(to, "{number:>6}  error  {error}"),
        };
    }
    if format == Format::Json && number > 1 {
        write!(to, ",")?;
    }
    match answer {
        Ok(answer) => serde_json::to_writer(&mut *to, answer)?,
        Err(error) => serde_json::to_writer(&mut *to, &Flawed { line: number, error: error.to_string() })?,
    }
    match format {
        Format::Jsonl => writeln!(to),
        Format::Json | Format::Table => Ok(()),
    }
}

fn place(answer: &Answer) -> String {
    match (&answer.file, answer.line) {
        (Some(file), Some(line)) => format!(" ({}:{line})", audit::shown(file)),
        _ => String::new(),
    }
}

/// What stands in place of a decision.
#[derive(Serialize)]
struct Flawed {
    line: usize,
    error: String,
}

/// The JSON shape of all decisions together.
const DECISIONS: &str = "vouchsafe/policy-decisions/v1";

const BUFFER: usize = 256 * 1024;
