//! The end: everybody is told first, then those who finish are waited for, and who does not is cut.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::serving::Serving;
use crate::{live::Cut, shared::Shared, state::Part};

/// How much time there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Before the listeners close, so that load balancers notice.
    pub(super) delay: Duration,
    /// For live connections to finish.
    pub(super) drain: Duration,
}

/// Begins the end: readiness goes first and each answer says that it is the last, while connections are still taken.
/// `hurry` ends all waiting.
pub(super) async fn announce(shared: &Shared, patience: Patience, hurry: &CancellationToken) {
    shared.state.set_problem(Part::Draining, Some("the proxy is stopping".to_owned()));
    shared.registry.finish();
    tracing::info!(connections = shared.registry.len(), "draining");
    unless(hurry, sleep(patience.delay)).await;
}

/// Has connections finish once nothing is accepted any more.
pub(super) async fn drain(
    serving: &mut Serving,
    shared: &Shared,
    patience: Patience,
    hurry: &CancellationToken,
) {
    shared.drain.cancel();
    unless(hurry, timeout(patience.drain, serving.finished())).await;
    cut(serving, shared).await;
}

/// Ends after another process has taken the listeners over. Connections may go on for as long as `patience` has it, or until
/// `stop`; nobody is hurried within the time that a stop would take.
pub(super) async fn outlive(
    serving: &mut Serving,
    shared: &Shared,
    patience: (Duration, Patience),
    ends: (&CancellationToken, &CancellationToken),
) {
    let ((all, patience), (stop, hurry)) = (patience, ends);
    shared.state.set_problem(Part::Draining, Some("another process has taken over".to_owned()));
    serving.close(true);
    // A client that is about to send its next request would lose it if its idle connection were closed at once.
    shared.registry.finish();
    tracing::info!(connections = shared.registry.len(), "another process accepts, finishing here");
    unless(stop, timeout(patience.drain.min(all), serving.finished())).await;
    shared.drain.cancel();
    unless(stop, timeout(all.saturating_sub(patience.drain), serving.finished())).await;
    if stop.is_cancelled() {
        unless(hurry, timeout(patience.drain, serving.finished())).await;
    }
    cut(serving, shared).await;
}

/// Cuts whatever is left, and leaves time for the records of it.
async fn cut(serving: &mut Serving, shared: &Shared) {
    if serving.tasks.is_empty() {
        return;
    }
    tracing::warn!(connections = shared.registry.len(), "cutting what did not finish in time");
    shared.registry.cut_all(|| Cut::Drained);
    if timeout(LAST_WORDS, serving.finished()).await.is_err() {
        serving.tasks.abort_all();
    }
}

async fn unless<F: Future>(told: &CancellationToken, what: F) {
    tokio::select! {
        biased;
        () = told.cancelled() => {}
        _ = what => {}
    }
}

/// For the records of connections that were cut at the end of the drain.
const LAST_WORDS: Duration = Duration::from_secs(1);
