//! From the files of a directory to a policy set: all of them, or none.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cases::{Outcome, run};
use crate::document::{Document, KeyFiles, link, read};
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
    check_size(files)?;
    let mut sorted: Vec<&Source> = files.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut problems = Problems::default();
    let mut documents: Vec<(&Source, Document)> = Vec::new();
    let keys = KeyFiles::read(sorted.iter().copied(), &mut problems);
    for source in sorted.iter().filter(|source| !KeyFiles::is_one(source)) {
        match read(source, &keys) {
            Ok(document) => documents.push((source, document)),
            Err(more) => problems.extend(more),
        }
    }
    let complete = problems.is_empty();
    link(&mut documents, &keys, complete, &mut problems);
    check_between_files(&documents, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let policies = documents.iter().map(|(_, document)| Arc::clone(&document.policy)).collect();
    let generation = match &options.generation {
        Some(generation) => generation.as_str().into(),
        None => generation_of(&sorted),
    };
    let set = PolicySet::new(generation, policies, options.mesh.clone());
    if options.checks == Checks::All {
        check_tests(&set, &documents)?;
    }
    Ok(set)
}

fn check_size(files: &[Source]) -> Result<(), Problems> {
    if files.len() > MAX_FILES {
        let message = format!("there are {} files, at most {MAX_FILES} are accepted", files.len());
        return Err(Problems::from(Problem::in_file("policies", message, None)));
    }
    let bytes: usize = files.iter().map(|source| source.text.len()).sum();
    if bytes > MAX_SET_BYTES {
        let message = format!("the files have {bytes} bytes together, at most {MAX_SET_BYTES} are accepted");
        return Err(Problems::from(Problem::in_file("policies", message, None)));
    }
    Ok(())
}

fn check_between_files(documents: &[(&Source, Document)], problems: &mut Problems) {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut previous: Option<&str> = None;
    for (source, document) in documents {
        if previous.replace(&source.name) == Some(&source.name) {
            problems.push(Problem::in_file(&source.name, "the file is given twice", None));
        }
        if let Some(first) = names.insert(&document.policy.name, &source.name) {
            let message = format!("the policy name \"{}\" is already used in {first}", document.policy.name);
            let cure = "give each policy a name of its own".to_owned();
            problems.push(Problem::at(source, document.name_at, message, Some(cure)));
        }
    }
    let rules = documents.iter().map(|(_, document)| document.policy.rules.len()).sum();
    if let Some(problem) = too_many_rules(rules) {
        problems.push(problem);
    }
}

fn too_many_rules(rules: usize) -> Option<Problem> {
    (rules > MAX_RULES).then(|| {
        let message = format!("there are {rules} rules, at most {MAX_RULES} are accepted");
        Problem::in_file("policies", message, None)
    })
}

fn check_tests(set: &PolicySet, documents: &[(&Source, Document)]) -> Result<(), Problems> {
    let sources: HashMap<&str, &Source> =
        documents.iter().map(|(source, _)| (source.name.as_str(), *source)).collect();
    let mut problems = Problems::default();
    for tried in run(set) {
        let Outcome::Failed { message, cure } = tried.outcome else { continue };
        let Some(source) = sources.get(tried.file.as_str()) else { continue };
        problems.push_within(MAX_FAILING, Problem::at(source, tried.span, message, cure));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Most files in one set.
pub const MAX_FILES: usize = 20_000;

/// Most bytes in one set, all files together.
pub const MAX_SET_BYTES: usize = 64 * 1024 * 1024;

/// Most rules in one set.
pub const MAX_RULES: usize = 200_000;

// Failing tests shown; the others are counted.
const MAX_FAILING: usize = 100;

#[cfg(test)]
mod tests;
