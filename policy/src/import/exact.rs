//! What stays in Istio's form: policies that a native file cannot say whole, and the text of everything that stays.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::ANYBODY;
use super::{About, Found, Kept, Surprise, at, opens};
use crate::document::Issuer;
use crate::import::{ImportOptions, tokens::Issuers};
use crate::istio::{Authorization, Within};
use crate::mesh::Mesh;
use crate::strict::{Problems, Source};

/// Takes out of `found` what cannot be said whole and what decides beside it, and says why each stays.
///
/// Native files and Istio's have other defaults, so that all that decides about one workload is of one form.
pub(super) fn keep_unsayable(
    found: &mut Found,
    mesh: &Mesh,
    options: &ImportOptions,
) -> Result<Vec<Surprise>, Problems> {
    let mut why = reasons(found, mesh, options)?;
    while let Some(index) = (0..found.policies.len()).find(|index| {
        let policy = found.policies.get(*index);
        !why.contains_key(index) && policy.is_some_and(|policy| decides_beside(policy, found, &why))
    }) {
        why.insert(index, BESIDE.to_owned());
    }
    let policies = std::mem::take(&mut found.policies);
    let mut said = Vec::new();
    for (index, policy) in policies.into_iter().enumerate() {
        match why.get(&index) {
            Some(reason) => {
                said.push(at(&policy.name, &format!("it stays in Istio's form: {reason}")));
                found.kept.push(kept(&policy));
            }
            None => found.policies.push(policy),
        }
    }
    Ok(said)
}

/// Says of each policy that cannot be said whole what cannot.
fn reasons(found: &Found, mesh: &Mesh, options: &ImportOptions) -> Result<BTreeMap<usize, String>, Problems> {
    let issuers = Issuers::of(&found.tokens);
    let mut why = BTreeMap::new();
    for (index, policy) in found.policies.iter().enumerate() {
        let about = About { policy, mesh, options, opens: opens(policy, &found.policies) };
        let mut declared: BTreeMap<_, &Issuer> = BTreeMap::new();
        let mut surprises = BTreeSet::new();
        if let Some(reason) = about.left_out() {
            why.insert(index, reason.to_owned());
            continue;
        }
        about.rewritten(&issuers, &mut declared, &mut surprises)?;
        let of_rules = surprises
            .iter()
            .find(|surprise| surprise.line != policy.name.at.start.line && surprise.message != ANYBODY);
        if let Some(surprise) = of_rules {
            why.insert(index, surprise.message.clone());
        } else if !declared.is_empty() {
            why.insert(index, TOKENS.to_owned());
        }
    }
    Ok(why)
}

fn decides_beside(policy: &Authorization, found: &Found, why: &BTreeMap<usize, String>) -> bool {
    let mut kept = why.keys().filter_map(|index| found.policies.get(*index));
    kept.any(|kept| overlap(&policy.scope.within, &kept.scope.within))
}

/// Whether two policies may select one workload.
pub(super) fn overlap(one: &Within, other: &Within) -> bool {
    match (one, other) {
        (Within::Mesh, _) | (_, Within::Mesh) => true,
        (Within::Namespace(one), Within::Namespace(other)) => one == other,
    }
}

fn kept(policy: &Authorization) -> Kept {
    Kept {
        kind: "AuthorizationPolicy",
        name: policy.name.full().to_string(),
        file: policy.name.file.to_string(),
        line: policy.name.at.start.line,
    }
}

/// Returns a file for each resource that is kept, as it was written.
pub(super) fn documents(sources: &[Source], kept: &[Kept]) -> Vec<Source> {
    let mut names = BTreeSet::new();
    let files = kept.iter().filter_map(|kept| {
        let source = sources.iter().find(|source| *source.name == *kept.file)?;
        let text = document(&source.text, kept.line)?;
        let mut name = format!("istio-{}-{}", kept.kind, kept.name.replace('/', "-"));
        while !names.insert(name.clone()) {
            name.push('x');
        }
        let head = format!("# As it stands in {}:{}.\n", kept.file, kept.line);
        Some(Source::new(format!("{}.yaml", name.to_ascii_lowercase()), head + &text))
    });
    files.collect()
}

/// Returns the YAML document that a line is in. `---` at the beginning of a line always ends one (YAML 1.2.2 9.1.2).
fn document(text: &str, line: u32) -> Option<String> {
    let mut first = 1;
    let mut document = String::new();
    for (number, found) in (1_u32..).zip(text.split_inclusive('\n')) {
        if found.trim_end() == "---" || found.starts_with("--- ") {
            if (first..number).contains(&line) {
                break;
            }
            first = number;
            document.clear();
            continue;
        }
        document.push_str(found);
    }
    (line >= first).then_some(document)
}

const BESIDE: &str = "it decides beside a policy that does";
const TOKENS: &str =
    "it asks for tokens, which Istio looks for in other places and refuses where a native file lets them be";
