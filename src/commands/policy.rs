//! `vouchsafe policy`: what policy files say, found out offline and with the sidecar's own evaluator.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use anyhow::Context as _;
use identity::{ParseIdError, SpiffeId};
use policy::strict::{Problems, Source};
use policy::{
    CanonicalHost, CanonicalPath, Connection, Decision, Explanation, Outcome, PeerIdentity, PolicySet,
    Request, Traffic, TriedCase,
};
use serde::Serialize;

use super::config;
use crate::cli::policy::{PolicyCheck, PolicyCommand, PolicyExplain, PolicyTest};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format, Row};

/// Runs what the command line asks for.
pub(crate) fn run(command: PolicyCommand) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Check(args) => check(&args),
        PolicyCommand::Test(args) => test(&args),
        PolicyCommand::Status(args) => super::policy_status::run(&args),
        PolicyCommand::Explain(args) => explain(&args),
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Somebody with this identity.
    Id(SpiffeId),
    /// Somebody without one.
    Unauthenticated,
}

impl FromStr for Caller {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unauthenticated" { Ok(Self::Unauthenticated) } else { text.parse().map(Self::Id) }
    }
}

fn check(args: &PolicyCheck) -> Result<Exit, Failure> {
    let format = args.output.format;
    let sources = match config::sources(&args.paths) {
        Ok(sources) => sources,
        Err(problems) => return config::report(format, "", Err(problems)),
    };
    let set = match policy::compile(&sources) {
        Ok(set) => set,
        Err(problems) => return config::report(format, "", Err(problems)),
    };
    let rows: Vec<PolicyRow> = set.policies().map(PolicyRow::new).collect();
    accepted(&mut output::stdout(), format, &rows, generation(&sources, &args.paths))?;
    Ok(Exit::Done)
}

/// Prints what was accepted, with the generation that a sidecar shows for it.
fn accepted(
    to: &mut impl Write,
    format: Format,
    rows: &[PolicyRow],
    generation: Option<String>,
) -> io::Result<()> {
    match format {
        Format::Table => {
            output::list(to, format, rows)?;
            let tests = rows.iter().map(|row| row.tests).sum();
            let (policies, tests) =
                (counted(rows.len(), "policy", "policies"), counted(tests, "test", "tests"));
            writeln!(to, "\n{policies} accepted, {tests} passed")?;
            generation.map_or(Ok(()), |generation| writeln!(to, "generation {generation}"))
        }
        Format::Json => output::json(to, &Accepted { schema: PolicyRow::SCHEMA, generation, items: rows }),
        Format::Jsonl => output::list(to, format, rows),
    }
}

/// A number with the word for what it counts.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn test(args: &PolicyTest) -> Result<Exit, Failure> {
    let format = args.output.format;
    let set = match compile(&args.paths) {
        Ok(set) => set,
        Err(problems) if problems.iter().all(|problem| problem.message.starts_with(FAILED_TEST)) => {
            return failed(format, problems);
        }
        Err(problems) => return config::report(format, "", Err(problems)),
    };
    let cases: Vec<CaseRow> = set.run_tests().cases.into_iter().map(CaseRow).collect();
    let mut to = output::stdout();
    output::list(&mut to, format, &cases)?;
    if format == Format::Table {
        writeln!(to, "\n{} passed", counted(cases.len(), "test", "tests"))?;
    }
    Ok(Exit::Done)
}

/// Tells of failed tests as `check` does of problems, with the exit code of a comparison.
fn failed(format: Format, problems: Problems) -> Result<Exit, Failure> {
    match config::report(format, "", Err(problems.clone())) {
        Ok(_) => Ok(Exit::Found),
        Err(_) => Err(Failure::new(Exit::Found, problems)),
    }
}

fn explain(args: &PolicyExplain) -> Result<Exit, Failure> {
    let sources = config::sources(&args.policies).or_exit(Exit::Unacceptable)?;
    let set = policy::compile(&sources).or_exit(Exit::Unacceptable)?;
    let mut explanation = explanation(&set, args)?;
    if let Some(generation) = generation(&sources, &args.policies) {
        explanation.generation = generation;
    }
    let mut to = output::stdout();
    match args.output.format {
        Format::Table => {
            let from = match &args.from {
                Caller::Id(id) => id.as_str(),
                Caller::Unauthenticated => "unauthenticated",
            };
            let what = args.request.as_deref().unwrap_or("a TCP connection");
            writeln!(to, "{from} -> {} port {}: {what}\n{explanation}", args.to, args.port)?;
        }
        Format::Json => output::json(&mut to, &Explained { schema: EXPLANATION, explanation: &explanation })?,
        Format::Jsonl => {
            let explained = Explained { schema: EXPLANATION, explanation: &explanation };
            writeln!(
                to,
                "{}",
                serde_json::to_string(&explained).context("the explanation cannot be printed")?
            )?;
        }
    }
    match explanation.decision {
        Some(Decision::Allow(_)) => Ok(Exit::Done),
        Some(Decision::Deny(_)) | None => Ok(Exit::Denied),
    }
}

