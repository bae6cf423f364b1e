//! `policy test`: do the tests in the files hold?

use std::io::Write as _;

use policy::strict::Problems;
use policy::{Options, Outcome, RuleCoverage, TestReport, TriedCase};
use serde::Serialize;

use super::files::{self, Compiled};
use super::words::counted;
use crate::cli::policy::PolicyTest;
use crate::commands::config;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Row};

pub(super) fn run(args: &PolicyTest) -> Result<Exit, Failure> {
    let format = args.output.format;
    let Compiled { set, .. } = match files::compile(&args.paths, &Options::default()) {
        Ok(compiled) => compiled,
        Err(problems) if problems.iter().all(|problem| problem.message.starts_with(FAILED_TEST)) => {
            return failed(format, problems);
        }
        Err(problems) => return config::report(format, "", Err(problems)),
    };
    let report = set.run_tests();
    if args.coverage {
        return coverage(format, report);
    }
    let cases: Vec<CaseRow> = report.cases.into_iter().map(CaseRow).collect();
    let mut to = output::stdout();
    output::list(&mut to, format, &cases)?;
    if format == Format::Table {
        writeln!(to, "\n{} passed", counted(cases.len(), "test", "tests"))?;
    }
    Ok(Exit::Done)
}

/// Tells how many tests each rule decides.
fn coverage(format: Format, report: TestReport) -> Result<Exit, Failure> {
    let uncovered = report.uncovered().count();
    let rows: Vec<CoverageRow> = report.coverage.into_iter().map(CoverageRow).collect();
    let mut to = output::stdout();
    output::list(&mut to, format, &rows)?;
    if format == Format::Table {
        let (covered, rules) = (rows.len() - uncovered, counted(rows.len(), "rule", "rules"));
        writeln!(to, "\n{covered} of {rules} covered by {}", counted(report.cases.len(), "test", "tests"))?;
    }
    Ok(if uncovered == 0 { Exit::Done } else { Exit::Found })
}

/// Tells of failed tests as `check` does of problems, with the exit code of a comparison.
fn failed(format: Format, problems: Problems) -> Result<Exit, Failure> {
    match config::report(format, "", Err(problems.clone())) {
        Ok(_) => Ok(Exit::Found),
        Err(_) => Err(Failure::new(Exit::Found, problems)),
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

/// A rule and its tests as they are printed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct CoverageRow(RuleCoverage);

impl Row for CoverageRow {
    const SCHEMA: &'static str = "vouchsafe/policy-coverage/v1";
    const HEADINGS: &'static [&'static str] = &["TESTS", "EFFECT", "RULE", "WRITTEN"];
    fn cells(&self) -> Vec<String> {
        let rule = &self.0.rule;
        vec![
            self.0.tests.to_string(),
            self.0.effect.to_owned(),
            format!("{}/{}", rule.policy, rule.rule),
            format!("{}:{}", audit::shown(&rule.file), rule.line),
        ]
    }
}

/// How the compiler's word for a test that failed begins.
const FAILED_TEST: &str = "test failed: ";
