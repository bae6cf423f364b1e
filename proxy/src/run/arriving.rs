//! The arrival of a process that takes over from a running one: what it may do only once it could serve.

use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use tokio_util::sync::CancellationToken;

use super::{RunError, TakeOver};
use crate::{
    config::Config,
    handover::{self, Taking},
    policies::describe,
    shared::Shared,
};

/// Asks the running proxy for its sockets, where that is wanted and there is one.
pub(super) async fn take_over(config: &Config, wanted: TakeOver) -> Result<Option<Taking>, RunError> {
    match (wanted, &config.lifecycle.handover) {
        (TakeOver::Never, _) => Ok(None),
        (TakeOver::IfRunning, None) => Err(RunError::NoHandover),
        (TakeOver::IfRunning, Some(handover)) => Ok(Taking::ask(&handover.socket).await?),
    }
}

/// Waits for everything that serving needs. The running proxy serves meanwhile.
pub(super) async fn could_serve(
    shared: &Shared,
    taking: &mut Taking,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let missing = || {
        let problems = shared.state.problems().into_iter().filter(|(part, _)| part.blocks());
        problems.map(|(part, reason)| format!("{}: {reason}", part.as_str())).collect::<Vec<_>>().join("; ")
    };
    let come = async {
        while !shared.state.is_ready() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = come => Ok(()),
        error = taking.breaks() => Err(error.into()),
        () = stop.cancelled() => Err(RunError::NotReady { reasons: "told to stop".to_owned() }),
        () = tokio::time::sleep(handover::READY - MARGIN) => Err(RunError::NotReady { reasons: missing() }),
    }
}

/// Tells the proxy that was taken over from. Where it does not answer, it is gone, or it goes on and we do not.
pub(super) async fn settle(mut taking: Taking) -> Result<(), RunError> {
    let predecessor = taking.predecessor();
    let Err(error) = taking.serving().await else {
        tracing::info!(predecessor, "taken over: the process before accepts no more");
        return Ok(());
    };
    if is_alive(predecessor) {
        return Err(error.into());
    }
    tracing::warn!(predecessor, reason = describe(&error), "the process that was taken over from is gone");
    Ok(())
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// How often a new process looks whether it is ready.
const LOOK: Duration = Duration::from_millis(10);
/// A new process gives up first, and says why.
const MARGIN: Duration = Duration::from_secs(5);
