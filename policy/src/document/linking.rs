//! What one file says of another: issuers of tokens, and the key sets beside the policies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use identity::jwt::KeySet;

use super::read::{Document, quoted};
use super::{Effect, Issuer, Policy, RequestCondition};
use crate::strict::{Problem, Problems, Source, Span, suggest};

/// An issuer that a rule or test case relies on.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(super) issuer: Arc<str>,
    pub(super) at: Span,
    pub(super) audience: Audience,
}

/// Who says for whom a token must be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// The rule does, or it does not matter.
    Said,
    /// The declaration of the issuer must.
    OfIssuer,
}

/// An issuer that a file declares.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) issuer: Arc<Issuer>,
    pub(super) at: Span,
}

/// The key sets of a directory: the files whose names end in `.json`.
#[derive(Debug, Default)]
pub(crate) struct KeyFiles {
    sets: BTreeMap<String, Arc<str>>,
    refused: BTreeSet<String>,
}

impl KeyFiles {
    /// Whether a file is a key set rather than a policy.
    pub(crate) fn is_one(source: &Source) -> bool {
        source.name.ends_with(SUFFIX)
    }

    /// Reads the key sets among the files. A key that must stay secret refuses its set.
    pub(crate) fn read<'s>(sources: impl Iterator<Item = &'s Source>, problems: &mut Problems) -> Self {
        let mut files = Self::default();
        for source in sources.filter(|source| Self::is_one(source)) {
            let name = source.name.clone();
            if files.sets.contains_key(&name) || files.refused.contains(&name) {
                problems.push_within(MAX_SHOWN, Problem::in_file(&name, "the file is given twice", None));
                continue;
            }
            match KeySet::parse(source.text.as_bytes()) {
                Ok(_) => {
                    files.sets.insert(name, source.text.as_str().into());
                }
                Err(error) => {
                    let cure = "a key set is {\"keys\": […]} with the public keys of the issuer (RFC 7517)";
                    let message = format!("the file is no key set: {error}");
                    problems.push_within(MAX_SHOWN, Problem::in_file(&name, message, Some(cure.to_owned())));
                    files.refused.insert(name);
                }
            }
        }
        files
    }

    /// The key set `name` beside the file `beside`.
    pub(super) fn find(&self, name: &str, beside: &str) -> Found<'_> {
        let full = format!("{}{name}", folder(beside));
        if self.refused.contains(&full) {
            return Found::Refused;
        }
        match self.sets.get(&full) {
            Some(text) => Found::Set(text),
            None => {
                let near = self.sets.keys().filter_map(|other| other.strip_prefix(folder(beside)));
                Found::Nothing { near: suggest(name, near) }
            }
        }
    }
}

/// What is found under the name of a key set.
pub(super) enum Found<'k> {
    Set(&'k Arc<str>),
    /// A file that is no key set, about which a problem is noted already.
    Refused,
    Nothing {
        near: Option<&'k str>,
    },
}

/// Gives every policy the issuers that its rules rely on, wherever they are declared. `complete` says that every file
/// could be read: what is missing may otherwise be in one that could not.
pub(crate) fn link(
    documents: &mut [(&Source, Document)],
    keys: &KeyFiles,
    complete: bool,
    problems: &mut Problems,
) {
    let declared = all_declared(documents, problems);
    if complete {
        unused(documents, keys, problems);
    }
    for (source, document) in documents {
        for wanted in &document.relied_on {
            match declared.get(&wanted.issuer) {
                Some(issuer) => {
                    if wanted.audience == Audience::OfIssuer && issuer.audiences.is_empty() {
                        problems.push_within(MAX_SHOWN, no_audience(source, wanted));
                    }
                    let policy = Arc::make_mut(&mut document.policy);
                    rely(policy, issuer);
                    mean(policy, issuer);
                }
                None if complete => problems.push_within(MAX_SHOWN, undeclared(source, wanted, &declared)),
                None => {}
            }
        }
    }
}

