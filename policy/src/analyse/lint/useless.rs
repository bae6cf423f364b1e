//! Rules that change nothing: they match nothing, or others do all that they do, before every workload of theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, FindingKind, Lint};
use crate::analyse::blocks::{Block, remainder};
use crate::analyse::budget::{Budget, Spent};
use crate::analyse::scene::{Layout, Part, Scene, every_workload};
use crate::analyse::space::{Space, Survey};
use crate::analyse::{Instant, Terms, Unsettled};
use crate::decision::RuleRef;
use crate::document::{Effect, Rule};
use crate::set::PolicySet;

/// Adds the rules that are of no use.
pub(super) fn find(set: &PolicySet, terms: Terms, lint: &mut Lint) {
    let mut budget = terms.budget;
    let Ok(workloads) = every_workload(&[set], None, &mut budget) else {
        lint.unsettled.push(Unsettled::cap(None));
        return;
    };
    let mut uses: BTreeMap<RuleRef, Use> = BTreeMap::new();
    for workload in &workloads {
        let scene = Scene::new(set, workload, Instant::AfterShadows.time());
        if budget.share(|part| of_workload(&scene, &mut uses, part)).is_err() {
            lint.unsettled.push(Unsettled::cap(Some(&workload.id)));
            // What was not looked at may be of use.
            scene.rules().for_each(|rule| {
                uses.insert(rule.reference.clone(), Use::Some);
            });
        }
    }
    lint.findings.extend(uses.into_iter().filter_map(|(rule, found)| found.finding(&rule)));
}

/// What a rule does before the workloads that were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Use {
    /// Something that nothing else does.
    Some,
    /// Nothing, because it matches nothing.
    Empty,
    /// Nothing, because these deny rules refuse it all.
    Denied(BTreeSet<RuleRef>),
    /// Nothing that another rule, one of these, does not do alone.
    Repeats(BTreeSet<RuleRef>),
    /// Nothing that other rules do not do together.
    Covered,
}

impl Use {
    // A rule is of no use if it is of none before every workload.
    fn beside(self, other: Self) -> Self {
        match (self, other) {
            (Self::Some, _) | (_, Self::Some) => Self::Some,
            (Self::Empty, other) | (other, Self::Empty) => other,
            (Self::Denied(one), Self::Denied(two)) => Self::Denied(&one | &two),
            (Self::Repeats(one), Self::Repeats(two)) if !one.is_disjoint(&two) => Self::Repeats(&one & &two),
            (Self::Denied(_) | Self::Repeats(_) | Self::Covered, _) => Self::Covered,
        }
    }

    fn finding(self, rule: &RuleRef) -> Option<Finding> {
        let remove = || Some("remove it".to_owned());
        let (kind, message, cure) = match self {
            Self::Some => return None,
            Self::Empty => {
                let cure = "remove it, or look for what excludes it".to_owned();
                (FindingKind::NeverMatches, "no access can match it".to_owned(), Some(cure))
            }
            Self::Denied(by) => {
                let names: Vec<String> = by.iter().take(3).map(ToString::to_string).collect();
                let message = format!("all that it allows is denied, by {}", names.join(", "));
                let cure = "remove it, or except its callers from the deny rule".to_owned();
                (FindingKind::Contradicted, message, Some(cure))
            }
            Self::Repeats(others) => {
                let other = others.first()?;
                (FindingKind::Repeated, format!("{other} does all that it does"), remove())
            }
            Self::Covered => {
                (FindingKind::Covered, "other rules do together all that it does".to_owned(), remove())
            }
        };
        Some(Finding::of_rule(kind, rule, message, cure))
    }
}

