//! What a listing asks for, with SPIRE's four ways of matching sets.

use std::collections::BTreeSet;

use identity::{SpiffeId, TrustDomain};

use super::subset;
use crate::model::{EntrySpec, Node, Selector, Standing};

/// How a set asked for relates to the set found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Both are equal.
    Exact,
    /// What is found lies within what is asked for.
    Subset,
    /// What is found holds all that is asked for.
    Superset,
    /// Both share something.
    Any,
}

/// What entries to list. A field left out accepts all.
#[derive(Clone, Debug, Default)]
pub struct EntryFilter {
    /// Exactly this identity.
    pub spiffe_id: Option<SpiffeId>,
    /// Exactly this parent.
    pub parent_id: Option<SpiffeId>,
    /// Selectors, sorted.
    pub selectors: Option<(Match, Vec<Selector>)>,
    /// Foreign trust domains.
    pub federates_with: Option<(Match, BTreeSet<TrustDomain>)>,
    /// Exactly this hint.
    pub hint: Option<String>,
    /// Downstream entries only, or all but them.
    pub downstream: Option<bool>,
}

impl EntryFilter {
    /// Whether `spec` is asked for.
    pub fn accepts(&self, spec: &EntrySpec) -> bool {
        self.spiffe_id.as_ref().is_none_or(|id| *id == spec.spiffe_id)
            && self.parent_id.as_ref().is_none_or(|id| *id == spec.parent_id)
            && self.selectors.as_ref().is_none_or(|(how, want)| selectors_match(*how, want, &spec.selectors))
            && self.federates_with.as_ref().is_none_or(|(how, want)| {
                let found: BTreeSet<_> = spec.federates_with.iter().cloned().collect();
                sets_match(*how, want, &found)
            })
            && self.hint.as_ref().is_none_or(|hint| *hint == spec.hint)
            && self.downstream.is_none_or(|wanted| wanted == spec.downstream)
    }
}

/// What agents to list. A field left out accepts all.
#[derive(Clone, Debug, Default)]
pub struct NodeFilter {
    /// Exactly this way of attestation.
    pub attestor: Option<String>,
    /// Node selectors, sorted.
    pub selectors: Option<(Match, Vec<Selector>)>,
    /// Agents of this standing.
    pub standing: Option<Standing>,
    /// Whether the agent can attest again by itself; with join tokens none can.
    pub can_reattest: Option<bool>,
    /// Agents whose SVID ends before this.
    pub expires_before: Option<i64>,
}

impl NodeFilter {
    /// Whether `node` is asked for.
    pub fn accepts(&self, node: &Node) -> bool {
        self.attestor.as_ref().is_none_or(|attestor| *attestor == node.attestor)
            && self.selectors.as_ref().is_none_or(|(how, want)| selectors_match(*how, want, &node.selectors))
            && self.standing.is_none_or(|standing| standing == node.standing)
            && self.can_reattest.is_none_or(|wanted| !wanted)
            && self.expires_before.is_none_or(|limit| node.svid.expires_at < limit)
    }
}

fn selectors_match(how: Match, want: &[Selector], found: &[Selector]) -> bool {
    match how {
        Match::Exact => want == found,
        Match::Subset => subset(found, want),
        Match::Superset => subset(want, found),
        Match::Any => found.iter().any(|selector| want.binary_search(selector).is_ok()),
    }
}

fn sets_match<T: Ord>(how: Match, want: &BTreeSet<T>, found: &BTreeSet<T>) -> bool {
    match how {
        Match::Exact => want == found,
        Match::Subset => found.is_subset(want),
        Match::Superset => found.is_superset(want),
        Match::Any => !found.is_disjoint(want),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_ways_of_matching_differ() {
        let ab = selectors(&["x:a", "x:b"]);
        let a = selectors(&["x:a"]);
        let abc = selectors(&["x:a", "x:b", "x:c"]);
        let d = selectors(&["x:d"]);
        let cases = [
            (Match::Exact, [true, false, false, false]),
            (Match::Subset, [true, true, false, false]),
            (Match::Superset, [true, false, true, false]),
            (Match::Any, [true, true, true, false]),
        ];
        for (how, expected) in cases {
            let found = [&ab, &a, &abc, &d].map(|found| selectors_match(how, &ab, found));
            assert_eq!(found, expected, "{how:?}");
        }
    }

    fn selectors(texts: &[&str]) -> Vec<Selector> {
        texts.iter().map(|text| Selector::parse(text).unwrap()).collect()
    }
}
