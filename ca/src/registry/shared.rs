//! The registry as several tasks see it: one writer, many readers, and a bell per watching agent.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use identity::SpiffeId;
use tokio::sync::watch;

use super::Registry;
use crate::model::Change;

/// Shares a [`Registry`]. A million entries cannot be copied for each change, hence a lock and not a snapshot;
/// it is held for a look-up, never across an await.
#[derive(Clone, Default)]
pub struct SharedRegistry {
    registry: Arc<RwLock<Registry>>,
    bells: Arc<Mutex<HashMap<SpiffeId, watch::Sender<u64>>>>,
}

impl SharedRegistry {
    /// Reads under the lock.
    pub fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over committed changes and rings for the agents they touch. Only the store's writer calls this.
    pub(crate) fn apply(&self, changes: Vec<Change>) {
        let mut touched = HashSet::new();
        {
            let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                touched.extend(registry.apply(change));
            }
        }
        let bells = self.bells();
        for bell in touched.iter().filter_map(|agent| bells.get(agent)) {
            bell.send_modify(|rung| *rung = rung.wrapping_add(1));
        }
    }

    /// Hears of every later change that touches `agent`.
    pub fn subscribe(&self, agent: &SpiffeId) -> Subscription {
        let mut bells = self.bells();
        let bell = bells.entry(agent.clone()).or_insert_with(|| watch::channel(0).0);
        Subscription { heard: bell.subscribe(), agent: agent.clone(), shared: self.clone() }
    }

    /// How many agents are being told of changes.
    pub fn subscribers(&self) -> usize {
        self.bells().len()
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<SpiffeId, watch::Sender<u64>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One agent's watch on the registry.
pub struct Subscription {
    heard: watch::Receiver<u64>,
    agent: SpiffeId,
    shared: SharedRegistry,
}

impl Subscription {
    /// Returns after something touched the agent since the last call.
    pub async fn changed(&mut self) {
        // The sender lives in the shared map until the last subscription of this agent is dropped.
        if self.heard.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut bells = self.shared.bells();
        if bells.get(&self.agent).is_some_and(|bell| bell.receiver_count() <= 1) {
            bells.remove(&self.agent);
        }
    }
}
