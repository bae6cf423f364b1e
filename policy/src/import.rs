//! Istio's files rewritten as native ones, with a list of every place where the meaning may surprise.
//!
//! A rewriting is never wider than the original: what a native rule cannot say is left out of what allows, and left away from what denies, and each
//! time the list says so. Resources about tokens and mutual TLS are kept as they are; a directory may hold both kinds of files.

mod ids;
mod requests;
mod rules;
mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::istio::{self, Action, Authorization, Resource, Within};
use crate::load::compile;
use crate::mesh::{Compat, Mesh};
use crate::pattern::IdPattern;
use crate::strict::{Problem, Problems, Source};
use rules::{Rewritten, rewrite};

/// What became of Istio's files.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The native files, one for each policy that has a say.
    pub files: Vec<Source>,
    /// What stays in Istio's form and must be kept.
    pub kept: Vec<Kept>,
    /// Where the meaning may surprise, or is narrower than it was.
    pub surprises: Vec<Surprise>,
}

/// A resource that stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace and name.
    pub name: String,
    /// The file it is in.
    pub file: String,
    /// The line of its name.
    pub line: u32,
}

/// A place where the meaning may surprise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Surprise {
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The policy, with its namespace.
    pub policy: String,
    /// What one should know.
    pub message: String,
}

/// The identities of the workloads with these labels in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The identities.
    pub ids: Vec<IdPattern>,
}

