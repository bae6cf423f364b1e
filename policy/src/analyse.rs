//! Answers about every possible access, rather than about one: who can reach what, what a change opens, whether a guarantee
//! holds, which rules are of no use.
//!
//! Each dimension of an access is taken apart into atoms, of which the rules see no difference inside; a rule is then a
//! product of sets of atoms, and every question is a matter of such products. So answers are exact, and each carries a
//! concrete access that was put to the evaluator itself. Work is capped by a counter. What could not be settled within
//! it, or what the evaluator does not confirm, is said to be unsettled and never taken for an answer.

mod blocks;
mod budget;
mod describe;
mod diff;
mod language;
mod lines;
mod lint;
mod prove;
mod reach;
mod sample;
mod scene;
mod sets;
mod space;
mod witness;

use std::fmt;
use std::time::SystemTime;

use identity::SpiffeId;
use serde::Serialize;

pub use budget::{Budget, DEFAULT_STEPS};
pub use describe::Description;
pub use diff::{Change, Diff, MAX_CHANGES, MAX_SHOWN, Obstacle, diff};
pub use lint::{Finding, FindingKind, Lint, lint};
pub use prove::{Broken, Cause, prove};
pub use reach::{MAX_WAYS, Reach, Way, reach};
pub use space::{Extent, MAX_EXAMPLES};
pub use witness::{Witness, WitnessRequest, WitnessToken};

use budget::Spent;

use crate::document::Mode;
use crate::moment::LAST;
use crate::pattern::IdPattern;

/// What a question is asked under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The moment that is asked about.
    pub moment: Instant,
    /// How much work it may cost.
    pub budget: Budget,
}

/// A moment that is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instant {
    /// When every shadow policy enforces: what test cases without a time are about as well.
    #[default]
    AfterShadows,
    /// This moment.
    At(SystemTime),
    /// Every moment from this one on, where an answer can tell them apart; else this one.
    From(SystemTime),
}

impl Instant {
    fn time(self) -> SystemTime {
        match self {
            Self::AfterShadows => SystemTime::UNIX_EPOCH + LAST,
            Self::At(moment) | Self::From(moment) => moment,
        }
    }

    /// The moments at which policies with these modes begin to decide otherwise: in between, nothing changes.
    fn times(self, modes: impl Iterator<Item = Mode>) -> Result<Vec<SystemTime>, Spent> {
        let mut times = vec![self.time()];
        if let Self::From(start) = self {
            times.extend(modes.filter_map(|mode| match mode {
                Mode::Shadow { until } if until > start => Some(until),
                Mode::Shadow { .. } | Mode::Enforce | Mode::DryRun => None,
            }));
        }
        times.sort_unstable();
        times.dedup();
        if times.len() > MAX_MOMENTS { Err(Spent) } else { Ok(times) }
    }
}

/// Callers that a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Those with one of these IDs.
    Ids(IdPattern),
    /// Those who prove no identity.
    Unauthenticated,
}

/// A part of a question without an answer. It is to be taken for the worse one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unsettled {
    /// The workload; absent where it is about all of them.
    pub to: Option<SpiffeId>,
    /// What could not be settled, and why.
    pub what: String,
}

impl Unsettled {
    fn cap(to: Option<&SpiffeId>) -> Self {
        Self { to: to.cloned(), what: "the work cap was reached".to_owned() }
    }

    fn doubt(to: &SpiffeId, what: impl fmt::Display) -> Self {
        Self { to: Some(to.clone()), what: format!("{what}: no request was found that shows it") }
    }
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Some(to) => write!(f, "{to}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Most moments at which the policies of one workload may begin to enforce, for an answer about all of them.
pub const MAX_MOMENTS: usize = 64;

#[cfg(test)]
mod tests;
