//! Keeping the cache on disk in step with the state.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::health::chain;
use crate::state::State;
use crate::store::{CacheRecord, Store};

/// How long after a change the next write waits, so that a burst of changes costs few writes.
pub(super) const WRITE_PAUSE: Duration = Duration::from_millis(250);

/// Writes the cache after every change, and once more at `shutdown`.
pub(crate) async fn persist(
    store: Arc<Store>,
    mut state: watch::Receiver<Arc<State>>,
    shutdown: CancellationToken,
) {
    loop {
        let changed = shutdown.run_until_cancelled(state.changed()).await;
        let latest = state.borrow_and_update().clone();
        // Before the agent has a name it holds nothing; writing that would wipe what an earlier run left.
        if latest.agent_id.is_some() {
            write(&store, latest).await;
        }
        match changed {
            Some(Ok(())) => drop(shutdown.run_until_cancelled(tokio::time::sleep(WRITE_PAUSE)).await),
            Some(Err(_)) | None => return,
        }
    }
}

async fn write(store: &Arc<Store>, state: Arc<State>) {
    let store = store.clone();
    let written = tokio::task::spawn_blocking(move || store.save_cache(&CacheRecord::of(&state))).await;
    if let Ok(Err(error)) = written {
        tracing::error!(error = %chain(&error), "cannot keep the SVIDs on disk; a restart would have to wait for the CA");
    }
}
