//! What a sidecar gives up once its sockets are open, and before it has threads, reads a key or serves anybody: the files
//! that its configuration does not name, the system calls that it has no use for, and capabilities.
//!
//! Nothing of it comes back: whatever needs more needs a restart. A kernel that cannot do a part of it is no reason not to
//! serve, but one to say so.

mod calls;
mod files;
mod reach;
mod rights;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{
    config::{Config, Wall},
    policies::describe,
    run::RunError,
};
use reach::Reach;

/// Whether a proxy may confine the process that it runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Confining {
    /// It leaves the process as it is: there is more in it than the proxy.
    #[default]
    Nothing,
    /// The process is the proxy's.
    ThisProcess {
        /// The file that a reload reads.
        configuration: PathBuf,
    },
}

/// Confines the process where that is wanted, says what is in force, and returns what is not as it should be.
pub(crate) fn confine(config: &Config, confining: &Confining) -> Option<String> {
    match confining {
        Confining::Nothing => None,
        Confining::ThisProcess { configuration } => {
            let confinement = Confinement::put_on(config, configuration);
            confinement.tell();
            confinement.problem()
        }
    }
}

/// Says why a listener cannot be opened, where the reason is what was given up.
pub(crate) fn explain(error: &RunError, confining: &Confining) -> String {
    let told = describe(error);
    match (error, confining) {
        (RunError::Listen { source, .. }, Confining::ThisProcess { .. })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            format!(
                "{told}: the right to listen there, if there was one, was given up at the start and needs a restart"
            )
        }
        (_, Confining::ThisProcess { .. } | Confining::Nothing) => told,
    }
}

/// What is in force.
#[derive(Debug, PartialEq, Eq)]
struct Confinement {
    landlock: Outcome,
    seccomp: Outcome,
    capabilities: Outcome,
    /// Threads that were there before.
    others: usize,
    /// What the configuration names and is not there.
    missing: Vec<PathBuf>,
}

/// What has become of one wall.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    InForce(String),
    /// Somebody wanted that.
    Off,
    /// The reason.
    Impossible(String),
}

impl Confinement {
    /// Confines this thread, and with it every thread that it starts.
    fn put_on(config: &Config, configuration: &Path) -> Self {
        let reach = Reach::of(config, configuration);
        let others = threads().saturating_sub(1);
        let wall = |wall, put_on: &mut dyn FnMut() -> Result<String, String>| match wall {
            Wall::DangerOff => Outcome::Off,
            Wall::Enforce => put_on().map_or_else(Outcome::Impossible, Outcome::InForce),
        };
        let hardening = config.hardening;
        let mut missing = Vec::new();
        let landlock = wall(hardening.landlock, &mut || files::restrict(&reach, &mut missing));
        // Giving up capabilities and files takes system calls that are given up afterwards.
        let capabilities = wall(hardening.capabilities, &mut || rights::keep(&rights::needed(config)));
        let seccomp = wall(hardening.seccomp, &mut calls::restrict);
        Self { landlock, seccomp, capabilities, others, missing }
    }

    /// Says what is in force.
    fn tell(&self) {
        let Self { landlock, seccomp, capabilities, .. } = self;
        tracing::info!(%landlock, %seccomp, %capabilities, "confined");
        for path in &self.missing {
            tracing::info!(path = %path.display(), "not there at the start: out of reach until a restart");
        }
        for (name, outcome) in self.walls() {
            if *outcome == Outcome::Off {
                tracing::warn!(wall = name, "left out, as the configuration has it");
            }
        }
        if let Some(problem) = self.problem() {
            tracing::warn!(reason = problem, "not confined as it should be");
        }
    }

    /// What is not as the configuration wants it.
    fn problem(&self) -> Option<String> {
        let impossible = self.walls().into_iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Impossible(reason) => Some(format!("{name} is not in force: {reason}")),
            Outcome::InForce(_) | Outcome::Off => None,
        });
        let others = (self.others > 0).then(|| format!("{} threads were there before", self.others));
        let all: Vec<String> = impossible.chain(others).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn walls(&self) -> [(&'static str, &Outcome); 3] {
        [("landlock", &self.landlock), ("seccomp", &self.seccomp), ("capabilities", &self.capabilities)]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce(what) => out.write_str(what),
            Self::Off => out.write_str("off"),
            Self::Impossible(_) => out.write_str("not in force"),
        }
    }
}

/// The threads of this process. One that cannot count them takes them for one.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

#[cfg(test)]
mod tests;
