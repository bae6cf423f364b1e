//! From the files of a directory to a policy set: all of them, or none.

mod files;
mod promises;

use std::collections::{HashMap, HashSet};

use files::Files;

use crate::mesh::Mesh;
use crate::set::{PolicySet, generation_of};
use crate::strict::{Problem, Problems, Source};

/// How files are compiled.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The settings that Istio's files presuppose.
    pub mesh: Mesh,
    /// What is proved before the set is good.
    pub checks: Checks,
    /// Files that may only refuse: an allow rule in them is an error. Their names begin with `local/`.
    pub denials: Vec<Source>,
    /// The generation that the set belongs to, where it is a part of one; else the hash of the files.
    pub generation: Option<String>,
}

/// What is proved before a set is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// The tests and guarantees in the files.
    #[default]
    All,
    /// Nothing: the set is a part of one that was proved as a whole.
    Proved,
}

/// Compiles every file of a directory and tries the test cases written in them.
///
/// Any problem, a failing test included, refuses the whole; the error says all of them.
pub fn compile(files: &[Source]) -> Result<PolicySet, Problems> {
    compile_with(files, &Options::default())
}

/// `compile`, with options.
pub fn compile_with(files: &[Source], options: &Options) -> Result<PolicySet, Problems> {
    // Each has its own bounds: files of one host must not keep out what is handed to all.
    check_size(files)?;
    check_size(&options.denials)?;
    let sorted = [by_name(files), by_name(&options.denials)].concat();
    let mut problems = Problems::default();
    check_names(&sorted, &mut problems);
    let read = Files::read(&sorted, files.len(), &options.mesh, &mut problems);
    read.check_between(&mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let generation = match &options.generation {
        Some(generation) => generation.as_str().into(),
        None => generation_of(&sorted),
    };
    let sources = sources(&read);
    let set = PolicySet::new(generation, read.contents(&options.mesh)?);
    if options.checks == Checks::All {
        promises::check(&set, &sources)?;
    }
    Ok(set)
}

fn by_name(files: &[Source]) -> Vec<&Source> {
    let mut sorted: Vec<&Source> = files.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted
}

fn check_names(sorted: &[&Source], problems: &mut Problems) {
    let mut names: HashSet<&str> = HashSet::new();
    for source in sorted {
        if !names.insert(&source.name) {
            problems.push_within(MAX_SHOWN, Problem::in_file(&source.name, "the file is given twice", None));
        }
    }
}

fn sources<'s>(files: &Files<'s>) -> HashMap<&'s str, &'s Source> {
    files.native.iter().map(|(source, _)| (source.name.as_str(), *source)).collect()
}

fn check_size(files: &[Source]) -> Result<(), Problems> {
    let (mut count, mut bytes) = (0usize, 0usize);
    for source in files {
        count = count.saturating_add(1);
        bytes = bytes.saturating_add(source.text.len());
    }
    if count > MAX_FILES {
        let message = format!("there are {count} files, at most {MAX_FILES} are accepted");
        return Err(Problems::from(Problem::in_file("policies", message, None)));
    }
    if bytes > MAX_SET_BYTES {
        let message = format!("the files have {bytes} bytes together, at most {MAX_SET_BYTES} are accepted");
        return Err(Problems::from(Problem::in_file("policies", message, None)));
    }
    Ok(())
}

fn too_many_rules(rules: usize) -> Option<Problem> {
    (rules > MAX_RULES).then(|| {
        let message = format!("there are {rules} rules, at most {MAX_RULES} are accepted");
        Problem::in_file("policies", message, None)
    })
}

/// Most files in one set.
pub const MAX_FILES: usize = 20_000;

/// Most bytes in one set, all files together.
pub const MAX_SET_BYTES: usize = 64 * 1024 * 1024;

/// Most rules in one set, those that may only refuse aside, of which there may be as many.
pub const MAX_RULES: usize = 200_000;

// Problems of one kind shown; the others are counted.
const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests;