fn explanation(set: &PolicySet, args: &PolicyExplain) -> Result<Explanation, Failure> {
    let peer = match &args.from {
        Caller::Id(id) => PeerIdentity::Authenticated(id),
        Caller::Unauthenticated => PeerIdentity::Unauthenticated,
    };
    let now: SystemTime = args.at.0;
    let connection = Connection::new(peer, args.source, args.port, now);
    let policies = set.for_workload(&args.to);
    let Some(text) = &args.request else {
        return Ok(policies.explain(&connection, &Traffic::Tcp));
    };
    let (method, target) = request_line(text)?;
    let path = CanonicalPath::parse(target)
        .with_context(|| format!("{target:?} is a path that a sidecar answers with 400"))
        .or_exit(Exit::Unacceptable)?;
    let host = CanonicalHost::parse(&args.host)
        .with_context(|| format!("{:?} is a host that a sidecar answers with 400", args.host))
        .or_exit(Exit::Unacceptable)?;
    let request = Request::new(method, Some(&host), &path);
    Ok(policies.explain(&connection, &Traffic::HttpRequest(request)))
}

/// Splits `METHOD /path`.
fn request_line(text: &str) -> Result<(&str, &str), Failure> {
    match text.split_once(' ') {
        Some((method, target)) if http::Method::from_bytes(method.as_bytes()).is_ok() => Ok((method, target)),
        Some(_) | None => {
            Err(Failure::because(Exit::Unacceptable, format!("{text:?} is no request: write 'GET /path'")))
        }
    }
}

/// The generation that a sidecar with this directory shows; `None` where it is not one directory.
fn generation(sources: &[Source], paths: &[PathBuf]) -> Option<String> {
    let [path] = paths else { return None };
    if !path.is_dir() {
        return None;
    }
    // A sidecar knows its files by their names in the directory, users by a path that they can open.
    let sources = sources.iter().map(|source| {
        let name = Path::new(&source.name).file_name()?.to_str()?.to_owned();
        Some(Source { name, text: source.text.clone() })
    });
    let set = policy::compile(&sources.collect::<Option<Vec<_>>>()?).ok()?;
    Some(set.generation().to_owned())
}

fn compile(paths: &[PathBuf]) -> Result<PolicySet, Problems> {
    policy::compile(&config::sources(paths)?)
}

/// A policy as it is printed.
#[derive(Debug, Serialize)]
struct PolicyRow {
    name: String,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    protects: Vec<String>,
    mode: String,
    rules: usize,
    tests: usize,
}

impl PolicyRow {
    fn new(policy: &policy::Policy) -> Self {
        Self {
            name: policy.name().to_owned(),
            file: policy.file().to_owned(),
            owner: policy.owner().map(str::to_owned),
            protects: policy.protects().iter().map(ToString::to_string).collect(),
            mode: match policy.mode() {
                policy::Mode::Enforce => "enforce".to_owned(),
                policy::Mode::Shadow { until } => format!("shadow until {}", output::time(until)),
                policy::Mode::DryRun => "dry run".to_owned(),
            },
            rules: policy.rule_count(),
            tests: policy.test_count(),
        }
    }
}

impl Row for PolicyRow {
    const SCHEMA: &'static str = "vouchsafe/policy/v1";
    const HEADINGS: &'static [&'static str] = &["POLICY", "FILE", "PROTECTS", "MODE", "RULES", "TESTS"];
    fn cells(&self) -> Vec<String> {
        vec![
            audit::shown(&self.name),
            audit::shown(&self.file),
            self.protects.join("\n"),
            self.mode.clone(),
            self.rules.to_string(),
            self.tests.to_string(),
        ]
    }
}

/// A test as it is printed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct CaseRow(TriedCase);

impl Row for CaseRow {
    const SCHEMA: &'static str = "vouchsafe/policy-test/v1";
    const HEADINGS: &'static [&'static str] = &["OUTCOME", "TEST", "WRITTEN"];
    fn cells(&self) -> Vec<String> {
        let outcome = match &self.0.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed { message, .. } => audit::shown(message),
        };
        vec![
            outcome,
            audit::shown(&self.0.description),
            format!("{}:{}", audit::shown(&self.0.file), self.0.line),
        ]
    }
}

/// Policies that were accepted together.
#[derive(Serialize)]
struct Accepted<'a> {
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<String>,
    items: &'a [PolicyRow],
}

#[derive(Serialize)]
struct Explained<'a> {
    schema: &'static str,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// The JSON shape of an explanation.
const EXPLANATION: &str = "vouchsafe/policy-explanation/v1";

/// How the compiler's word for a test that failed begins.
const FAILED_TEST: &str = "test failed: ";

#[cfg(test)]
mod tests;
