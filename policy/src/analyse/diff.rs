//! What a change of the policies opens, and what it closes.

use std::fmt;

use identity::SpiffeId;
use serde::Serialize;

use super::blocks::{Block, remainder};
use super::budget::{Budget, Spent};
use super::scene::{Layout, Part, Scene, Standing, every_workload};
use super::space::{Space, Survey};
use super::witness::Witness;
use super::{Terms, Unsettled};
use crate::decision::RuleRef;
use crate::set::PolicySet;

/// Every access gained and lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diff {
    /// What passes after the change and did not before.
    pub gained: Vec<Change>,
    /// What passed before the change and does not after.
    pub lost: Vec<Change>,
    /// How many more changes there are than are listed.
    pub left_out: usize,
    /// What could not be settled; it may be a gain.
    pub unsettled: Vec<Unsettled>,
}

impl Diff {
    /// Whether it is certain that nothing is gained.
    pub fn only_narrows(&self) -> bool {
        self.gained.is_empty() && self.unsettled.is_empty() && self.left_out == 0
    }

    /// Whether it is certain that nothing is gained or lost.
    pub fn is_equivalent(&self) -> bool {
        self.only_narrows() && self.lost.is_empty()
    }
}

/// An access that passes on one side of a change and is refused on the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The workload.
    pub to: SpiffeId,
    /// The rule by which it passes; absent where everything passes that no rule refuses.
    pub allowed_by: Option<RuleRef>,
    /// What refuses it on the other side.
    pub refused_by: Obstacle,
    /// An access of this kind.
    pub witness: Witness,
}

/// What refuses an access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// No policy protects the workload.
    NoPolicy,
    /// No rule allows it.
    NoRule,
    /// This deny rule.
    Rule(RuleRef),
    /// Its token proves nothing.
    InvalidToken,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("no policy protects the workload"),
            Self::NoRule => f.write_str("no rule allows it"),
            Self::Rule(rule) => write!(f, "denied by {rule}"),
            Self::InvalidToken => f.write_str("its token is invalid"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.witness)?;
        match &self.allowed_by {
            Some(rule) => write!(f, "\n  allowed by {rule}")?,
            None => f.write_str("\n  allowed because no rule refuses it")?,
        }
        write!(f, "\n  on the other side: {}", self.refused_by)
    }
}

/// Compares two sets: every workload that either names, every access that can be told apart.
pub fn diff(old: &PolicySet, new: &PolicySet, terms: Terms) -> Diff {
    let mut diff = Diff::default();
    let mut budget = terms.budget;
    let Ok(found) = every_workload(&[old, new], None, &mut budget) else {
        diff.unsettled.push(Unsettled::cap(None));
        return diff;
    };
    let now = terms.moment.time();
    for workload in &found {
        let (before, after) = (Scene::new(old, workload, now), Scene::new(new, workload, now));
        if budget.share(|part| of_workload(&before, &after, &mut diff, part)).is_err() {
            diff.unsettled.push(Unsettled::cap(Some(&workload.id)));
        }
    }
    diff
}

fn of_workload(before: &Scene, after: &Scene, diff: &mut Diff, budget: &mut Budget) -> Result<(), Spent> {
    let mut survey = Survey::default();
    before.survey(&mut survey);
    after.survey(&mut survey);
    let space = survey.space(budget)?;
    diff.unsettled.extend(space.unsettled().iter().map(|what| Unsettled::doubt(&before.to.id, what)));
    let (old, new) = (before.layout(&space, budget)?, after.layout(&space, budget)?);
    let (before, after) = (Side { scene: before, layout: &old }, Side { scene: after, layout: &new });
    let mut gained = Changes { space: &space, found: Vec::new(), doubts: Vec::new() };
    gained.find(&after, &before, budget)?;
    let mut lost = Changes { space: &space, found: Vec::new(), doubts: Vec::new() };
    lost.find(&before, &after, budget)?;
    diff.unsettled.extend(gained.doubts.into_iter().chain(lost.doubts));
    for (list, found) in [(&mut diff.gained, gained.found), (&mut diff.lost, lost.found)] {
        let room = MAX_CHANGES.saturating_sub(list.len());
        diff.left_out = diff.left_out.saturating_add(found.len().saturating_sub(room));
        list.extend(found.into_iter().take(room));
    }
    Ok(())
}

struct Side<'s> {
    scene: &'s Scene,
    layout: &'s Layout<'s>,
}

struct Changes<'s> {
    space: &'s Space,
    found: Vec<Change>,
    doubts: Vec<Unsettled>,
}

impl Changes<'_> {
    // What passes on one side passes on the other unless nothing allows it there, or something refuses it there.
    fn find(&mut self, passing: &Side<'_>, refusing: &Side<'_>, budget: &mut Budget) -> Result<(), Spent> {
        let taken = passing.layout.taken(self.space);
        let refusals = self.new_refusals(passing, refusing, budget)?;
        let allowed = refusing.layout.grants.iter().map(|grant| &grant.block);
        let known: Vec<&Block> = taken.iter().copied().chain(allowed).collect();
        let unallowed = match refusing.scene.standing() {
            Standing::Unprotected => Obstacle::NoPolicy,
            Standing::Closed | Standing::Open => Obstacle::NoRule,
        };
        for grant in &passing.layout.grants {
            if let Some(left) = remainder(&grant.block, &known, self.space.sizes(), budget)? {
                self.note(grant, &left, (passing, refusing), unallowed.clone());
            }
            for refusal in &refusals {
                budget.spend(1)?;
                if !grant.block.meets(&refusal.block) {
                    continue;
                }
                let both = grant.block.and(&refusal.block);
                if let Some(left) = remainder(&both, &taken, self.space.sizes(), budget)? {
                    let obstacle = refusal.reference().map_or(Obstacle::InvalidToken, Obstacle::Rule);
                    self.note(grant, &left, (passing, refusing), obstacle);
                }
            }
        }
        Ok(())
    }

    // The refusals of one side that the other does not have as well.
    fn new_refusals<'p>(
        &self,
        passing: &Side<'_>,
        refusing: &'p Side<'_>,
        budget: &mut Budget,
    ) -> Result<Vec<&'p Part<'p>>, Spent> {
        let mut new = Vec::new();
        for refusal in &refusing.layout.refusals {
            budget.spend(passing.layout.refusals.len())?;
            if !passing.layout.refusals.iter().any(|other| refusal.block.within(&other.block)) {
                new.push(refusal);
            }
        }
        Ok(new)
    }

    fn note(
        &mut self,
        grant: &Part<'_>,
        left: &Block,
        (passing, refusing): (&Side<'_>, &Side<'_>),
        refused_by: Obstacle,
    ) {
        let allowed_by = grant.reference();
        let same = |change: &Change| change.allowed_by == allowed_by && change.refused_by == refused_by;
        if self.found.iter().any(same) {
            return;
        }
        let to = &passing.scene.to.id;
        let shown = passing.scene.passing(self.space, left);
        match shown.filter(|(witness, _)| refusing.scene.refuses(witness)) {
            Some((witness, _)) => {
                self.found.push(Change { to: to.clone(), allowed_by, refused_by, witness });
            }
            None => self.doubts.push(Unsettled::doubt(to, format_args!("a change ({refused_by})"))),
        }
    }
}

/// Most changes of either kind that are listed; what goes beyond is counted.
pub const MAX_CHANGES: usize = 10_000;
