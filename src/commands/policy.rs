//! `vouchsafe policy`: what policy files say, found out offline and with the sidecar's own evaluator.

mod asked;
mod bench;
mod check;
mod diff;
mod eval;
mod explain;
mod files;
mod fmt;
mod graph;
mod import;
mod learn;
mod lines;
mod lint;
mod past;
mod reach;
mod replay;
mod schema;
mod try_tests;
mod words;

use std::str::FromStr;

use identity::{ParseIdError, SpiffeId};

use crate::cli::policy::PolicyCommand;
use crate::exit::{Exit, Failure};

pub(crate) use explain::explained;
pub(crate) use files::{compiled as compile, generation};

/// Runs what the command line asks for.
pub(crate) fn run(command: PolicyCommand) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Check(args) => check::run(&args),
        PolicyCommand::Test(args) => try_tests::run(&args),
        PolicyCommand::Status(args) => super::policy_status::run(&args),
        PolicyCommand::Explain(args) => explain::run(&args),
        PolicyCommand::Eval(args) => eval::run(&args),
        PolicyCommand::Reach(args) => reach::run(&args),
        PolicyCommand::Diff(args) => diff::run(&args),
        PolicyCommand::Lint(args) => lint::run(&args),
        PolicyCommand::Fmt(args) => fmt::run(&args),
        PolicyCommand::Import(args) => import::run(&args),
        PolicyCommand::Schema => schema::run(),
        PolicyCommand::Bench(args) => bench::run(&args),
        PolicyCommand::Graph(args) => graph::run(&args),
        PolicyCommand::Replay(args) => replay::run(&args),
        PolicyCommand::Learn(args) => learn::run(&args),
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Somebody with this identity.
    Id(SpiffeId),
    /// Somebody without one.
    Unauthenticated,
}

impl FromStr for Caller {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unauthenticated" { Ok(Self::Unauthenticated) } else { text.parse().map(Self::Id) }
    }
}

#[cfg(test)]
mod tests;
