//! `policy import`: Istio's files rewritten as native ones, beside a list of every place where the meaning may surprise.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use policy::pattern::IdPattern;
use policy::strict::Problems;
use policy::{Assumption, EvalWorkload, ImportOptions, Imported, Kept, Surprise, Target};
use serde::Serialize;

use super::files;
use super::words::counted;
use crate::cli::policy::{Assumed, PolicyImport};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

pub(super) fn run(args: &PolicyImport) -> Result<Exit, Failure> {
    let sources = files::sources(&args.paths).or_exit(Exit::Unacceptable)?;
    let workloads = workloads(&args.workloads).or_exit(Exit::Unacceptable)?;
    let options = ImportOptions {
        mesh: workloads.first().map(|first| first.mesh.clone()),
        targets: workloads.iter().filter_map(target).collect(),
        assumed: assumed(args),
        exact: args.exact,
    };
    let imported = policy::import_with(&sources, &options).or_exit(Exit::Unacceptable)?;
    let written = write(&args.out, &imported)?;
    print(&mut output::stdout(), args.output.format, &Report::new(&written, &imported))?;
    Ok(Exit::Done)
}

fn assumed(args: &PolicyImport) -> BTreeSet<Assumption> {
    let given = args.assumed.iter().map(|one| match one {
        Assumed::UsualIdentities => Assumption::UsualIdentities,
        Assumed::AnyHostPort => Assumption::AnyHostPort,
        Assumed::TokensHaveSubjects => Assumption::TokensHaveSubjects,
        Assumed::RegisteredMethods => Assumption::RegisteredMethods,
    });
    given.chain(args.whole_segments.then_some(Assumption::WholeSegments)).collect()
}

fn workloads(paths: &[PathBuf]) -> Result<Vec<EvalWorkload>, Problems> {
    let mut problems = Problems::default();
    let mut workloads = Vec::new();
    for path in paths {
        match files::source(path).and_then(|source| EvalWorkload::read(&source)) {
            Ok(workload) => workloads.push(workload),
            Err(flaws) => problems.extend(flaws),
        }
    }
    if problems.is_empty() { Ok(workloads) } else { Err(problems) }
}

fn target(told: &EvalWorkload) -> Option<Target> {
    let workload = &told.workload;
    let ids = vec![IdPattern::parse(workload.id.as_str()).ok()?];
    Some(Target { namespace: workload.namespace.clone(), labels: workload.labels.clone(), ids })
}

// All files or none, and never over one that is there.
fn write(out: &Path, imported: &Imported) -> Result<Vec<PathBuf>, Failure> {
    let named = |name: &str| Path::new(name).file_name().map(|name| out.join(name));
    let paths: Vec<PathBuf> = imported.files.iter().filter_map(|file| named(&file.name)).collect();
    if let Some(there) = paths.iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        let told = format!("{} exists already: nothing is written", there.display());
        return Err(Failure::because(Exit::Unacceptable, told));
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for (number, (path, file)) in paths.iter().zip(&imported.files).enumerate() {
        if let Err(cause) = create(path, &file.text) {
            for made in paths.iter().take(number) {
                let _gone = fs::remove_file(made);
            }
            return Err(cause)
                .with_context(|| format!("cannot write {}", path.display()))
                .or_exit(Exit::Failed);
        }
    }
    Ok(paths)
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _gone = fs::remove_file(path);
    }
    written
}

fn print(to: &mut impl Write, format: Format, report: &Report<'_>) -> io::Result<()> {
    match format {
        Format::Json => output::json(to, report),
        Format::Jsonl => {
            serde_json::to_writer(&mut *to, report)?;
            writeln!(to)
        }
        Format::Table => {
            for file in &report.files {
                writeln!(to, "wrote {}", audit::shown(file))?;
            }
            for kept in report.kept {
                let text =
                    format!("{}:{}: {} {} stays in Istio's form", kept.file, kept.line, kept.kind, kept.name);
                writeln!(to, "{}", audit::shown(&text))?;
            }
            for surprise in report.surprises {
                let policy = match surprise.policy.as_str() {
                    "" => String::new(),
                    name => format!("{name}: "),
                };
                let text = format!("{}:{}: {policy}{}", surprise.file, surprise.line, surprise.message);
                writeln!(to, "{}", audit::shown(&text))?;
            }
            let files = counted(report.files.len(), "file", "files");
            let surprises = counted(report.surprises.len(), "place", "places");
            writeln!(to, "{files} written, {surprises} where the meaning may surprise")
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    files: Vec<String>,
    kept: &'a [Kept],
    surprises: &'a [Surprise],
}

impl<'a> Report<'a> {
    fn new(written: &[PathBuf], imported: &'a Imported) -> Self {
        Self {
            schema: "vouchsafe/policy-import/v1",
            files: written.iter().map(|path| path.display().to_string()).collect(),
            kept: &imported.kept,
            surprises: &imported.surprises,
        }
    }
}
