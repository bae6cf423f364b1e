//! The workloads that policies can tell apart: by identity, and where Istio's files select them, by namespace and labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use identity::SpiffeId;

use crate::analyse::budget::{Budget, Spent};
use crate::analyse::language::{Class, Pattern, Step, Universe, partition};
use crate::istio::{Scope, Within};
use crate::mesh::{Unselected, Workload};
use crate::pattern::{Case, IdPattern};
use crate::set::{PolicySet, SetKind};

/// One workload for each combination of policies that a workload can have, and for those that are asked about.
pub(in crate::analyse) fn every_workload(
    sets: &[&PolicySet],
    to: Option<&IdPattern>,
    budget: &mut Budget,
) -> Result<Vec<Workload>, Spent> {
    let scopes: Vec<&Scope> = sets.iter().flat_map(|set| set.scopes()).collect();
    let mut patterns = Patterns::default();
    for policy in sets.iter().flat_map(|set| set.policies()) {
        policy.protects().iter().for_each(|id| patterns.add(Pattern::ids(id)));
        policy
            .guarantees
            .iter()
            .flat_map(|guarantee| &guarantee.to)
            .for_each(|id| patterns.add(Pattern::ids(id)));
    }
    to.into_iter().for_each(|id| patterns.add(Pattern::ids(id)));
    let domain = sets.last().map(|set| set.mesh().trust_domain).unwrap_or_default();
    for scope in &scopes {
        if let Within::Namespace(namespace) = &scope.within {
            patterns.add(in_namespace(namespace, &domain));
        }
    }
    let everywhere = scopes.iter().any(|scope| scope.within == Within::Mesh);
    let open = |set: &&PolicySet| set.kind() == SetKind::Istio && set.mesh().unselected == Unselected::Allow;
    if everywhere || sets.iter().any(open) {
        patterns.add(in_namespace("other", &domain));
        patterns.add(Pattern { alternatives: vec![vec![Step::Any(Class::Byte)]], case: Case::Sensitive });
    }
    let atoms = partition(Universe::Ids, &patterns.list, budget)?.atoms;
    let named = atoms.into_iter().filter(|atom| !atom.patterns.is_empty());
    // What has no ID short enough is no workload.
    let mut ids: Vec<SpiffeId> = named.filter_map(|atom| SpiffeId::parse(&atom.witness).ok()).collect();
    ids.sort();
    let mut workloads = Vec::new();
    for id in ids {
        let workload = Workload::of(&id);
        for labels in every_labels(&workload, &scopes, budget)? {
            workloads.push(Workload { labels, ..workload.clone() });
        }
    }
    Ok(workloads)
}

#[derive(Default)]
struct Patterns {
    seen: HashMap<Pattern, ()>,
    list: Vec<Pattern>,
}

impl Patterns {
    fn add(&mut self, pattern: Pattern) {
        if self.seen.insert(pattern.clone(), ()).is_none() {
            self.list.push(pattern);
        }
    }
}

// `spiffe://T/ns/N` and below, of whatever trust domain; the first form is what a report shows.
fn in_namespace(namespace: &str, domain: &str) -> Pattern {
    let text = |text: String| Step::Text(text.into());
    let (start, any) = (text("spiffe://".to_owned()), Step::Some(Class::NotSlash));
    let shown = vec![text(format!("spiffe://{domain}/ns/{namespace}/sa/")), Step::Some(Class::NotSlash)];
    let bare = vec![start.clone(), any.clone(), text(format!("/ns/{namespace}"))];
    let below = vec![start, any, text(format!("/ns/{namespace}/")), Step::Some(Class::Byte)];
    Pattern { alternatives: vec![shown, bare, below], case: Case::Sensitive }
}

// Labels by which different policies select the workload: every combination of the selectors that do not contradict.
fn every_labels(
    workload: &Workload,
    scopes: &[&Scope],
    budget: &mut Budget,
) -> Result<Vec<BTreeMap<String, String>>, Spent> {
    let bare = |scope: &&&Scope| Scope { labels: BTreeMap::new(), ..(**scope).clone() }.selects(workload);
    let selectors: BTreeSet<&BTreeMap<Arc<str>, Arc<str>>> =
        scopes.iter().filter(bare).map(|scope| &scope.labels).collect();
    let mut all: BTreeSet<BTreeMap<String, String>> = BTreeSet::from([BTreeMap::new()]);
    for selector in selectors {
        let mut more = Vec::new();
        for labels in &all {
            budget.spend(selector.len() + 1)?;
            let contradicts = |(name, value): (&Arc<str>, &Arc<str>)| {
                labels.get(&**name).is_some_and(|found: &String| **found != **value)
            };
            if !selector.iter().any(contradicts) {
                let added = selector.iter().map(|(name, value)| (name.to_string(), value.to_string()));
                more.push(labels.clone().into_iter().chain(added).collect());
            }
        }
        all.extend(more);
        if all.len() > MAX_COMBINATIONS {
            return Err(Spent);
        }
    }
    Ok(all.into_iter().collect())
}

// Most combinations of selectors in one namespace.
const MAX_COMBINATIONS: usize = 1_024;
