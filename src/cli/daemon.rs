//! What the `run` and `check` commands of the three daemons have in common.

use clap::Args;

/// Switches that `vouchsafe dev` sets on the daemons it starts.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Supervised {
    /// Shut down when standard input ends, so that no child outlives the one who started it
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,
}

/// Which runtime carries the daemon.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Threads {
    /// Worker threads; 0 runs everything on one thread
    #[arg(long, env = "VOUCHSAFE_THREADS", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=MAX_THREADS))]
    pub(crate) threads: Option<u16>,
}

/// More workers than this are never wanted in one daemon.
pub(crate) const MAX_THREADS: i64 = 256;
