//! `policy fmt`: policy files in the one form.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use policy::strict::{Problems, Source};
use serde::Serialize;

use super::files;
use crate::cli::policy::PolicyFmt;
use crate::commands::config;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Row};

pub(super) fn run(args: &PolicyFmt) -> Result<Exit, Failure> {
    let format = args.output.format;
    let formatted = match formatted(&args.paths) {
        Ok(formatted) => formatted,
        Err(problems) => return config::report(format, "", Err(problems)),
    };
    let mut to = output::stdout();
    if !args.check && !args.write {
        return shown(&mut to, &formatted);
    }
    let rows: Vec<Differing> = formatted.iter().filter(|file| file.differs()).map(Differing::new).collect();
    if args.write {
        for file in formatted.iter().filter(|file| file.differs()) {
            replace(Path::new(&file.source.name), &file.text)?;
        }
    }
    if format != Format::Table || !rows.is_empty() {
        output::list(&mut to, format, &rows)?;
    }
    Ok(if args.check && !rows.is_empty() { Exit::Found } else { Exit::Done })
}

/// A file and its form.
struct Formatted {
    source: Source,
    text: String,
}

impl Formatted {
    fn differs(&self) -> bool {
        self.source.text != self.text
    }
}

// Nothing is written unless every file can be read. Key sets are no policies.
fn formatted(paths: &[PathBuf]) -> Result<Vec<Formatted>, Problems> {
    let mut problems = Problems::default();
    let mut formatted = Vec::new();
    for source in files::sources(paths)?.into_iter().filter(|source| !source.name.ends_with(".json")) {
        match policy::format(&source) {
            Ok(text) => formatted.push(Formatted { source, text }),
            Err(flaws) => problems.extend(flaws),
        }
    }
    if problems.is_empty() { Ok(formatted) } else { Err(problems) }
}

fn shown(to: &mut impl Write, formatted: &[Formatted]) -> Result<Exit, Failure> {
    let [file] = formatted else {
        let told = "several files: use --check or --write, or name one";
        return Err(Failure::because(Exit::Unacceptable, told));
    };
    to.write_all(file.text.as_bytes())?;
    Ok(Exit::Done)
}

// A reader sees the old text or the new one, never a part. What a link leads to is changed, not the link.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let target = fs::canonicalize(path)?;
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let beside = target.with_file_name(format!(".{name}.{}", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.set_permissions(fs::metadata(&target)?.permissions()))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&beside, &target));
        if written.is_err() {
            let _gone = fs::remove_file(&beside);
        }
        written
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// A file that is not in the form.
#[derive(Debug, Serialize)]
struct Differing {
    file: String,
    line: usize,
}

impl Differing {
    fn new(file: &Formatted) -> Self {
        let same =
            file.source.text.lines().zip(file.text.lines()).take_while(|(old, new)| old == new).count();
        Self { file: file.source.name.clone(), line: same + 1 }
    }
}

impl Row for Differing {
    const SCHEMA: &'static str = "vouchsafe/policy-format/v1";
    const HEADINGS: &'static [&'static str] = &["FILE", "DIFFERS FROM LINE"];
    fn cells(&self) -> Vec<String> {
        vec![audit::shown(&self.file), self.line.to_string()]
    }
}
