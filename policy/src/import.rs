//! Istio's files rewritten as native ones, with a list of every place where the meaning may surprise.
//!
//! A rewriting is never wider than the original: what a native rule cannot say is left out of what allows, and left away from what denies, and each
//! time the list says so. Resources about tokens and mutual TLS are kept as they are; a directory may hold both kinds of files, and the files returned
//! are such a directory: what is kept is among them.

mod exact;
mod ids;
mod nets;
mod options;
mod requests;
mod rules;
mod scopes;
mod tokens;
mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::document::{Effect, Issuer, Rule};
use crate::istio::{self, Action, Authorization, Name, RequestAuthentication, Resource, Within};
use crate::load::{Options, compile_with};
use crate::mesh::{Compat, Mesh};
use crate::strict::{Problem, Problems, Source};
use ids::Known;
pub use options::{Assumption, ImportOptions, Target};
use rules::{Rewritten, Tokens, rewrite};
use tokens::{Issuers, key_file};
use wording::Draft;

/// What became of Istio's files.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The native files, one for each policy that has a say, and a file for each resource that is kept.
    pub files: Vec<Source>,
    /// What stays in Istio's form.
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

/// Rewrites files of a mesh. `targets` says which identities workloads have; without labels they default to the usual ones of the
/// namespace, and a selector by labels that no target has is a problem.
pub fn import(sources: &[Source], mesh: &Mesh, targets: &[Target]) -> Result<Imported, Problems> {
    let options =
        ImportOptions { mesh: Some(mesh.clone()), targets: targets.to_vec(), ..ImportOptions::default() };
    import_with(sources, &options)
}

/// Rewrites files, with all that can be told about them.
pub fn import_with(sources: &[Source], options: &ImportOptions) -> Result<Imported, Problems> {
    let mut surprises = BTreeSet::new();
    let (mut found, mesh) = match &options.mesh {
        Some(mesh) => (read(sources, mesh)?, mesh.clone()),
        None => guessed(sources, &mut surprises)?,
    };
    let mut problems = Problems::default();
    surprises.extend(found.warnings.iter().map(|warning| of_warning(warning, &found.names)));
    if options.exact {
        surprises.extend(exact::keep_unsayable(&mut found, &mesh, options)?);
    }
    let issuers = Issuers::of(&found.tokens);
    let (mut drafts, mut declared) = (Vec::new(), BTreeMap::new());
    for policy in &found.policies {
        let about = About { policy, mesh: &mesh, options, opens: opens(policy, &found.policies) };
        match about.rewritten(&issuers, &mut declared, &mut surprises) {
            Ok(draft) => drafts.extend(draft),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut files: Vec<Source> = drafts
        .iter()
        .map(|draft| Source::new(format!("{}.yaml", draft.name), wording::policy(draft)))
        .collect();
    let keys = declared.values().filter_map(|issuer| key_file(issuer));
    files.extend(keys.map(|(name, text)| Source::new(name, text)));
    let (taken, kept) = (taken(&found.tokens, &declared), found.kept);
    surprises.extend(taken.iter().map(|name| at(name, TAKEN)));
    let stays =
        |kept: &Kept| !taken.iter().any(|name| *name.file == *kept.file && name.at.start.line == kept.line);
    let kept: Vec<Kept> = kept.into_iter().filter(stays).collect();
    files.extend(exact::documents(sources, &kept));
    compile_with(&files, &Options { mesh, ..Options::default() })?;
    Ok(Imported { files, kept, surprises: surprises.into_iter().collect() })
}

// No two files may declare one issuer, so what the native files declare does not stay in Istio's form beside them.
fn taken<'t>(tokens: &'t [RequestAuthentication], declared: &BTreeMap<Arc<str>, &Issuer>) -> Vec<&'t Name> {
    let is_taken =
        |one: &&RequestAuthentication| one.issuers.iter().any(|issuer| declared.contains_key(&issuer.issuer));
    tokens.iter().filter(is_taken).map(|one| &one.name).collect()
}

