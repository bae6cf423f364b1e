//! The keys of an issuer: written in the policies, or fetched and kept fresh.
//!
//! A failed fetch leaves the last good keys in force, up to [`MAX_AGE`]; older ones prove nothing.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use identity::{crypto, jwt::KeySet};
use tokio::{sync::Notify, task::JoinSet, time::sleep};

use super::fetch::{FetchError, Fetcher};
use crate::{config, metrics::Metrics, state::State, transparent::Way};

/// Where the keys of an issuer are.
#[derive(Debug)]
pub(super) enum Keys {
    /// In the policies.
    Written(Arc<KeySet>),
    /// In the policies, and not to be read: they prove nothing.
    Broken,
    /// At an address.
    Fetched(Arc<Fetched>),
}

impl Keys {
    /// Reads keys that stand in the policies.
    pub(super) fn written(issuer: &str, text: &str) -> Self {
        match KeySet::parse(text.as_bytes()) {
            Ok(keys) => Self::Written(Arc::new(keys)),
            Err(error) => {
                tracing::error!(issuer, %error, "keys of a token issuer cannot be read, its tokens are refused");
                Self::Broken
            }
        }
    }

    /// Returns the keys, unless there are none that are young enough.
    pub(super) fn at(&self, now: Instant) -> Option<Arc<KeySet>> {
        match self {
            Self::Written(keys) => Some(Arc::clone(keys)),
            Self::Broken => None,
            Self::Fetched(fetched) => fetched.at(now),
        }
    }

    /// Asks for a look at the keys: a token names one that is not among them.
    pub(super) fn ask(&self) {
        match self {
            Self::Fetched(fetched) => fetched.wanted.notify_one(),
            Self::Written(_) | Self::Broken => {}
        }
    }
}

/// Keys that are fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    url: Arc<str>,
    held: ArcSwapOption<Held>,
    wanted: Arc<Notify>,
}

#[derive(Debug)]
struct Held {
    keys: Arc<KeySet>,
    since: Instant,
}

impl Fetched {
    pub(super) fn new(url: Arc<str>) -> Self {
        Self { url, held: ArcSwapOption::empty(), wanted: Arc::default() }
    }

    pub(super) fn at(&self, now: Instant) -> Option<Arc<KeySet>> {
        let held = self.held.load();
        let held = held.as_ref()?;
        (now.saturating_duration_since(held.since) <= MAX_AGE).then(|| Arc::clone(&held.keys))
    }

    /// Takes what a fetch brought. A failure changes nothing.
    pub(super) fn take(&self, keys: KeySet, since: Instant) {
        self.held.store(Some(Arc::new(Held { keys: Arc::new(keys), since })));
    }
}

impl Drop for Fetched {
    /// Whoever keeps it fresh is to notice that nobody needs it.
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

/// Keeps every key set fresh that a snapshot uses. Ends with the runtime.
pub(crate) async fn run(state: Arc<State>, config: config::Jwt, way: Way, metrics: Arc<Metrics>) {
    let fetcher = Arc::new(Fetcher::new(config).by(way));
    let mut keeping = JoinSet::new();
    loop {
        for fetched in state.tokens().take_fresh() {
            keeping.spawn(keep(fetched, Arc::clone(&fetcher), Arc::clone(&metrics)));
        }
        tokio::select! {
            () = state.tokens().added.notified() => {}
            Some(_) = keeping.join_next() => {}
        }
    }
}

/// Keeps one key set fresh until nobody uses it.
async fn keep(fetched: Weak<Fetched>, fetcher: Arc<Fetcher>, metrics: Arc<Metrics>) {
    let mut failures = 0;
    while let Some(now) = fetched.upgrade() {
        let outcome = fetcher.fetch(&now.url).await;
        metrics.keys_fetched(outcome.is_ok());
        tell(&now.url, &outcome, failures);
        let wait = match outcome {
            Ok((keys, age)) => {
                now.take(keys, Instant::now());
                failures = 0;
                age
            }
            Err(_) => {
                failures += 1;
                after_failures(failures)
            }
        };
        let wanted = Arc::clone(&now.wanted);
        drop(now);
        until_due(jittered(wait), &wanted).await;
    }
}

/// Waits for the time of the next fetch, or, after the shortest time between two, for somebody to ask.
async fn until_due(wait: Duration, wanted: &Notify) {
    let asked = async {
        sleep(REFETCH).await;
        wanted.notified().await;
    };
    tokio::select! {
        () = sleep(wait) => {}
        () = asked => {}
    }
}

fn tell(url: &str, outcome: &Result<(KeySet, Duration), FetchError>, failures: u32) {
    // What follows the path may be a secret of the operator's.
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match outcome {
        Ok((keys, _)) if failures > 0 => {
            tracing::info!(url, keys = keys.keys().len(), "keys of a token issuer are fetched again");
        }
        Ok((keys, _)) => tracing::debug!(url, keys = keys.keys().len(), "keys of a token issuer fetched"),
        Err(error) if failures == 0 => {
            let reason = crate::policies::describe(error);
            tracing::warn!(url, reason, "keys of a token issuer cannot be fetched, trying again");
        }
        Err(error) => tracing::debug!(url, %error, "keys of a token issuer cannot be fetched"),
    }
}

/// One second after the first failure, then twice as long each time.
fn after_failures(failures: u32) -> Duration {
    FIRST_RETRY
        .saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(LAST_RETRY)
}

/// A fleet that was started together does not ask together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 - JITTER * crypto::random_fraction().unwrap_or(0.0))
}

/// The oldest keys that prove anything: an issuer that cannot be asked for a day has taken back nothing as far as we
/// know, and after that it may have.
pub(super) const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest time between two fetches that tokens with unknown keys bring about: anybody can send one.
pub(super) const REFETCH: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
const JITTER: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;

    #[test]
    fn keys_prove_nothing_before_they_are_fetched_and_once_they_are_too_old() {
        let fetched = Fetched::new("https://login.test/keys".into());
        let now = Instant::now();
        assert!(fetched.at(now).is_none());

        fetched.take(KeySet::parse(SET.as_bytes()).unwrap(), now);

        assert!(fetched.at(now).is_some());
        assert!(fetched.at(now + MAX_AGE).is_some());
        assert!(fetched.at(now + MAX_AGE + Duration::from_secs(1)).is_none());
    }

    #[test]
    fn failures_are_tried_again_soon_and_never_more_rarely_than_each_minute() {
        assert_eq!(after_failures(1), Duration::from_secs(1));
        assert_eq!(after_failures(3), Duration::from_secs(4));
        assert_eq!(after_failures(7), LAST_RETRY);
        assert_eq!(after_failures(u32::MAX), LAST_RETRY);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_tenth_at_most() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(100));
            assert!(wait <= Duration::from_secs(100) && wait >= Duration::from_secs(90), "{wait:?}");
        }
    }

    #[test]
    fn written_keys_that_cannot_be_read_prove_nothing() {
        assert!(Keys::written("i", SET).at(Instant::now()).is_some());
        assert!(Keys::written("i", "{}").at(Instant::now()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_bring_about_one_fetch_in_half_a_minute() {
        let wanted = Notify::new();
        wanted.notify_one();
        wanted.notify_one();
        let start = tokio::time::Instant::now();

        until_due(Duration::from_secs(300), &wanted).await;
        let first = start.elapsed();
        until_due(Duration::from_secs(300), &wanted).await;

        assert_eq!(first, REFETCH);
        assert_eq!(start.elapsed() - first, Duration::from_secs(300), "nobody asked again");
    }
}
