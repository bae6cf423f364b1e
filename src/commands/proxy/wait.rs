//! `vouchsafe proxy wait`: nothing starts before the sidecar is ready.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use proxy::lifecycle::readiness;

use super::running;
use crate::cli::proxy::lifecycle::ProxyWait;
use crate::commands::block_on;
use crate::exit::{Exit, Failure, describe};

/// Waits, and makes room for the command.
pub(super) fn run(args: &ProxyWait) -> Result<Exit, Failure> {
    let address = running::address(&args.running)?;
    let until = Instant::now() + args.timeout;
    block_on(async {
        loop {
            let missing = match readiness(&address).await {
                Ok(answer) if answer.missing.is_empty() => return Ok(()),
                Ok(answer) => answer.missing.join("; "),
                Err(error) => describe(&error),
            };
            if Instant::now() >= until {
                let message = format!("the sidecar is not ready: {}", audit::shown(&missing));
                return Err(Failure::because(Exit::Unreachable, message));
            }
            tokio::time::sleep(POLL).await;
        }
    })?;
    let Some((program, arguments)) = args.command.split_first() else { return Ok(Exit::Done) };
    // Comes back only where the program cannot be run.
    let cause = Command::new(program).args(arguments).exec();
    let message = format!("cannot run {}: {cause}", program.to_string_lossy());
    Err(Failure::because(Exit::Failed, message))
}

const POLL: Duration = Duration::from_millis(50);
