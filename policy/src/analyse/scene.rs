//! The workloads of a question, and what the policies of one amount to: what grants, and what refuses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use identity::SpiffeId;

use super::blocks::Block;
use super::budget::{Budget, Spent};
use super::language::{Pattern, Universe, partition};
use super::space::{Space, Survey};
use super::witness::Witness;
use crate::decision::{Decision, RuleRef};
use crate::document::{Effect, Rule};
use crate::pattern::IdPattern;
use crate::set::PolicySet;
use crate::workload::WorkloadPolicies;

/// One workload for each combination of patterns that a workload can satisfy.
pub(super) fn workloads<'p>(
    patterns: impl Iterator<Item = &'p IdPattern>,
    budget: &mut Budget,
) -> Result<Vec<SpiffeId>, Spent> {
    let mut numbers: HashMap<Pattern, ()> = HashMap::new();
    let mut list = Vec::new();
    for pattern in patterns.map(Pattern::ids) {
        if numbers.insert(pattern.clone(), ()).is_none() {
            list.push(pattern);
        }
    }
    let atoms = partition(Universe::Ids, &list, budget)?.atoms;
    let named = atoms.into_iter().filter(|atom| !atom.patterns.is_empty());
    // What has no ID short enough is no workload.
    let mut ids: Vec<SpiffeId> = named.filter_map(|atom| SpiffeId::parse(&atom.witness).ok()).collect();
    ids.sort();
    Ok(ids)
}

/// What stands before one workload at one moment.
pub(super) struct Scene {
    pub(super) to: SpiffeId,
    pub(super) now: SystemTime,
    pub(super) policies: WorkloadPolicies,
    rules: Vec<Arc<Rule>>,
    standing: Standing,
    refuses_invalid_tokens: bool,
}

/// What happens to what no rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No policy protects the workload, and everything is refused.
    Unprotected,
    /// It is refused.
    Closed,
    /// It passes.
    Open,
}

impl Scene {
    pub(super) fn new(set: &PolicySet, to: &SpiffeId, now: SystemTime) -> Self {
        let policies = set.for_workload(to);
        let (rules, standing, refuses_invalid_tokens) = match policies.protected() {
            Err(_) => (Vec::new(), Standing::Unprotected, false),
            Ok(protected) => {
                let all = protected.policies.iter().flat_map(|policy| &policy.rules);
                let enforcing = all.filter(|rule| rule.mode.enforces_at(now)).cloned().collect();
                let standing = if protected.closes(now) { Standing::Closed } else { Standing::Open };
                (enforcing, standing, protected.refuses_invalid_tokens)
            }
        };
        Self { to: to.clone(), now, policies, rules, standing, refuses_invalid_tokens }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) fn survey<'s>(&'s self, survey: &mut Survey<'s>) {
        self.rules.iter().for_each(|rule| survey.rule(rule));
        if self.refuses_invalid_tokens {
            survey.tokens();
        }
    }

    /// The rules as blocks of a space that was made for them.
    pub(super) fn layout(&self, space: &Space, budget: &mut Budget) -> Result<Layout<'_>, Spent> {
        let mut layout = Layout { grants: Vec::new(), refusals: Vec::new() };
        for rule in &self.rules {
            budget.spend(1)?;
            let blocks = space.blocks(rule).into_iter().map(|block| Part { rule: Some(&**rule), block });
            match rule.effect {
                Effect::Allow => layout.grants.extend(blocks),
                Effect::Deny => layout.refusals.extend(blocks),
            }
        }
        if self.standing == Standing::Open {
            layout.grants.push(Part { rule: None, block: space.whole() });
        }
        if self.refuses_invalid_tokens {
            let refused = space.invalid_tokens().map(|block| Part { rule: None, block });
            layout.refusals.extend(refused);
        }
        Ok(layout)
    }

    /// An access of the block, on which the policies themselves agree that it passes.
    pub(super) fn passing(&self, space: &Space, block: &Block) -> Option<(Witness, Option<RuleRef>)> {
        let witness = Witness::new(&self.to, space.sample(block)?)?;
        match witness.decide(&self.policies, self.now)? {
            Decision::Allow(allowed) => Some((witness, allowed.rule)),
            Decision::Deny(_) => None,
        }
    }

    /// The denial of an access, if the policies refuse it.
    pub(super) fn refuses(&self, witness: &Witness) -> bool {
        witness.decide(&self.policies, self.now).is_some_and(|decision| !decision.is_allowed())
    }
}

/// What grants and what refuses, as blocks.
pub(super) struct Layout<'s> {
    pub(super) grants: Vec<Part<'s>>,
    pub(super) refusals: Vec<Part<'s>>,
}

/// A block, and the rule that it comes from; absent for what the policies say without one.
pub(super) struct Part<'s> {
    pub(super) rule: Option<&'s Rule>,
    pub(super) block: Block,
}

impl Part<'_> {
    pub(super) fn reference(&self) -> Option<RuleRef> {
        self.rule.map(|rule| rule.reference.clone())
    }
}

impl Layout<'_> {
    /// The blocks of accesses that are refused or cannot occur.
    pub(super) fn taken<'l>(&'l self, space: &'l Space) -> Vec<&'l Block> {
        self.refusals.iter().map(|part| &part.block).chain(space.impossible()).collect()
    }
}