fn at(name: &Name, message: &str) -> Surprise {
    Surprise {
        file: name.file.to_string(),
        line: name.at.start.line,
        policy: name.full().to_string(),
        message: message.to_owned(),
    }
}

// Where nobody says which mesh the files are of, and all callers in them are of one trust domain, it is that one.
fn guessed(sources: &[Source], surprises: &mut BTreeSet<Surprise>) -> Result<(Found, Mesh), Problems> {
    let mut mesh = Mesh::default();
    let found = read(sources, &mesh)?;
    let Some((domain, surprise)) = only_domain(&found.policies) else { return Ok((found, mesh)) };
    if domain == mesh.trust_domain {
        return Ok((found, mesh));
    }
    surprises.insert(surprise);
    mesh.trust_domain = domain;
    Ok((read(sources, &mesh)?, mesh))
}

fn only_domain(policies: &[Authorization]) -> Option<(String, Surprise)> {
    let principals = policies.iter().flat_map(|policy| policy.principals().map(move |text| (policy, text)));
    let mut domains = principals.filter_map(|(policy, text)| {
        let (domain, _) = text.split_once('/')?;
        (!domain.contains('*')).then_some((policy, domain))
    });
    let (policy, domain) = domains.next()?;
    if domains.any(|(_, other)| other != domain) || identity::TrustDomain::parse(domain).is_err() {
        return None;
    }
    let message =
        format!("every caller that is named is of {domain}, which is taken for the trust domain of the mesh");
    Some((domain.to_owned(), at(&policy.name, &message)))
}

