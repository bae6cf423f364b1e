//! The one writer: takes what the directory, the agent and DNS say, asks endpoints whether they work, and closes what is idle
//! for too long.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use identity::SpiffeId;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::{
    Origin,
    directory::{Directory, Look},
    health::Checks,
    names::Names,
};
use crate::{config, shared::Shared, state::Part, watching::Watching};

/// What keeps the services up to date.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    directory: Option<Directory>,
    names: Names,
    checks: Checks,
}

impl Keeper {
    pub(crate) fn new(config: &config::Services, shared: Arc<Shared>) -> Self {
        let directory = config.directory.clone().map(Directory::new);
        let checks = Checks::new(Arc::clone(&shared));
        Self { directory, names: Names::new(config.dns.clone()), checks, shared }
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let services = Arc::clone(&self.shared.services);
        let directories: BTreeSet<_> = self.directory.iter().map(|found| found.path().clone()).collect();
        let watching = Watching::directories(&directories);
        let mut identities = self.shared.state.changes();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.names.want(&services.names(), Instant::now());
        self.look().await;
        loop {
            let due = self.names.ask(Instant::now());
            let next = due.unwrap_or_else(|| Instant::now() + NEVER);
            tokio::select! {
                () = services.changed() => self.names.want(&services.names(), Instant::now()),
                () = watching.wait(), if self.directory.is_some() => self.look().await,
                Ok(()) = identities.changed() => self.look().await,
                (name, answer) = self.names.answer() => {
                    let now = Instant::now();
                    if let Some(addresses) = self.names.take(&name, answer, now) {
                        services.resolved(&name, addresses, now);
                    }
                }
                () = sleep_until(next.into()) => {}
                () = self.checks.run() => {}
                _ = sweep.tick() => services.sweep(),
            }
        }
    }

    /// Looks at the directory, and takes what has changed.
    async fn look(&mut self) {
        let (Some(directory), Some(own)) = (&mut self.directory, own(&self.shared)) else { return };
        let services = &self.shared.services;
        match directory.look(&own).await {
            Look::Same => {}
            Look::Good(described) => {
                let set = services.set(Origin::Directory, &described.iter().collect::<Vec<_>>());
                tracing::info!(services = set.len(), "services of the directory in use");
                services.put(Origin::Directory, set, Instant::now());
                self.shared.state.set_problem(Part::Services, None);
            }
            Look::Refused(reason) => {
                tracing::error!(reason, "services of the directory refused, the last good ones stay");
                self.shared.state.set_problem(Part::Services, Some(reason));
            }
        }
    }
}

fn own(shared: &Shared) -> Option<SpiffeId> {
    shared.state.now().identity.as_ref().map(|identity| identity.id().clone())
}

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_millis(500);
/// Nothing is due.
const NEVER: Duration = Duration::from_secs(3_600);
