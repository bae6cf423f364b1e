//! `policy check`: is every file acceptable?

use std::io::{self, Write};

use policy::strict::Problems;
use policy::{Options, PolicySet};
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
    let accepted = Accepted::of(&set, files::generation(&sources, &args.paths));
    accepted.print(&mut output::stdout(), format)?;
    Ok(Exit::Done)
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
    fn new(policy: &policy::Policy, protects: Vec<String>) -> Self {
        Self {
            name: policy.name().to_owned(),
            file: policy.file().to_owned(),
            owner: policy.owner().map(str::to_owned),
            protects,
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
    items: Vec<PolicyRow>,
    warnings: &'a Problems,
}

impl<'a> Accepted<'a> {
    fn of(set: &'a PolicySet, generation: Option<String>) -> Self {
        let rows = set.policies().zip(set.protections());
        let items = rows.map(|(policy, protects)| PolicyRow::new(policy, protects)).collect();
        Self { schema: PolicyRow::SCHEMA, generation, items, warnings: set.warnings() }
    }

    /// Prints what was accepted, with the generation that a sidecar shows for it and what probably was not meant.
    fn print(&self, to: &mut impl Write, format: Format) -> io::Result<()> {
        match format {
            Format::Table => {
                output::list(to, format, &self.items)?;
                if !self.warnings.is_empty() {
                    writeln!(to)?;
                }
                for warning in self.warnings.iter() {
                    let text = format!("warning: {warning}");
                    text.lines().try_for_each(|line| writeln!(to, "{}", audit::shown(line)))?;
                }
                let tests = self.items.iter().map(|row| row.tests).sum();
                let policies = counted(self.items.len(), "policy", "policies");
                writeln!(to, "\n{policies} accepted, {} passed", counted(tests, "test", "tests"))?;
                self.generation.as_ref().map_or(Ok(()), |generation| writeln!(to, "generation {generation}"))
            }
            Format::Json => output::json(to, self),
            Format::Jsonl => output::list(to, format, &self.items),
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::strict::Source;

    use super::*;

    #[test]
    fn accepted_policies_are_counted_in_words_and_carry_their_generation_as_data() {
        let set = policy::compile(&[Source::new("api.yaml", POLICY)]).unwrap();
        let printed = |format| {
            let mut bytes = Vec::new();
            Accepted::of(&set, Some("abc".to_owned())).print(&mut bytes, format).unwrap();
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

    #[test]
    fn what_istios_policies_select_and_what_was_hardly_meant_is_told() {
        let set = policy::compile(&[Source::new("istio.yaml", ISTIO)]).unwrap();
        let printed = |format| {
            let mut bytes = Vec::new();
            Accepted::of(&set, None).print(&mut bytes, format).unwrap();
            String::from_utf8(bytes).unwrap()
        };

        let table = printed(Format::Table);
        let data: serde_json::Value = serde_json::from_str(&printed(Format::Json)).unwrap();

        assert!(table.contains("  namespace shop, app=api  "), "{table}");
        assert!(table.contains("\nwarning: istio.yaml:"), "{table}");
        assert_eq!(data["items"][0]["protects"][0], "namespace shop, app=api");
        assert_eq!(data["warnings"]["problems"][0]["file"], "istio.yaml");
    }

    const ISTIO: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                         metadata: {name: api, namespace: shop}\n\
                         spec:\n  selector: {matchLabels: {app: api}}\n  action: DENY\n  rules:\n  \
                         - to: [{operation: {methods: [POST]}}]\n";

    const POLICY: &str = "vouchsafe: policy/v1\nname: api\nprotects: spiffe://prod.test/api\n\
                          tests: [{from: unauthenticated, tcp: 80, expect: deny}]\n";
}