fn all_declared(
    documents: &[(&Source, Document)],
    problems: &mut Problems,
) -> HashMap<Arc<str>, Arc<Issuer>> {
    let mut declared: HashMap<Arc<str>, (Arc<Issuer>, &str)> = HashMap::new();
    for (source, document) in documents {
        for Declared { issuer, at } in &document.declared {
            let entry = (Arc::clone(issuer), source.name.as_str());
            if let Some((_, first)) = declared.insert(Arc::clone(&issuer.issuer), entry) {
                let message = format!("the issuer {} is already declared in {first}", quoted(&issuer.issuer));
                let cure = "declare an issuer once; every file of the directory may rely on it".to_owned();
                problems.push_within(MAX_SHOWN, Problem::at(source, *at, message, Some(cure)));
            }
        }
    }
    declared.into_iter().map(|(name, (issuer, _))| (name, issuer)).collect()
}

fn rely(policy: &mut Policy, issuer: &Arc<Issuer>) {
    if !policy.issuers.iter().any(|known| known.issuer == issuer.issuer) {
        policy.issuers.push(Arc::clone(issuer));
    }
}

// What verifies tokens takes none for others than the declaration names, so no rule grants anything to one: offline
// answers and proofs are to say the same. A deny rule is not escaped by such a token either way.
fn mean(policy: &mut Policy, issuer: &Issuer) {
    for rule in policy.rules.iter_mut().filter(|rule| rule.effect == Effect::Allow) {
        let open = |condition: &RequestCondition| matches!(condition, RequestCondition::Token(limits) if *limits.issuer == *issuer.issuer && limits.audiences.is_empty());
        if issuer.audiences.is_empty() || !rule.at_request.iter().any(open) {
            continue;
        }
        for condition in Arc::make_mut(rule).at_request.iter_mut().filter(|condition| open(condition)) {
            if let RequestCondition::Token(limits) = condition {
                limits.audiences.clone_from(&issuer.audiences);
            }
        }
    }
}

fn undeclared(source: &Source, wanted: &Wanted, declared: &HashMap<Arc<str>, Arc<Issuer>>) -> Problem {
    let near = suggest(&wanted.issuer, declared.keys().map(|name| &**name));
    let cure = match near {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "declare it with its keys under \"issuers\", here or in another file".to_owned(),
    };
    let message = format!("no file declares the issuer {}", quoted(&wanted.issuer));
    Problem::at(source, wanted.at, message, Some(cure))
}

// RFC 8725 3.9: a token for somebody else proves nothing here.
fn no_audience(source: &Source, wanted: &Wanted) -> Problem {
    let message = "nothing says for whom the token must be meant";
    let cure = "add \"audience:\" to the rule or \"audiences:\" to the issuer; \"audience: any\" takes tokens for anybody";
    Problem::at(source, wanted.at, message, Some(cure.to_owned()))
}

fn unused(documents: &[(&Source, Document)], keys: &KeyFiles, problems: &mut Problems) {
    let used: BTreeSet<String> = documents
        .iter()
        .flat_map(|(source, document)| {
            document.key_files.iter().map(|name| format!("{}{name}", folder(&source.name)))
        })
        .collect();
    for name in keys.sets.keys().filter(|name| !used.contains(*name)) {
        let cure = "name it under \"issuers\", as keys: {file: …}, or remove it".to_owned();
        let message = "no issuer refers to this key set";
        problems.push_within(MAX_SHOWN, Problem::in_file(name, message, Some(cure)));
    }
}

fn folder(name: &str) -> &str {
    name.rsplit_once('/').and_then(|(folder, _)| name.get(..=folder.len())).unwrap_or_default()
}

/// How the names of key sets end.
pub(super) const SUFFIX: &str = ".json";

/// Problems shown of this kind; the others are counted.
const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests;
