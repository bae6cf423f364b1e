//! `vouchsafe dev`: the whole promise on one machine, told step by step.
//!
//! Everything is real: child processes of this binary, certificates, policy files and the audit
//! log, in a private directory and on loopback. Nothing outlives this process but what `--keep`
//! asks for.

use std::time::Instant;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::dev::Dev;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output;

mod home;
pub(crate) mod http;
mod narrate;
mod plan;
mod processes;
pub(crate) mod service;
mod tour;

use self::home::Home;
use self::narrate::{Narrator, Step};
use self::plan::Plan;
use self::processes::{Binary, Processes};
use self::tour::{After, Tour};

/// Runs the tour.
pub(crate) fn run(args: Dev) -> Result<Exit, Failure> {
    let narrator = Narrator::new(output::stdout(), args.output.format, Instant::now());
    let base_port = home::ports(args.address, args.base_port).or_exit(Exit::Unacceptable)?;
    let home = Home::make(args.keep.as_deref()).or_exit(Exit::Unacceptable)?;
    let plan = Plan::new(home.dir().to_owned(), args.address, base_port);
    home.furnish(&plan).or_exit(Exit::Failed)?;
    let binary = Binary(std::env::current_exe().context("the path of this binary cannot be found")?);
    let after = After { stays: !args.once, kept: home.is_kept() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(conduct(plan, binary, narrator, after))
}

/// Takes the tour and ends every child, however it went.
async fn conduct<W: std::io::Write>(
    plan: Plan,
    binary: Binary,
    narrator: Narrator<W>,
    after: After,
) -> Result<Exit, Failure> {
    let mut stop = stop()?;
    let processes = Processes::new(plan.dir(), binary.clone());
    let mut tour = Tour { plan, binary, processes, narrator };
    let outcome = tokio::select! {
        outcome = tour.take(after) => match outcome {
            Ok(()) if after.stays => stay(&mut tour, &mut stop).await,
            Ok(()) => Ok(Exit::Done),
            Err(cause) => Err(tour.fail(&cause)),
        },
        _ = stop.recv() => Err(Failure::because(Exit::Failed, "interrupted before the tour was over")),
    };
    tour.processes.end().await;
    outcome
}

/// Stays up until told to stop; no child may end meanwhile.
async fn stay<W: std::io::Write>(tour: &mut Tour<W>, stop: &mut Stop) -> Result<Exit, Failure> {
    tokio::select! {
        ended = tour.processes.any_end() => Err(Failure::new(Exit::Failed, ended)),
        _ = stop.recv() => {
            tour.narrator.tell(&Step::new("stopping", "Told to stop; everything is being shut down"))?;
            Ok(Exit::Done)
        }
    }
}

/// The signals that end the tour: Ctrl-C, SIGTERM and a terminal that is gone.
struct Stop([tokio::signal::unix::Signal; 3]);

fn stop() -> std::io::Result<Stop> {
    Ok(Stop([
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ]))
}

impl Stop {
    async fn recv(&mut self) -> Option<()> {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            signal = interrupt.recv() => signal,
            signal = terminate.recv() => signal,
            signal = hangup.recv() => signal,
        }
    }
}