/// Rewrites files. `targets` says which identities workloads have; without labels they default to the usual ones of the namespace, and a
/// selector by labels that no target has is a problem.
pub fn import(sources: &[Source], mesh: &Mesh, targets: &[Target]) -> Result<Imported, Problems> {
    let Found { policies, kept, warnings } = read(sources, mesh)?;
    let mut problems = Problems::default();
    let mut surprises: BTreeSet<Surprise> = warnings.iter().map(of_warning).collect();
    let mut files = Vec::new();
    for policy in &policies {
        let about = About { policy, mesh, opens: opens(policy, &policies) };
        match about.rewritten(targets, &mut surprises) {
            Ok(file) => files.extend(file),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    compile(&files)?;
    Ok(Imported { files, kept, surprises: surprises.into_iter().collect() })
}

#[derive(Default)]
struct Found {
    policies: Vec<Authorization>,
    kept: Vec<Kept>,
    warnings: Problems,
}

fn read(sources: &[Source], mesh: &Mesh) -> Result<Found, Problems> {
    let mut problems = Problems::default();
    let mut found = Found::default();
    if mesh.compat == Compat::Ambient {
        let cure = "import them as files of sidecars".to_owned();
        let message =
            "files of ambient meshes are not rewritten: what ztunnel leaves out would come into force";
        return Err(Problems::from(Problem::in_file("policies", message, Some(cure))));
    }
    for source in sources {
        match istio::read(source, mesh) {
            Ok(read) => {
                found.warnings.extend(read.warnings);
                for resource in read.resources {
                    match resource {
                        Resource::Authorization(policy) => found.policies.push(policy),
                        Resource::Peers(_) | Resource::Tokens(_) => found.kept.push(keep(&resource)),
                    }
                }
            }
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn keep(resource: &Resource) -> Kept {
    let name = resource.name();
    Kept {
        kind: resource.kind(),
        name: name.full().to_string(),
        file: name.file.to_string(),
        line: name.at.start.line,
    }
}

fn of_warning(warning: &Problem) -> Surprise {
    Surprise {
        file: warning.file.clone(),
        line: warning.position.map_or(0, |place| place.line),
        policy: String::new(),
        message: warning.message.clone(),
    }
}

// Whether a policy that denies stands alone, so that Istio lets everything else pass.
fn opens(policy: &Authorization, all: &[Authorization]) -> bool {
    let overlaps = |other: &Authorization| match (&policy.scope.within, &other.scope.within) {
        (Within::Mesh, _) | (_, Within::Mesh) => true,
        (Within::Namespace(one), Within::Namespace(other)) => one == other,
    };
    policy.action == Action::Deny
        && !all.iter().any(|other| other.action == Action::Allow && !other.dry_run && overlaps(other))
}

/// A policy and what must be known to rewrite it.
struct About<'p> {
    policy: &'p Authorization,
    mesh: &'p Mesh,
    opens: bool,
}

impl About<'_> {
    fn rewritten(
        &self,
        targets: &[Target],
        surprises: &mut BTreeSet<Surprise>,
    ) -> Result<Option<Source>, Problems> {
        let mut say = |line: u32, message: &str| {
            surprises.insert(Surprise {
                file: self.policy.name.file.to_string(),
                line,
                policy: self.policy.name.full().to_string(),
                message: message.to_owned(),
            });
        };
        let line = self.policy.name.at.start.line;
        if self.policy.dry_run {
            say(
                line,
                "a dry run is left out: write it as mode: shadow, which needs the day from which it enforces",
            );
            return Ok(None);
        }
        if self.policy.action == Action::Audit {
            say(line, "a policy that only audits is left out: every refusal is on record anyhow");
            return Ok(None);
        }
        let protects = self.protects(targets)?;
        if matches!(self.policy.scope.within, Within::Mesh) {
            say(line, "it applies to every namespace of the trust domain, beside the policies there");
        }
        let selected = self.policy.selected(self.mesh)?;
        let mut rules: Vec<Rewritten> = Vec::new();
        for rule in &selected.policy.rules {
            let mut notes = Vec::new();
            rules.extend(rewrite(rule, self.mesh, &mut notes));
            notes.iter().for_each(|note| say(rule.reference.line, note));
        }
        match (self.policy.action, self.opens) {
            (Action::Deny, true) => {
                say(
                    line,
                    "Istio lets everything pass that no policy denies where none allows: the rules rest-tcp and rest-http say so; remove them if you can",
                );
                rules.extend(Rewritten::everything());
            }
            (Action::Allow, _) if self.policy.rules.is_empty() => {
                say(line, "a policy that allows without rules refuses everything");
            }
            (Action::Allow | Action::Deny | Action::Audit, _) => {}
        }
        Ok(Some(self.file(&protects, &rules)))
    }

    fn protects(&self, targets: &[Target]) -> Result<Vec<String>, Problems> {
        let scope = &self.policy.scope;
        let fits = |target: &&Target| {
            let within = match &scope.within {
                Within::Mesh => true,
                Within::Namespace(namespace) => **namespace == *target.namespace,
            };
            let has = |(key, value): (&Arc<str>, &Arc<str>)| {
                target.labels.get(&**key).is_some_and(|found| **found == **value)
            };
            within && scope.labels.iter().all(has) && target.labels.len() >= scope.labels.len()
        };
        if scope.labels.is_empty() {
            let exact = targets.iter().filter(|target| fits(target) && target.labels.is_empty());
            let ids: Vec<String> = exact.flat_map(|target| &target.ids).map(ToString::to_string).collect();
            let domain = &self.mesh.trust_domain;
            return Ok(match &scope.within {
                Within::Mesh => vec![format!("spiffe://{domain}/**")],
                Within::Namespace(_) if !ids.is_empty() => ids,
                Within::Namespace(namespace) => vec![format!("spiffe://{domain}/ns/{namespace}/sa/*")],
            });
        }
        let ids: BTreeSet<String> =
            targets.iter().filter(fits).flat_map(|target| &target.ids).map(ToString::to_string).collect();
        if ids.is_empty() {
            let name = self.policy.name.full();
            let message = format!(
                "the policy {name} selects workloads by labels, and nothing says which identities they have"
            );
            let cure = "name the identities of the workloads with these labels".to_owned();
            return Err(Problems::from(Problem::in_file(&self.policy.name.file, message, Some(cure))));
        }
        Ok(ids.into_iter().collect())
    }

    fn file(&self, protects: &[String], rules: &[Rewritten]) -> Source {
        let name = wording::name(&self.policy.name.namespace, &self.policy.name.name);
        let origin = format!("{}:{}", self.policy.name.file, self.policy.name.at.start.line);
        let text = wording::policy(&name, &origin, protects, rules);
        Source::new(format!("{name}.yaml"), text)
    }
}
