//! Which SVIDs to ask for, and when to look again. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::X509Svid;
use identity::rotation::{Backoff, renew_at};

use crate::entry::{Entries, Entry};
use crate::state::State;

/// How many certificate requests go to the CA at once; SPIRE refuses more.
pub const MAX_BATCH: usize = 500;

/// What is to be done about the SVIDs of the node.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Entries that need an SVID at once: those that have none first, then those that expire soonest.
    pub due: Vec<Arc<Entry>>,
    /// When something becomes due that is not.
    pub next: Option<SystemTime>,
}

/// Entries for which the CA refused an SVID, and when each is asked for again.
#[derive(Default)]
pub struct Refusals(BTreeMap<String, Refusal>);

struct Refusal {
    revision: i64,
    retry_at: SystemTime,
    backoff: Backoff,
}

/// Returns when to renew an SVID that was received at `now`: at its half-life, but with a third of what is left behind it.
///
/// A CA dates SVIDs back, so half of a short life may be over when it begins. Without the third, an SVID that lives
/// no longer than it was dated back would be renewed without a pause.
pub fn renewal_at(svid: &X509Svid, jitter: f64, now: SystemTime) -> SystemTime {
    let left = svid.not_after().duration_since(now).unwrap_or_default();
    renew_at(svid.not_before(), svid.not_after(), jitter).max(now + (left / 3).max(MIN_RENEWAL))
}

/// Computes which SVIDs to ask for at `now`.
pub fn plan(state: &State, refusals: &Refusals, now: SystemTime) -> Plan {
    let mut due = Vec::new();
    let mut next: Option<SystemTime> = None;
    for entry in state.entries.iter().filter(|entry| entry.is_served(now)) {
        let at = wanted_at(state, entry, now).max(refusals.retry_at(entry).unwrap_or(now));
        if at <= now {
            due.push(entry.clone());
        } else {
            next = Some(next.map_or(at, |next| next.min(at)));
        }
    }
    due.sort_by_key(|entry| (state.svid_for(entry, now).map(|held| held.svid.not_after()), entry.created_at));
    due.truncate(MAX_BATCH);
    Plan { due, next }
}

/// Returns when an SVID for `entry` is wanted: at once where none can be served or the entry changed since.
fn wanted_at(state: &State, entry: &Entry, now: SystemTime) -> SystemTime {
    match state.svid_for(entry, now) {
        Some(held) if held.revision == entry.revision => held.renew_at,
        Some(_) | None => now,
    }
}

impl Refusals {
    /// Notes that the CA refused an SVID for `entry`. A changed entry is asked for at once.
    pub fn note(&mut self, entry: &Entry, random: f64, now: SystemTime) -> Duration {
        let refusal = self.0.entry(entry.id.clone()).or_insert_with(|| Refusal {
            revision: entry.revision,
            retry_at: now,
            backoff: Backoff::new(FIRST_RETRY, LAST_RETRY),
        });
        let wait = refusal.backoff.next(random);
        refusal.revision = entry.revision;
        refusal.retry_at = now + wait;
        wait
    }

    /// Forgets the refusals of `entry`.
    pub fn forget(&mut self, entry: &str) {
        self.0.remove(entry);
    }

    /// Forgets entries that are gone.
    pub fn retain(&mut self, entries: &Entries) {
        self.0.retain(|id, _| entries.get(id).is_some());
    }

    fn retry_at(&self, entry: &Entry) -> Option<SystemTime> {
        self.0
            .get(&entry.id)
            .filter(|refusal| refusal.revision == entry.revision)
            .map(|refusal| refusal.retry_at)
    }
}

/// The shortest and the longest wait before an entry that the CA refused is asked for again.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Renewals of one SVID lie at least this far apart, whatever lifetimes the CA hands out.
pub const MIN_RENEWAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