fn of_workload(scene: &Scene, uses: &mut BTreeMap<RuleRef, Use>, budget: &mut Budget) -> Result<(), Spent> {
    let mut survey = Survey::default();
    scene.survey(&mut survey);
    let space = survey.space(budget)?;
    let layout = scene.layout(&space, budget)?;
    let view = View { space: &space, layout: &layout };
    let mut found: Vec<(RuleRef, Use)> = Vec::new();
    // From the last to the first, so that of two that do the same the first one stays.
    let mut idle: BTreeSet<RuleRef> = BTreeSet::new();
    let rules: Vec<_> = scene.rules().collect();
    for rule in rules.into_iter().rev() {
        let parts = view.alike(rule);
        let own = |part: &&Part<'_>| part.rule.is_some_and(|other| other.reference == rule.reference);
        let blocks: Vec<&Block> = parts.iter().filter(own).map(|part| &part.block).collect();
        budget.spend(parts.len())?;
        let mut answer = match rule.effect {
            Effect::Allow => view.denied(&blocks, budget)?,
            Effect::Deny if blocks.is_empty() => Use::Empty,
            Effect::Deny => Use::Some,
        };
        if answer == Use::Some {
            answer = view.done_by_others(rule, &blocks, &idle, budget)?;
        }
        if answer != Use::Some {
            idle.insert(rule.reference.clone());
        }
        found.push((rule.reference.clone(), answer));
    }
    for (rule, answer) in found {
        let whole = match uses.remove(&rule) {
            Some(before) => before.beside(answer),
            None => answer,
        };
        uses.insert(rule, whole);
    }
    Ok(())
}

struct View<'v> {
    space: &'v Space,
    layout: &'v Layout<'v>,
}

impl View<'_> {
    fn denied(&self, blocks: &[&Block], budget: &mut Budget) -> Result<Use, Spent> {
        if blocks.is_empty() {
            return Ok(Use::Empty);
        }
        let taken = self.layout.taken(self.space);
        for block in blocks {
            if remainder(block, &taken, self.space.sizes(), budget)?.is_some() {
                return Ok(Use::Some);
            }
        }
        let meeting =
            self.layout.refusals.iter().filter(|part| blocks.iter().any(|block| block.meets(&part.block)));
        let by: BTreeSet<RuleRef> = meeting.filter_map(Part::reference).collect();
        Ok(if by.is_empty() { Use::Empty } else { Use::Denied(by) })
    }

    /// What rules of the same effect come to.
    fn alike(&self, rule: &Rule) -> &[Part<'_>] {
        match rule.effect {
            Effect::Allow => &self.layout.grants,
            Effect::Deny => &self.layout.refusals,
        }
    }

    fn done_by_others(
        &self,
        rule: &Rule,
        blocks: &[&Block],
        idle: &BTreeSet<RuleRef>,
        budget: &mut Budget,
    ) -> Result<Use, Spent> {
        // A policy in shadow is there to repeat what another one does.
        let others: Vec<(&RuleRef, &Block)> = self
            .alike(rule)
            .iter()
            .filter_map(|part| part.rule.map(|other| (other, &part.block)))
            .filter(|(other, _)| other.reference != rule.reference && other.mode == rule.mode)
            .map(|(other, block)| (&other.reference, block))
            .filter(|(other, _)| !idle.contains(*other))
            .collect();
        budget.spend(others.len())?;
        let mut alone: Option<BTreeSet<RuleRef>> = None;
        for block in blocks {
            let containing = others.iter().filter(|(_, other)| block.within(other));
            let names: BTreeSet<RuleRef> = containing.map(|(name, _)| (*name).clone()).collect();
            alone = Some(match alone {
                Some(before) => &before & &names,
                None => names,
            });
        }
        match alone {
            Some(names) if !names.is_empty() => return Ok(Use::Repeats(names)),
            Some(_) | None => {}
        }
        let mut taken: Vec<&Block> = others.iter().map(|(_, block)| *block).collect();
        taken.extend(self.space.impossible());
        for block in blocks {
            if remainder(block, &taken, self.space.sizes(), budget)?.is_some() {
                return Ok(Use::Some);
            }
        }
        Ok(Use::Covered)
    }
}
