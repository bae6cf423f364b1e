//! What has to change so that the registry holds what is wanted.

use std::collections::BTreeMap;

use crate::model::{Entry, EntryId, EntrySpec, Origin};

/// What to do with entries that nobody listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// Leave them.
    Keep,
    /// Delete those that were made by hand. An agent's alias is not: without it the agent would lose everything below.
    Delete,
}

/// The difference between what is wanted and what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Not there.
    pub create: Vec<EntrySpec>,
    /// There with other details.
    pub update: Vec<(EntryId, EntrySpec)>,
    /// There and not wanted.
    pub delete: Vec<EntryId>,
    /// There as wanted.
    pub unchanged: Vec<EntryId>,
}

/// Compares by identity, parent and selectors, which make two entries the same registration.
pub fn plan(wanted: &[EntrySpec], present: &[Entry], prune: Prune) -> Plan {
    let mut unseen: BTreeMap<_, _> = present.iter().map(|entry| (entry.spec.key(), entry)).collect();
    let mut plan = Plan::default();
    for spec in wanted {
        match unseen.remove(&spec.key()) {
            None => plan.create.push(spec.clone()),
            Some(entry) if entry.spec == *spec => plan.unchanged.push(entry.id.clone()),
            Some(entry) => plan.update.push((entry.id.clone(), spec.clone())),
        }
    }
    match prune {
        Prune::Keep => {}
        Prune::Delete => {
            let by_hand = |entry: &&Entry| entry.origin == Origin::Api && !entry.spec.is_token_alias();
            let by_hand = unseen.into_values().filter(by_hand);
            plan.delete.extend(by_hand.map(|entry| entry.id.clone()));
        }
    }
    plan
}
