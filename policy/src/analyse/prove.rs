//! Whether the guarantees written in policies hold for every access.

use std::fmt;

use identity::SpiffeId;
use serde::Serialize;

use super::blocks::remainder;
use super::budget::{Budget, Spent};
use super::scene::{Scene, every_workload};
use super::space::Survey;
use super::witness::Witness;
use super::{Instant, Terms, Unsettled};
use crate::decision::RuleRef;
use crate::document::{Guarantee, Policy};
use crate::set::PolicySet;
use crate::strict::Span;

/// A guarantee that does not hold, or could not be proved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Broken {
    /// The policy in which it is written.
    pub policy: String,
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The guarantee, in words.
    pub guarantee: String,
    /// Why.
    pub cause: Cause,
    #[serde(skip)]
    pub(crate) span: Span,
}

/// Why a guarantee counts as broken.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// This access passes.
    Passes {
        /// The access.
        witness: Box<Witness>,
        /// The rule that allows it; absent where everything passes that no rule refuses.
        rule: Option<RuleRef>,
    },
    /// It could not be proved.
    Unsettled(Unsettled),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Passes { witness, rule } => {
                write!(f, "guarantee broken: {}: {witness} is allowed by ", self.guarantee)?;
                match rule {
                    Some(rule) => rule.fmt(f),
                    None => f.write_str("no rule, because none refuses it"),
                }
            }
            Cause::Unsettled(unsettled) => {
                write!(f, "guarantee not proved: {}: {unsettled}", self.guarantee)
            }
        }
    }
}

/// Proves every guarantee of the set, and lists those that do not hold or cannot be proved: one witness for each.
pub fn prove(set: &PolicySet, terms: Terms) -> Vec<Broken> {
    let mut budget = terms.budget;
    let guarantees: Vec<Promise<'_>> = set
        .policies()
        .flat_map(|policy| policy.guarantees.iter().map(move |guarantee| Promise { policy, guarantee }))
        .collect();
    if guarantees.is_empty() {
        return Vec::new();
    }
    let Ok(found) = every_workload(&[set], None, &mut budget) else {
        return guarantees.iter().map(|promise| promise.unsettled(Unsettled::cap(None))).collect();
    };
    let mut broken: Vec<Option<Broken>> = vec![None; guarantees.len()];
    for workload in &found {
        let open: Vec<usize> = (0..)
            .zip(guarantees.iter().zip(&broken))
            .filter(|(_, (promise, broken))| broken.is_none() && promise.is_about(&workload.id))
            .map(|(number, _)| number)
            .collect();
        if open.is_empty() {
            continue;
        }
        let scene = Scene::new(set, workload, terms.moment.time());
        let promises: Vec<&Promise<'_>> = open.iter().filter_map(|number| guarantees.get(*number)).collect();
        let found = budget.share(|part| at_every_moment(&scene, &promises, terms.moment, part));
        let found = found.unwrap_or_else(|Spent| {
            let cap = || Some(Unsettled::cap(Some(&workload.id)));
            promises.iter().map(|promise| cap().map(|cap| promise.unsettled(cap))).collect()
        });
        for (number, found) in open.into_iter().zip(found) {
            if let Some(slot) = broken.get_mut(number) {
                *slot = found;
            }
        }
    }
    broken.into_iter().flatten().collect()
}

struct Promise<'p> {
    policy: &'p Policy,
    guarantee: &'p Guarantee,
}

impl Promise<'_> {
    fn is_about(&self, workload: &SpiffeId) -> bool {
        self.guarantee.to.iter().any(|pattern| pattern.matches(workload))
    }

    fn broken(&self, cause: Cause) -> Broken {
        Broken {
            policy: self.policy.name().to_owned(),
            file: self.policy.file().to_owned(),
            line: self.guarantee.span.start.line,
            guarantee: self.guarantee.shown.clone(),
            cause,
            span: self.guarantee.span,
        }
    }

    fn unsettled(&self, unsettled: Unsettled) -> Broken {
        self.broken(Cause::Unsettled(unsettled))
    }
}

// A policy promises from the moment on at which it enforces.
fn at_every_moment(
    scene: &Scene,
    promises: &[&Promise<'_>],
    moment: Instant,
    budget: &mut Budget,
) -> Result<Vec<Option<Broken>>, Spent> {
    let mut answers: Vec<Option<Broken>> = vec![None; promises.len()];
    let modes = scene.modes().chain(promises.iter().map(|promise| promise.policy.mode()));
    for now in moment.times(modes)? {
        let (slots, due): (Vec<_>, Vec<_>) = answers
            .iter_mut()
            .zip(promises.iter().copied())
            .filter(|(answer, promise)| answer.is_none() && promise.policy.mode().enforces_at(now))
            .unzip();
        for (slot, answer) in slots.into_iter().zip(of_workload(&scene.at(now), &due, budget)?) {
            *slot = answer;
        }
    }
    Ok(answers)
}

fn of_workload(
    scene: &Scene,
    promises: &[&Promise<'_>],
    budget: &mut Budget,
) -> Result<Vec<Option<Broken>>, Spent> {
    let mut survey = Survey::default();
    scene.survey(&mut survey);
    promises.iter().for_each(|promise| survey.rule(&promise.guarantee.rule));
    let space = survey.space(budget)?;
    let layout = scene.layout(&space, budget)?;
    let taken = layout.taken(&space);
    let mut answers = Vec::new();
    for promise in promises {
        let mut answer =
            space.unsettled().first().map(|what| promise.unsettled(Unsettled::doubt(&scene.to.id, what)));
        let forbidden = space.blocks(&promise.guarantee.rule);
        let pairs = layout.grants.iter().flat_map(|grant| forbidden.iter().map(move |block| (grant, block)));
        for (grant, block) in pairs {
            budget.spend(1)?;
            if !grant.block.meets(block) {
                continue;
            }
            let Some(left) = remainder(&grant.block.and(block), &taken, space.sizes(), budget)? else {
                continue;
            };
            match scene.passing(&space, &left) {
                Some((witness, rule)) => {
                    answer = Some(promise.broken(Cause::Passes { witness: Box::new(witness), rule }));
                    break;
                }
                None => {
                    let doubt = Unsettled::doubt(&scene.to.id, "an access that the guarantee is about");
                    answer = Some(promise.unsettled(doubt));
                }
            }
        }
        answers.push(answer);
    }
    Ok(answers)
}
