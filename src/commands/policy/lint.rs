//! `policy lint`: rules that never match, that others make useless or contradict, IDs that nobody can have, rules without a test.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use identity::TrustDomain;
use policy::analyse::{self, Finding, Lint, Terms};
use policy::pattern::IdPattern;
use policy::strict::{Node, Problem, Problems, Reader, Source};
use policy::{Options, PolicySet};
use serde::Serialize;

use super::files;
use super::words::counted;
use crate::cli::policy::PolicyLint;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

pub(super) fn run(args: &PolicyLint) -> Result<Exit, Failure> {
    let set = files::compile(&args.paths, &Options::default()).or_exit(Exit::Unacceptable)?.set;
    let known = match args.entries.as_slice() {
        [] => None,
        paths => Some(known_ids(paths).or_exit(Exit::Unacceptable)?),
    };
    let lint = analyse::lint(&set, known.as_deref(), SystemTime::now(), Terms::default());
    print(&mut output::stdout(), args.output.format, &set, &lint)?;
    let clean = lint.findings.is_empty() && lint.unsettled.is_empty() && set.warnings().is_empty();
    Ok(if clean { Exit::Done } else { Exit::Found })
}

/// The IDs that registration entries give away.
fn known_ids(paths: &[PathBuf]) -> Result<Vec<IdPattern>, Problems> {
    let sources = files::sources(paths)?;
    let mut problems = Problems::default();
    let mut ids = Vec::new();
    for source in &sources {
        match entries_of(source) {
            Ok(found) => ids.extend(found),
            Err(flaws) => problems.extend(flaws),
        }
    }
    if problems.is_empty() { Ok(ids) } else { Err(problems) }
}

// The reader of entries wants to know the CA's trust domain: that of the first entry, as the files do not say it.
fn entries_of(source: &Source) -> Result<Vec<IdPattern>, Problems> {
    let Some(trust_domain) = trust_domain(source) else {
        // It says what is wrong with the file; one without an entry has no trust domain to be of.
        let any = TrustDomain::parse("example.org").map_err(|_| empty(source))?;
        return ca::entries::parse(source, &any).and(Err(empty(source)));
    };
    let entries = ca::entries::parse(source, &trust_domain)?;
    Ok(entries.iter().filter_map(|entry| IdPattern::parse(entry.spiffe_id.as_str()).ok()).collect())
}

fn empty(source: &Source) -> Problems {
    Problem::in_file(&source.name, "holds no registration entry", None).into()
}

fn trust_domain(source: &Source) -> Option<TrustDomain> {
    let (mut read, root) = Reader::open(source);
    let root = root?;
    let entries = value(&root, "entries", &mut read)?;
    let first = read.list(entries)?.first()?;
    let id = value(first, "spiffe_id", &mut read)?;
    let id: identity::SpiffeId = read.string(id)?.parse().ok()?;
    Some(id.trust_domain().clone())
}

fn value<'n>(node: &'n Node, name: &str, read: &mut Reader<'_>) -> Option<&'n Node> {
    read.entries(node)?.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn print(to: &mut impl Write, format: Format, set: &PolicySet, lint: &Lint) -> io::Result<()> {
    match format {
        Format::Json => output::json(to, &Tagged { schema: SCHEMA, warnings: set.warnings(), lint }),
        Format::Jsonl => {
            for finding in &lint.findings {
                serde_json::to_writer(&mut *to, &Line { schema: LINE, finding })?;
                writeln!(to)?;
            }
            Ok(())
        }
        Format::Table => {
            for warning in set.warnings().iter() {
                writeln!(to, "{warning}")?;
            }
            for finding in &lint.findings {
                let text = finding.to_string();
                text.lines().try_for_each(|line| writeln!(to, "{}", audit::shown(line)))?;
            }
            for unsettled in &lint.unsettled {
                writeln!(to, "not settled: {}", audit::shown(&unsettled.to_string()))?;
            }
            let found = lint.findings.len() + set.warnings().count();
            writeln!(to, "{}", counted(found, "finding", "findings"))
        }
    }
}

#[derive(Serialize)]
struct Tagged<'a> {
    schema: &'static str,
    warnings: &'a Problems,
    #[serde(flatten)]
    lint: &'a Lint,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    #[serde(flatten)]
    finding: &'a Finding,
}

const SCHEMA: &str = "vouchsafe/policy-lint/v1";
const LINE: &str = "vouchsafe/policy-finding/v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_entry_files() {
        let text = "vouchsafe: entries/v1\nentries:\n  - {spiffe_id: spiffe://a.test/web, node: host-1, selectors: [\"unix:uid:1\"]}\n";

        let ids = entries_of(&Source::new("e.yaml", text)).unwrap();

        assert_eq!(ids.iter().map(IdPattern::as_str).collect::<Vec<_>>(), ["spiffe://a.test/web"]);
    }

    #[test]
    fn a_file_that_holds_no_entry_is_refused() {
        for (text, told) in [
            ("vouchsafe: entries/v1\nentries: []\n", "e.yaml"),
            ("vouchsafe: entries/v1\nentris: []\n", "did you mean \"entries\"?"),
            ("vouchsafe: policy/v1\nname: x\n", "e.yaml:1:12"),
            ("", "e.yaml"),
        ] {
            let problems = entries_of(&Source::new("e.yaml", text)).unwrap_err().to_string();
            assert!(problems.contains(told), "{text}: {problems}");
        }
    }
}
