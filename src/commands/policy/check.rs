//! `policy check`: is every file acceptable?

use std::io::{self, Write};

use policy::Options;
use serde::Serialize;

use super::files::{self, Compiled};
use super::words::counted;
use crate::cli::policy::PolicyCheck;
use crate::commands::config;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Row};

pub(super) fn run(args: &PolicyCheck) -> Result<Exit, Failure> {
    let format = args.output.format;
    let Compiled { sources, set } = match files::compile(&args.paths, &Options::default()) {
        Ok(compiled) => compiled,
        Err(problems) => return config::report(format, "", Err(problems)),
    };
    let rows: Vec<PolicyRow> = set.policies().map(PolicyRow::new).collect();
    accepted(&mut output::stdout(), format, &rows, files::generation(&sources, &args.paths))?;
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

/// Policies that were accepted together.
#[derive(Serialize)]
struct Accepted<'a> {
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<String>,
    items: &'a [PolicyRow],
}

#[cfg(test)]
mod tests {
    use policy::strict::Source;

    use super::*;

    #[test]
    fn accepted_policies_are_counted_in_words_and_carry_their_generation_as_data() {
        let set = policy::compile(&[Source::new("api.yaml", POLICY)]).unwrap();
        let rows: Vec<PolicyRow> = set.policies().map(PolicyRow::new).collect();
        let printed = |format| {
            let mut bytes = Vec::new();
            accepted(&mut bytes, format, &rows, Some("abc".to_owned())).unwrap();
            String::from_utf8(bytes).unwrap()
        };

        let table = printed(Format::Table);
        let data: serde_json::Value = serde_json::from_str(&printed(Format::Json)).unwrap();

        assert!(table.ends_with("\n1 policy accepted, 1 test passed\ngeneration abc\n"), "{table}");
        assert_eq!(
            (data["generation"].as_str(), data["items"][0]["name"].as_str()),
            (Some("abc"), Some("api"))
        );
    }

    const POLICY: &str = "vouchsafe: policy/v1\nname: api\nprotects: spiffe://prod.test/api\n\
                          tests: [{from: unauthenticated, tcp: 80, expect: deny}]\n";
}
