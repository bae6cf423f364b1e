//! What a change of the policies opens, and what it closes.

mod proofs;

use std::fmt;
use std::ops::ControlFlow;

use identity::SpiffeId;
use serde::Serialize;

use super::blocks::{Block, remainders};
use super::budget::{Budget, Spent};
use super::scene::{Layout, Part, Scene, Standing, every_workload};
use super::space::{Extent, Space, Survey};
use super::witness::Witness;
use super::{Instant, Terms, Unsettled};
use crate::decision::RuleRef;
use crate::mesh::Workload;
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
    /// What it spans.
    pub spans: Extent,
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
        let spans = self.spans.to_string();
        if !spans.is_empty() {
            write!(f, "\n  one of: {spans}")?;
        }
        match &self.allowed_by {
            Some(rule) => write!(f, "\n  allowed by {rule}")?,
            None => f.write_str("\n  allowed because no rule refuses it")?,
        }
        write!(f, "\n  on the other side: {}", self.refused_by)
    }
}

/// Compares two sets: every workload that either names, every access that can be told apart. Tokens that prove more than before
/// cannot be shown by a request, and are unsettled.
pub fn diff(old: &PolicySet, new: &PolicySet, terms: Terms) -> Diff {
    let mut diff = Diff::default();
    let mut budget = terms.budget;
    let Ok(found) = every_workload(&[old, new], None, &mut budget) else {
        diff.unsettled.push(Unsettled::cap(None));
        return diff;
    };
    for workload in &found {
        match budget.share(|part| of_workload([old, new], workload, terms.moment, part)) {
            Ok(found) => diff.take(found),
            Err(Spent) => diff.unsettled.push(Unsettled::cap(Some(&workload.id))),
        }
    }
    diff
}

impl Diff {
    fn take(&mut self, more: Found) {
        for (list, found) in [(&mut self.gained, more.gained), (&mut self.lost, more.lost)] {
            let room = MAX_CHANGES.saturating_sub(list.len());
            self.left_out = self.left_out.saturating_add(found.len().saturating_sub(room));
            list.extend(found.into_iter().take(room));
        }
        self.unsettled.extend(more.unsettled);
    }
}

/// What was found out about one workload, at one moment after another.
#[derive(Default)]
struct Found {
    gained: Vec<Change>,
    lost: Vec<Change>,
    unsettled: Vec<Unsettled>,
}

impl Found {
    // What changes at one moment mostly changes at the others too, and is told once.
    fn take(&mut self, gained: Changes<'_>, lost: Changes<'_>) {
        for unsettled in gained.doubts.into_iter().chain(lost.doubts) {
            self.doubt(unsettled);
        }
        for (list, found) in [(&mut self.gained, gained.found), (&mut self.lost, lost.found)] {
            let known = list.len();
            for change in found {
                if !list.iter().take(known).any(|other| other.is_like(&change)) {
                    list.push(change);
                }
            }
        }
    }

    fn doubt(&mut self, unsettled: Unsettled) {
        if !self.unsettled.contains(&unsettled) {
            self.unsettled.push(unsettled);
        }
    }
}

impl Change {
    fn is_like(&self, other: &Self) -> bool {
        self.allowed_by == other.allowed_by && self.refused_by == other.refused_by
    }
}

fn of_workload(
    sets: [&PolicySet; 2],
    to: &Workload,
    moment: Instant,
    budget: &mut Budget,
) -> Result<Found, Spent> {
    let [before, after] = sets.map(|set| Scene::new(set, to, moment.time()));
    let mut found = Found::default();
    for now in moment.times(before.modes().chain(after.modes()))? {
        at_moment(&before.at(now), &after.at(now), &mut found, budget)?;
    }
    Ok(found)
}

fn at_moment(before: &Scene, after: &Scene, all: &mut Found, budget: &mut Budget) -> Result<(), Spent> {
    let mut survey = Survey::default();
    before.survey(&mut survey);
    after.survey(&mut survey);
    let space = survey.space(budget)?;
    space.unsettled().iter().for_each(|what| all.doubt(Unsettled::doubt(&before.to.id, what)));
    proofs::newly_trusted(before, after).for_each(|unsettled| all.doubt(unsettled));
    let (old, new) = (before.layout(&space, budget)?, after.layout(&space, budget)?);
    let (before, after) = (Side { scene: before, layout: &old }, Side { scene: after, layout: &new });
    let mut gained = Changes { space: &space, found: Vec::new(), doubts: Vec::new() };
    gained.find(&after, &before, budget)?;
    let mut lost = Changes { space: &space, found: Vec::new(), doubts: Vec::new() };
    lost.find(&before, &after, budget)?;
    all.take(gained, lost);
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
            remainders(&grant.block, &known, self.space.sizes(), budget, &mut |left| {
                self.note(grant, left, (passing, refusing), unallowed.clone())
            })?;
            for refusal in &refusals {
                budget.spend(1)?;
                if !grant.block.meets(&refusal.block) {
                    continue;
                }
                let both = grant.block.and(&refusal.block);
                let obstacle = refusal.reference().map_or(Obstacle::InvalidToken, Obstacle::Rule);
                remainders(&both, &taken, self.space.sizes(), budget, &mut |left| {
                    self.note(grant, left, (passing, refusing), obstacle.clone())
                })?;
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
    ) -> ControlFlow<()> {
        let allowed_by = grant.reference();
        let same = |change: &&Change| change.allowed_by == allowed_by && change.refused_by == refused_by;
        if self.found.iter().filter(same).count() >= MAX_SHOWN {
            return ControlFlow::Break(());
        }
        // Pieces that differ in nothing that is shown are more of the same.
        let spans = self.space.extent(left);
        if self.found.iter().filter(same).any(|change| change.spans == spans) {
            return ControlFlow::Continue(());
        }
        let to = &passing.scene.to.id;
        let shown = passing.scene.passing(self.space, left);
        match shown.filter(|(witness, _)| refusing.scene.refuses(witness)) {
            Some((witness, _)) => {
                self.found.push(Change { to: to.clone(), allowed_by, refused_by, spans, witness });
            }
            None => self.doubts.push(Unsettled::doubt(to, format_args!("a change ({refused_by})"))),
        }
        ControlFlow::Continue(())
    }
}

/// Most changes of one rule that are told apart: beyond, they are more of the same.
pub const MAX_SHOWN: usize = 16;

/// Most changes of either kind that are listed; what goes beyond is counted.
pub const MAX_CHANGES: usize = 10_000;
