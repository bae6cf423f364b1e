//! `vouchsafe proxy upgrade`: starts a sidecar that takes over from the running one, and waits until it serves.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use proxy::Config;
use proxy::lifecycle::{Address, readiness};

use super::running;
use crate::cli::proxy::lifecycle::ProxyUpgrade;
use crate::commands::{block_on, config};
use crate::exit::{Exit, Failure};

/// Starts it and waits.
pub(super) fn run(args: &ProxyUpgrade) -> Result<Exit, Failure> {
    let config = config::load(&args.config.config, Config::parse)?;
    let refused = |message: &str| Failure::because(Exit::Unacceptable, message);
    if config.lifecycle.handover.is_none() {
        return Err(refused(
            "the configuration names no socket to take over by: add `handover: {socket: PATH}`",
        ));
    }
    let address = running::of(&config.admin)
        .ok_or_else(|| refused("the configuration names no admin interface: add `admin: {socket: PATH}`"))?;
    let mut child = start(args)?;
    block_on(serves(&mut child, &address, Instant::now() + args.timeout))?;
    Ok(Exit::Done)
}

/// Starts the new process. It outlives this one, in a group of its own.
fn start(args: &ProxyUpgrade) -> Result<Child, Failure> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("cannot tell which program this is")?,
    };
    let mut words: Vec<OsString> = ["proxy", "run", "--take-over", "--config"].map(OsString::from).into();
    words.push(args.config.config.clone().into());
    if let Some(identity) = &args.config.identity {
        words.extend([OsStr::new("--identity"), OsStr::new(identity.as_str())].map(OsString::from));
    }
    if let Some(policies) = &args.config.policies {
        words.extend([OsStr::new("--policies"), policies.as_os_str()].map(OsString::from));
    }
    let mut command = Command::new(&program);
    command.args(words).stdin(Stdio::null()).process_group(0);
    Ok(command.spawn().with_context(|| format!("cannot start {}", program.display()))?)
}

async fn serves(child: &mut Child, address: &Address, until: Instant) -> Result<(), Failure> {
    loop {
        if let Ok(answer) = readiness(address).await
            && answer.pid == Some(child.id())
            && answer.missing.is_empty()
        {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let message = format!("the new process ended, {status}: the one before goes on");
            return Err(Failure::because(Exit::Failed, message));
        }
        if Instant::now() >= until {
            // It has not taken over: the one before is better off alone.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::because(
                Exit::Failed,
                "the new process does not serve in time and was ended",
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

const POLL: Duration = Duration::from_millis(50);
