//! What an operator looks at live: who calls, how often, how long it takes and what is refused (`top`), and single requests as
//! they end (`tap`). Nothing is kept while nobody looks.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::broadcast;

use super::{Way, access::Line};
use crate::http1::Outcome;

/// What is shown to those who look.
#[derive(Debug)]
pub(crate) struct View {
    peers: Mutex<HashMap<Row, Tally>>,
    /// When somebody last asked for the table.
    asked: Mutex<Option<Instant>>,
    /// Whether that was lately.
    looking: AtomicBool,
    watched: AtomicUsize,
    taps: broadcast::Sender<Arc<Line>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    way: Way,
    service: Arc<str>,
    peer: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    refused: u64,
    failed: u64,
    total: Duration,
    slowest: Duration,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Seen {
    pub(crate) direction: &'static str,
    pub(crate) service: String,
    pub(crate) peer: Option<String>,
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) mean_us: u64,
    pub(crate) max_us: u64,
}

/// Keeps single requests coming to whoever holds it.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) lines: broadcast::Receiver<Arc<Line>>,
    view: Arc<View>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.view.watched.fetch_sub(1, Ordering::Relaxed);
    }
}

impl View {
    pub(crate) fn new() -> Self {
        let (taps, _) = broadcast::channel(TAPPED);
        Self {
            peers: Mutex::default(),
            asked: Mutex::default(),
            looking: AtomicBool::new(false),
            watched: AtomicUsize::new(0),
            taps,
        }
    }

    /// Says whether somebody looks at single requests.
    pub(super) fn is_tapped(&self) -> bool {
        self.watched.load(Ordering::Relaxed) > 0
    }

    /// Shows single requests from now on. None where as many look as may.
    pub(crate) fn tap(self: &Arc<Self>) -> Option<Tap> {
        let taken = self.watched.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < MAX_TAPS).then_some(count + 1)
        });
        taken.ok().map(|_| Tap { lines: self.taps.subscribe(), view: Arc::clone(self) })
    }

    pub(super) fn show(&self, line: &Arc<Line>) {
        // Nobody looks any more: nothing is lost.
        let _ = self.taps.send(Arc::clone(line));
    }

    /// Counts a request, if somebody looked at the table lately.
    pub(super) fn count(
        &self,
        (way, service, peer): (Way, &Arc<str>, Option<&Arc<str>>),
        outcome: Outcome,
        took: Duration,
    ) {
        if !self.is_looked_at() {
            return;
        }
        let row = Row { way, service: Arc::clone(service), peer: peer.cloned() };
        let mut peers = lock(&self.peers);
        let row = if peers.len() < MAX_ROWS || peers.contains_key(&row) {
            row
        } else {
            Row { peer: Some(Arc::from(OTHERS)), ..row }
        };
        let tally = peers.entry(row).or_default();
        tally.requests += 1;
        tally.refused += u64::from(outcome == Outcome::Refused);
        tally.failed += u64::from(matches!(outcome, Outcome::Broken | Outcome::Cut));
        tally.total += took;
        tally.slowest = tally.slowest.max(took);
    }

    /// Returns what was seen since the last call, busiest first.
    pub(crate) fn table(&self) -> (Option<Duration>, Vec<Seen>) {
        self.looking.store(true, Ordering::Relaxed);
        let since = lock(&self.asked).replace(Instant::now()).map(|asked| asked.elapsed());
        let peers = std::mem::take(&mut *lock(&self.peers));
        let mut seen: Vec<Seen> = peers.into_iter().map(|(row, tally)| told(row, &tally)).collect();
        seen.sort_by(|one, other| other.requests.cmp(&one.requests).then_with(|| one.peer.cmp(&other.peer)));
        (since.filter(|since| *since < LOOKING), seen)
    }

    fn is_looked_at(&self) -> bool {
        if !self.looking.load(Ordering::Relaxed) {
            return false;
        }
        let lately = lock(&self.asked).is_some_and(|asked| asked.elapsed() < LOOKING);
        self.looking.store(lately, Ordering::Relaxed);
        lately
    }
}

fn told(row: Row, tally: &Tally) -> Seen {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Seen {
        direction: row.way.as_str(),
        service: row.service.to_string(),
        peer: row.peer.map(|peer| peer.to_string()),
        requests: tally.requests,
        refused: tally.refused,
        failed: tally.failed,
        mean_us: micros(tally.total) / tally.requests.max(1),
        max_us: micros(tally.slowest),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines of the table; more peers are counted together for their service.
const MAX_ROWS: usize = 1000;
const OTHERS: &str = "(others)";
/// How long after the last look the table is kept.
const LOOKING: Duration = Duration::from_secs(30);
/// Requests that wait for whoever looks at single ones; who is too slow is told how many were passed over.
const TAPPED: usize = 1024;
/// How many may look at single requests at a time.
const MAX_TAPS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn count(view: &View, peer: &str, outcome: Outcome) {
        let service = Arc::from("api");
        view.count((Way::Inbound, &service, Some(&Arc::from(peer))), outcome, Duration::from_millis(2));
    }

    #[test]
    fn nothing_is_counted_until_somebody_looks() {
        let view = View::new();
        count(&view, "a", Outcome::Finished);

        assert_eq!(view.table(), (None, Vec::new()));
        count(&view, "a", Outcome::Finished);
        count(&view, "a", Outcome::Refused);
        count(&view, "b", Outcome::Broken);

        let (since, seen) = view.table();
        assert!(since.is_some());
        assert_eq!((seen[0].peer.as_deref(), seen[0].requests, seen[0].refused), (Some("a"), 2, 1));
        assert_eq!((seen[1].failed, seen[1].mean_us, seen[1].max_us), (1, 2000, 2000));
        assert_eq!(view.table().1, Vec::new());
    }

    #[test]
    fn peers_beyond_the_bound_are_counted_together() {
        let view = View::new();
        view.table();

        (0..MAX_ROWS + 50).for_each(|peer| count(&view, &peer.to_string(), Outcome::Finished));

        let seen = view.table().1;
        assert_eq!(seen.len(), MAX_ROWS + 1);
        assert_eq!(seen[0].requests, 50);
    }

    #[test]
    fn only_so_many_may_tap_and_a_place_comes_back() {
        let view = Arc::new(View::new());
        let mut taps: Vec<_> = (0..MAX_TAPS).map(|_| view.tap().unwrap()).collect();

        assert!(view.tap().is_none() && view.is_tapped());
        taps.clear();
        assert!(!view.is_tapped() && view.tap().is_some());
    }
}
