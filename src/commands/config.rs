//! Reading configuration files for the daemons, and telling what is wrong in them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use policy::strict::{Problem, Problems, Source};
use serde::Serialize;

use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format, Row};

/// Reads a file and parses it; what cannot be accepted exits 2.
pub(crate) fn load<C>(path: &Path, parser: fn(&Source) -> Result<C, Problems>) -> Result<C, Failure> {
    parse(path, parser).or_exit(Exit::Unacceptable)
}

/// Reads a file and parses it; problems in it are returned to be reported.
pub(crate) fn parse<C>(path: &Path, parser: fn(&Source) -> Result<C, Problems>) -> Result<C, Problems> {
    parser(&source(path)?)
}

/// Reads a text file under the name it was given by.
fn source(path: &Path) -> Result<Source, Problems> {
    let bytes = std::fs::read(path).map_err(|cause| unreadable(path, &cause))?;
    Source::from_bytes(path.display().to_string(), bytes)
}

/// Reads the files that are named, and those in named directories. Every flaw is reported.
pub(crate) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, Problems> {
    let mut problems = Problems::default();
    let mut sources = Vec::new();
    for path in files(paths)? {
        match source(&path) {
            Ok(source) => sources.push(source),
            Err(flaws) => problems.extend(flaws),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

/// The files that are named, and those in named directories that the daemons look at: `*.yaml`
/// and `*.yml` that are not hidden, in the order of their names.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Problems> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let mut files = in_directory(path).map_err(|cause| unreadable(path, &cause))?;
        if files.is_empty() {
            let cure = "such a directory grants nothing: add *.yaml files, or name another".to_owned();
            return Err(
                Problem::in_file(&path.display().to_string(), "holds no YAML file", Some(cure)).into()
            );
        }
        files.sort();
        all.append(&mut files);
    }
    Ok(all)
}

fn in_directory(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden {
            files.push(file);
        }
    }
    Ok(files)
}

fn unreadable(path: &Path, cause: &io::Error) -> Problems {
    Problem::in_file(&path.display().to_string(), format!("cannot be read: {cause}"), None).into()
}

/// Where something lies once the directory it may lie in has moved.
pub(crate) fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    match path.strip_prefix(from) {
        Ok(below) => to.join(below),
        Err(_) => path.to_owned(),
    }
}

/// Prints what a check found beyond the file itself; anything found exits 3.
pub(crate) fn found<R: Row>(format: Format, what: &str, rows: &[R]) -> Result<Exit, Failure> {
    let mut to = output::stdout();
    match (format, rows) {
        (Format::Table, []) => writeln!(to, "{what} is accepted")?,
        (format, rows) => output::list(&mut to, format, rows)?,
    }
    Ok(if rows.is_empty() { Exit::Done } else { Exit::Found })
}

/// Prints the outcome of a check: that all is well, or every problem with its place.
///
/// Problems go to standard error for people, as every error does; as data they go where data goes.
pub(crate) fn report(format: Format, what: &str, outcome: Result<(), Problems>) -> Result<Exit, Failure> {
    let mut to = output::stdout();
    let problems = match outcome {
        Ok(()) => {
            match format {
                Format::Table => writeln!(to, "{what} is accepted")?,
                Format::Json | Format::Jsonl => output::list::<Found>(&mut to, format, &[])?,
            }
            return Ok(Exit::Done);
        }
        Err(problems) => problems,
    };
    match format {
        Format::Table => Err(Failure::new(Exit::Unacceptable, problems)),
        Format::Json | Format::Jsonl => {
            let found: Vec<Found> = problems.iter().cloned().map(Found).collect();
            output::list(&mut to, format, &found)?;
            Ok(Exit::Unacceptable)
        }
    }
}

/// A problem as data.
#[derive(Serialize)]
#[serde(transparent)]
struct Found(Problem);

impl Row for Found {
    const SCHEMA: &'static str = "vouchsafe/problem/v1";
    const HEADINGS: &'static [&'static str] = &["PROBLEM"];
    fn cells(&self) -> Vec<String> {
        vec![self.0.to_string()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_exits_2() {
        let failure = load(Path::new("/no/such/ca.yaml"), ca::Config::parse).unwrap_err();

        assert_eq!(failure.exit(), Exit::Unacceptable);
        assert!(failure.describe().starts_with("/no/such/ca.yaml: cannot be read"), "{}", failure.describe());
    }

    #[test]
    fn a_file_with_a_problem_exits_2_and_tells_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.yaml");
        std::fs::write(&path, "vouchsafe: agent/v1\ntrust_domian: prod.example\n").unwrap();

        let failure = load(&path, agent::Config::parse).unwrap_err();

        assert_eq!(failure.exit(), Exit::Unacceptable);
        let text = failure.describe();
        assert!(text.contains("agent.yaml:2:1") && text.contains("trust_domain"), "{text}");
    }

    #[test]
    fn a_checked_file_with_problems_exits_2_in_every_format() {
        let source = Source::new("agent.yaml", "vouchsafe: agent/v1\n");
        let outcome = || agent::Config::parse(&source).map(drop);

        let table = report(Format::Table, "agent.yaml", outcome()).unwrap_err().exit();
        let json = report(Format::Json, "agent.yaml", outcome()).unwrap();

        assert_eq!((table, json), (Exit::Unacceptable, Exit::Unacceptable));
    }

    #[test]
    fn the_example_configurations_are_accepted() {
        let example = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config").join(name);

        let outcomes = [
            parse(&example("ca.yaml"), ca::Config::parse).map(drop),
            parse(&example("agent.yaml"), agent::Config::parse).map(drop),
            parse(&example("proxy.yaml"), proxy::Config::parse).map(drop),
            sources(&[example("policies")]).and_then(|sources| policy::compile(&sources)).map(drop),
        ];

        for outcome in outcomes {
            assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
        }
    }
}
