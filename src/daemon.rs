//! What carries a daemon: its process limits, its runtime, its signals and its service manager.
//!
//! A daemon is told to stop through one token. SIGTERM, SIGINT and, where asked for, the end of
//! standard input cancel it; a second signal ends its waiting where it waits in stages, else the process.

use std::future::Future;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};
use sd_notify::NotifyState;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::daemon::Supervised;
use crate::exit::{Exit, Failure};

/// Who may read a daemon's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Root alone.
    Private,
    /// Every process of the same user.
    DangerReadable,
}

/// How a daemon is carried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carrier {
    /// Worker threads; 0 for everything on one.
    pub(crate) workers: usize,
    /// Who may read its memory.
    pub(crate) memory: Memory,
    /// Whether it stops when standard input ends.
    pub(crate) supervised: Supervised,
}

/// How a daemon that waits for others at its end is told to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stages {
    /// Ends it in order.
    pub(crate) stop: CancellationToken,
    /// Ends the waiting.
    pub(crate) hurry: CancellationToken,
}

impl Carrier {
    /// Runs `serve` until it returns.
    pub(crate) fn carry<F, S>(self, serve: F) -> Result<Exit, Failure>
    where
        F: FnOnce(CancellationToken) -> S,
        S: Future<Output = Result<(), Failure>>,
    {
        // Nobody listens: the second signal ends the process.
        let stages = Stages::default();
        stages.hurry.cancel();
        self.run(stages.clone(), serve(stages.stop))
    }

    /// Runs `serve` until it returns; a second signal ends only its waiting.
    pub(crate) fn carry_in_stages<F, S>(self, serve: F) -> Result<Exit, Failure>
    where
        F: FnOnce(Stages) -> S,
        S: Future<Output = Result<(), Failure>>,
    {
        let stages = Stages::default();
        self.run(stages.clone(), serve(stages))
    }

    fn run(self, stages: Stages, serve: impl Future<Output = Result<(), Failure>>) -> Result<Exit, Failure> {
        confine(self.memory).context("cannot set the limits of this process")?;
        let runtime = runtime(self.workers).context("cannot start the runtime")?;
        let outcome = runtime.block_on(async {
            let mut tasks = JoinSet::new();
            tasks.spawn(obey(stages.clone())?);
            if self.supervised.exit_with_stdin {
                tasks.spawn(follow_stdin(stages.stop));
            }
            serve.await
        });
        // Work on blocking threads cannot be cancelled; it is not waited for either.
        runtime.shutdown_background();
        outcome.map(|()| Exit::Done)
    }
}

/// Tells the service manager that the daemon is ready.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells the service manager that another process is the daemon from here on.
pub(crate) fn succeeded_by(pid: u32) {
    notify(&[NotifyState::MainPid(pid), NotifyState::Status("another process has taken over")]);
}

/// The number of workers for a daemon that is busy with many peers at a time.
pub(crate) fn few_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(FEW_WORKERS))
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(cause) = sd_notify::notify(state) {
        warn!(%cause, "service manager cannot be told");
    }
}

/// Keeps what this process knows out of core dumps. The limit may be raised again by a program that it starts.
pub(crate) fn without_core_dumps() -> std::io::Result<()> {
    let held = getrlimit(Resource::Core);
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: held.maximum })?)
}

fn confine(memory: Memory) -> std::io::Result<()> {
    umask(Mode::WGRP | Mode::RWXO);
    without_core_dumps()?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    match memory {
        Memory::Private => set_dumpable_behavior(DumpableBehavior::NotDumpable)?,
        Memory::DangerReadable => {}
    }
    Ok(())
}

fn runtime(workers: usize) -> std::io::Result<Runtime> {
    match workers {
        0 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
    }
}

/// Registers the signals at once and returns the task that waits for them.
fn obey(stages: Stages) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            let name = next(&mut terminate, &mut interrupt, &mut hangup).await;
            match name {
                // It must not end the daemon; what is reloaded at once hears it itself.
                "SIGHUP" => info!("SIGHUP: files that are watched are looked at again"),
                _ if stages.stop.is_cancelled() && !stages.hurry.is_cancelled() => {
                    warn!(signal = name, "second signal, connections are cut");
                    stages.hurry.cancel();
                }
                _ if stages.stop.is_cancelled() => {
                    warn!(signal = name, "a further signal, leaving at once");
                    std::process::exit(i32::from(Exit::Failed.code()));
                }
                _ => {
                    info!(signal = name, "told to stop");
                    notify(&[NotifyState::Stopping]);
                    stages.stop.cancel();
                }
            }
        }
    })
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal, hangup: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
    }
}

/// Cancels the token when whoever holds the other end of standard input is gone. It takes no thread: one that is there before
/// a daemon confines itself would go on unconfined.
async fn follow_stdin(shutdown: CancellationToken) {
    if let Err(cause) = stdin_ends().await {
        warn!(%cause, "standard input cannot be watched");
    }
    info!("standard input ended, told to stop");
    shutdown.cancel();
}

#[expect(
    deprecated,
    reason = "it is unsound with a value that changes its descriptor: standard input does not"
)]
async fn stdin_ends() -> std::io::Result<()> {
    let mut rest = [0_u8; 64];
    let Ok(watched) = AsyncFd::with_interest(std::io::stdin(), Interest::READABLE) else {
        // A file is never waited for.
        while rustix::io::read(std::io::stdin(), &mut rest)? > 0 {}
        return Ok(());
    };
    loop {
        let mut ready = watched.readable().await?;
        // Others may read from the same end, which therefore stays as it is: it blocks.
        let mut polled = [PollFd::new(watched.get_ref(), PollFlags::IN)];
        if rustix::event::poll(&mut polled, Some(&Timespec::default()))? == 0 {
            ready.clear_ready();
        } else if rustix::io::read(watched.get_ref(), &mut rest)? == 0 {
            return Ok(());
        }
    }
}

/// More workers than this cost memory and bring a CA or an agent nothing.
const FEW_WORKERS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_out_of_core_dumps() {
        let open = Rlimit { current: getrlimit(Resource::Core).maximum, ..getrlimit(Resource::Core) };
        setrlimit(Resource::Core, open).unwrap();

        without_core_dumps().unwrap();

        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }

    #[test]
    fn a_ca_or_agent_gets_at_most_two_workers() {
        assert!((1..=2).contains(&few_workers()));
    }
}
