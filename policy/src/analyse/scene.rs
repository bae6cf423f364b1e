//! What the policies of one workload amount to: what grants, and what refuses.

mod workloads;

use std::sync::Arc;
use std::time::SystemTime;

pub(super) use workloads::every_workload;

use super::blocks::Block;
use super::budget::{Budget, Spent};
use super::space::{Space, Survey};
use super::witness::{View, Witness};
use crate::decision::{Decision, RuleRef};
use crate::document::{Effect, Issuer, Mode, Policy, Rule};
use crate::mesh::Workload;
use crate::set::PolicySet;
use crate::workload::WorkloadPolicies;

/// What stands before one workload at one moment.
pub(super) struct Scene {
    pub(super) to: Workload,
    now: SystemTime,
    view: View,
    policies: WorkloadPolicies,
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
    pub(super) fn new(set: &PolicySet, to: &Workload, now: SystemTime) -> Self {
        Self::of(set.protecting(to), View::of(set), to, now)
    }

    /// The same at another moment.
    pub(super) fn at(&self, now: SystemTime) -> Self {
        Self::of(self.policies.clone(), self.view, &self.to, now)
    }

    fn of(policies: WorkloadPolicies, view: View, to: &Workload, now: SystemTime) -> Self {
        let (rules, standing, refuses_invalid_tokens) = match policies.protected() {
            Err(_) => (Vec::new(), Standing::Unprotected, false),
            Ok(protected) => {
                let all = protected.policies.iter().flat_map(|policy| &policy.rules);
                let enforcing = all.filter(|rule| rule.mode.enforces_at(now)).cloned().collect();
                let standing = if protected.closes(now) { Standing::Closed } else { Standing::Open };
                (enforcing, standing, protected.refuses_invalid_tokens)
            }
        };
        Self { to: to.clone(), now, view, policies, rules, standing, refuses_invalid_tokens }
    }

    /// The rules that enforce.
    pub(super) fn rules(&self) -> impl DoubleEndedIterator<Item = &Rule> {
        self.rules.iter().map(|rule| &**rule)
    }

    /// The modes of the policies.
    pub(super) fn modes(&self) -> impl Iterator<Item = Mode> {
        self.policies.policies().map(Policy::mode)
    }

    /// Whose tokens prove something.
    pub(super) fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.policies.issuers().map(|issuer| &**issuer)
    }

    /// Whether a request with a token that proves nothing is refused.
    pub(super) fn refuses_invalid_tokens(&self) -> bool {
        self.refuses_invalid_tokens
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
        match witness.decide_by(&self.policies, self.view, self.now)? {
            Decision::Allow(allowed) => Some((witness, allowed.rule)),
            Decision::Deny(_) => None,
        }
    }

    /// The denial of an access, if the policies refuse it.
    pub(super) fn refuses(&self, witness: &Witness) -> bool {
        witness.decide_by(&self.policies, self.view, self.now).is_some_and(|decision| !decision.is_allowed())
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
