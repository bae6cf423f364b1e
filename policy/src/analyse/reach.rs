//! Who can reach what: every allow rule, what the deny rules leave of it, and an access that shows it.

use identity::SpiffeId;
use serde::Serialize;

use super::blocks::{Block, remainder};
use super::budget::{Budget, Spent};
use super::describe::{Description, describe};
use super::scene::{Layout, Part, Scene, every_workload};
use super::sets::AtomSet;
use super::space::{PEER, Space, Survey};
use super::witness::Witness;
use super::{Caller, Terms, Unsettled};
use crate::decision::RuleRef;
use crate::pattern::IdPattern;
use crate::set::PolicySet;

/// Who can reach what.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reach {
    /// Every way in, by workload and in the order of the rules.
    pub ways: Vec<Way>,
    /// How many more ways there are than are listed.
    pub left_out: usize,
    /// What could not be settled.
    pub unsettled: Vec<Unsettled>,
}

/// What one allow rule leaves open to one workload, once the deny rules have taken their part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// The workload.
    pub to: SpiffeId,
    /// The rule; absent where everything passes that no rule refuses.
    pub rule: Option<RuleRef>,
    /// The callers among those whom the rule names who can get in, as they are written.
    pub from: Vec<String>,
    /// What the rule asks for, as it is written.
    #[serde(flatten)]
    pub asks: Description,
    /// The deny rules that take a part away.
    pub cut_by: Vec<RuleRef>,
    /// An access that passes.
    pub witness: Witness,
}

/// Lists every way to the workloads `to` that the callers `from` have; without them, of every caller and to every workload
/// that a policy names.
pub fn reach(set: &PolicySet, from: Option<&Caller>, to: Option<&IdPattern>, terms: Terms) -> Reach {
    let mut reach = Reach::default();
    let mut budget = terms.budget;
    let Ok(found) = every_workload(&[set], to, &mut budget) else {
        reach.unsettled.push(Unsettled::cap(None));
        return reach;
    };
    for workload in found.iter().filter(|workload| to.is_none_or(|pattern| pattern.matches(&workload.id))) {
        let scene = Scene::new(set, workload, terms.moment.time());
        let answered = budget.share(|part| of_workload(&scene, from, &mut reach, part));
        if answered.is_err() {
            reach.unsettled.push(Unsettled::cap(Some(&workload.id)));
        }
    }
    reach
}

fn of_workload(
    scene: &Scene,
    from: Option<&Caller>,
    reach: &mut Reach,
    budget: &mut Budget,
) -> Result<(), Spent> {
    let mut survey = Survey::default();
    scene.survey(&mut survey);
    if let Some(Caller::Ids(id)) = from {
        survey.caller(id);
    }
    let space = survey.space(budget)?;
    let layout = scene.layout(&space, budget)?;
    let callers = match from {
        None => AtomSet::All,
        Some(Caller::Ids(id)) => space.callers(id),
        Some(Caller::Unauthenticated) => space.unauthenticated(),
    };
    let unsettled = space.unsettled().iter().map(|what| Unsettled::doubt(&scene.to.id, what));
    reach.unsettled.extend(unsettled);
    let question = Question { scene, space: &space, layout: &layout };
    let mut last: Option<&Part<'_>> = None;
    for grant in &layout.grants {
        // A rule of several blocks is one way.
        if last.is_some_and(|last| last.reference().is_some() && last.reference() == grant.reference()) {
            continue;
        }
        if question.way(grant, &callers, reach, budget)? {
            last = Some(grant);
        }
    }
    Ok(())
}

struct Question<'q> {
    scene: &'q Scene,
    space: &'q Space,
    layout: &'q Layout<'q>,
}

impl Question<'_> {
    fn way(
        &self,
        grant: &Part<'_>,
        callers: &AtomSet,
        reach: &mut Reach,
        budget: &mut Budget,
    ) -> Result<bool, Spent> {
        let mut block = grant.block.clone();
        block.narrow(PEER, callers);
        budget.spend(self.layout.refusals.len())?;
        let cutting: Vec<&Part<'_>> =
            self.layout.refusals.iter().filter(|part| part.block.meets(&block)).collect();
        let taken: Vec<&Block> =
            cutting.iter().map(|part| &part.block).chain(self.space.impossible()).collect();
        let Some(left) = remainder(&block, &taken, self.space.sizes(), budget)? else {
            return Ok(false);
        };
        let Some((witness, _)) = self.scene.passing(self.space, &left) else {
            let rule =
                grant.reference().map_or_else(|| "what no rule refuses".to_owned(), |rule| rule.to_string());
            reach.unsettled.push(Unsettled::doubt(&self.scene.to.id, rule));
            return Ok(false);
        };
        if reach.ways.len() >= MAX_WAYS {
            reach.left_out = reach.left_out.saturating_add(1);
            return Ok(true);
        }
        let mut cut_by: Vec<RuleRef> = cutting.iter().filter_map(|part| part.reference()).collect();
        cut_by.dedup();
        let from = self.callers(grant, &block, &taken, budget)?;
        let rule = grant.reference();
        let (to, asks) = (self.scene.to.id.clone(), describe(grant.rule));
        reach.ways.push(Way { to, rule, from, asks, cut_by, witness });
        Ok(true)
    }

    // Of the callers as they are written, those who can get in.
    fn callers(
        &self,
        grant: &Part<'_>,
        block: &Block,
        taken: &[&Block],
        budget: &mut Budget,
    ) -> Result<Vec<String>, Spent> {
        let Some(rule) = grant.rule else {
            return Ok(vec!["anyone".to_owned(), "unauthenticated".to_owned()]);
        };
        let mut written: Vec<(String, AtomSet)> = Vec::new();
        if rule.from.anyone {
            let size = self.space.sizes().get(PEER).copied().unwrap_or_default();
            written.push(("anyone".to_owned(), AtomSet::All.minus(&self.space.unauthenticated(), size)));
        }
        if rule.from.unauthenticated {
            written.push(("unauthenticated".to_owned(), self.space.unauthenticated()));
        }
        let patterns = rule.from.patterns.iter();
        written.extend(patterns.map(|pattern| (pattern.to_string(), self.space.callers(pattern))));
        let mut open = Vec::new();
        for (text, set) in written {
            let mut part = block.clone();
            part.narrow(PEER, &set);
            if remainder(&part, taken, self.space.sizes(), budget)?.is_some() {
                open.push(text);
            }
        }
        Ok(open)
    }
}

/// Most ways that are listed; what goes beyond is counted.
pub const MAX_WAYS: usize = 100_000;