#[derive(Default)]
struct Found {
    policies: Vec<Authorization>,
    tokens: Vec<RequestAuthentication>,
    kept: Vec<Kept>,
    /// The names of all resources, in the order of the files.
    names: Vec<Name>,
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
                found.names.extend(read.resources.iter().map(|resource| resource.name().clone()));
                for resource in read.resources {
                    match resource {
                        Resource::Authorization(policy) => found.policies.push(policy),
                        Resource::Peers(_) => found.kept.push(keep(&resource)),
                        Resource::Tokens(ref tokens) => {
                            found.kept.push(keep(&resource));
                            found.tokens.push(tokens.clone());
                        }
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

// It is about the last resource in the file that begins before the line.
fn of_warning(warning: &Problem, names: &[Name]) -> Surprise {
    let line = warning.position.map_or(0, |place| place.line);
    let in_file = || names.iter().filter(|name| *name.file == *warning.file);
    let before = in_file().rfind(|name| name.at.start.line <= line);
    let name = before.or_else(|| in_file().next());
    Surprise {
        file: warning.file.clone(),
        line,
        policy: name.map(|name| name.full().to_string()).unwrap_or_default(),
        message: warning.message.clone(),
    }
}

// Whether a policy that denies stands alone, so that Istio lets everything else pass.
fn opens(policy: &Authorization, all: &[Authorization]) -> bool {
    let overlaps = |other: &Authorization| exact::overlap(&policy.scope.within, &other.scope.within);
    policy.action == Action::Deny
        && !all.iter().any(|other| other.action == Action::Allow && !other.dry_run && overlaps(other))
}

/// A policy and what must be known to rewrite it.
struct About<'p> {
    policy: &'p Authorization,
    mesh: &'p Mesh,
    options: &'p ImportOptions,
    opens: bool,
}

impl About<'_> {
    fn rewritten<'i>(
        &self,
        issuers: &Issuers<'i>,
        declared: &mut BTreeMap<Arc<str>, &'i Issuer>,
        surprises: &mut BTreeSet<Surprise>,
    ) -> Result<Option<Draft<'i>>, Problems> {
        let line = self.policy.name.at.start.line;
        if let Some(why) = self.left_out() {
            surprises.insert(self.surprise(line, why));
            return Ok(None);
        }
        let protects = scopes::protects(self.policy, self.mesh, &self.options.targets)?;
        if matches!(self.policy.scope.within, Within::Mesh) {
            surprises.insert(self.surprise(line, ROOT));
        }
        let at = issuers.at(&self.policy.scope);
        let tokens = Tokens { issuers: &at, elsewhere: issuers.elsewhere(&at) };
        let mut rules = Vec::new();
        for rule in &self.policy.selected(self.mesh)?.policy.rules {
            let mut notes = Vec::new();
            rules.extend(self.sayable(rule, tokens, &mut notes));
            let place = rule.reference.line;
            surprises.extend(notes.iter().map(|note| self.surprise(place, note)));
        }
        for note in self.about_all(&mut rules) {
            surprises.insert(self.surprise(line, note));
        }
        let used = |issuer: &&Issuer| {
            rules.iter().filter_map(|rule| rule.jwt.as_ref()).any(|jwt| *jwt.issuer == *issuer.issuer)
        };
        let fresh: Vec<&Issuer> = at
            .iter()
            .copied()
            .filter(used)
            .filter(|issuer| declared.insert(Arc::clone(&issuer.issuer), issuer).is_none())
            .collect();
        let name = wording::name(&self.policy.name.namespace, &self.policy.name.name);
        let origin = format!("{}:{line}", self.policy.name.file);
        Ok(Some(Draft { name, origin, protects, issuers: fresh, rules }))
    }

    fn surprise(&self, line: u32, message: &str) -> Surprise {
        Surprise { line, ..at(&self.policy.name, message) }
    }

    fn left_out(&self) -> Option<&'static str> {
        if self.policy.dry_run {
            return Some(
                "a dry run is left out: write it as mode: shadow, which needs the day from which it enforces",
            );
        }
        match self.policy.action {
            Action::Audit => Some("a policy that only audits is left out: every refusal is on record anyhow"),
            Action::Allow | Action::Deny => None,
        }
    }

    // What the rewriting came to and the language refuses all the same is treated as what cannot be said.
    fn sayable(&self, rule: &Rule, tokens: Tokens<'_>, notes: &mut Vec<String>) -> Vec<Rewritten> {
        let known = Known { mesh: self.mesh, assumed: &self.options.assumed };
        let mut kept = Vec::new();
        for rewritten in rewrite(rule, known, tokens, notes) {
            let name = rewritten.name.clone();
            match (wording::refused(&rewritten, tokens.issuers), rewritten.effect) {
                (None, _) => kept.push(rewritten),
                (Some(why), Effect::Allow) => {
                    notes.push(format!("left out, for a native rule cannot say it: {why}"));
                }
                (Some(why), Effect::Deny) => {
                    notes.push(format!("everything is denied, for a native rule cannot say less: {why}"));
                    kept.push(Rewritten::refusal(name));
                }
            }
        }
        kept
    }

    fn about_all(&self, rules: &mut Vec<Rewritten>) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if rules.iter().any(|rule| rule.effect == Effect::Allow && rule.http.is_some()) {
            notes.push("tunnels and upgrades are not granted by http; write connect or upgrade for them");
        }
        match (self.policy.action, self.opens) {
            (Action::Deny, true) => {
                notes.push("Istio lets everything pass that no policy denies where none allows: the rules rest-tcp and rest-http say so; remove them if you can");
                rules.extend(Rewritten::everything());
            }
            (Action::Allow, _) if self.policy.rules.is_empty() => {
                notes.push("a policy that allows without rules refuses everything");
            }
            (Action::Allow | Action::Deny | Action::Audit, _) => {}
        }
        notes
    }
}

const ROOT: &str = "it applies to every namespace of the trust domain, beside the policies there";
const TAKEN: &str = "it is rewritten as issuers: tokens are looked for in Authorization: Bearer alone and go on to the application, and one that proves nothing is refused only where a rule needs one";
