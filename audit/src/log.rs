//! The hot side of the log: where the data path hands over an event and goes on.
//!
//! `open` takes one short lock and never waits for the disk. What finds no room on the queue is folded
//! into aggregates under the same lock, so that every event is in exactly one of the two, and counted.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    time::{Duration, Instant},
};

use crate::{
    aggregate::Aggregates,
    event::{Decision, Event},
    strangers::Strangers,
    writer::{Side, TurnError},
};

/// Where every decider puts what it decided. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

/// How often one thing was decided for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// What was decided.
    pub decision: Decision,
    /// The name of the reason; none for what was allowed.
    pub reason: Option<&'static str>,
    /// How often since the log was started.
    pub total: u64,
}

impl Log {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Puts an event on the record.
    ///
    /// Never blocks on I/O and never fails: an event that finds no room is counted in an aggregate record.
    /// Allowed requests are always summed up that way, refused strangers beyond an allowance.
    pub fn open(&self, mut event: Event) {
        event.slim();
        let mut state = self.shared.lock();
        state.count(&event);
        let summed = event.decision() == Decision::Allowed || state.strangers.exceeds(&event, Instant::now());
        let wake = if summed {
            state.sum_up(event)
        } else if state.queue.len() < QUEUE_CAPACITY {
            state.queue.push_back(event);
            state.wakes()
        } else {
            state.aggregated += 1;
            state.folded.add(event);
            false
        };
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
    }

    /// Names the SPIFFE ID the daemon acts for, once it is known, in every record from here on.
    pub fn identify(&self, id: &str) {
        self.shared.lock().identity = Some(id.to_owned());
    }

    /// Returns how often each thing was decided for each reason; the sum over the records once written.
    pub fn counts(&self) -> Vec<Count> {
        let state = self.shared.lock();
        state.counts.iter().map(|(&(decision, reason), &total)| Count { decision, reason, total }).collect()
    }

    /// Returns how many events found the queue full and went into aggregates.
    pub fn aggregated(&self) -> u64 {
        self.shared.lock().aggregated
    }

    /// Returns how many events wait for the writer.
    pub fn queued(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Returns whether the last write succeeded. While not, events are only counted.
    pub fn healthy(&self) -> bool {
        self.shared.lock().healthy
    }
}

/// What the data path and the writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// The writer is to go on in another file.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) to: Side,
    /// Told what became of it.
    pub(crate) reply: SyncSender<Result<(), TurnError>>,
}

/// What the writer found when it looked.
#[derive(Debug)]
pub(crate) struct Work {
    /// Events to write one by one, in their order.
    pub(crate) events: VecDeque<Event>,
    /// Events that found no room.
    pub(crate) folded: Aggregates,
    /// Allowed requests and strangers beyond their allowance, when their time has come.
    pub(crate) summaries: Aggregates,
    /// Who the daemon acts for, where that was learnt since.
    pub(crate) identity: Option<String>,
    /// Where the writer is to go on, where somebody asked for that.
    pub(crate) turn: Option<Turn>,
    /// Whether this is the last work.
    pub(crate) closing: bool,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Event>,
    folded: Aggregates,
    strangers: Strangers,
    summaries: Aggregates,
    summaries_due: Option<Instant>,
    counts: BTreeMap<(Decision, Option<&'static str>), u64>,
    aggregated: u64,
    identity: Option<String>,
    turn: Option<Turn>,
    healthy: bool,
    closing: bool,
    writer: WriterIs,
}

/// What the writer does, so that it is woken only when that helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterIs {
    /// Writing; it looks again by itself.
    Busy,
    /// Gathering a batch; it looks again soon.
    Gathering,
    /// Waiting for anything at all.
    Idle,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let state = State {
            queue: VecDeque::new(),
            folded: Aggregates::default(),
            strangers: Strangers::default(),
            summaries: Aggregates::default(),
            summaries_due: None,
            counts: BTreeMap::new(),
            aggregated: 0,
            identity: None,
            turn: None,
            healthy: true,
            closing: false,
            writer: WriterIs::Busy,
        };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    /// Asks the writer to write what there is and to end.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }

    /// Asks the writer to go on elsewhere, once it has written what there is.
    pub(crate) fn turn(&self, turn: Turn) {
        self.lock().turn = Some(turn);
        self.wake.notify_one();
    }

    /// Tells the data path whether writing works.
    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.lock().healthy = healthy;
    }

    /// Waits until there is something to write, the log is closed, or `deadline` has passed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Work {
        let mut state = self.lock();
        state = self.wait_for_any(state, deadline);
        state = self.gather(state);
        state.writer = WriterIs::Busy;
        state.take(Instant::now())
    }

    fn wait_for_any<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        while !state.has_work(Instant::now()) {
            state.writer = WriterIs::Idle;
            let until = [deadline, state.summaries_due].into_iter().flatten().min();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match left {
                Some(Duration::ZERO) => break,
                Some(left) => state = self.sleep(state, left),
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        state
    }

    /// Gives a batch a moment to grow: one write for many lines, and no wake-up for each.
    fn gather<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let until = Instant::now() + GATHER;
        state.writer = WriterIs::Gathering;
        while !state.queue.is_empty()
            && state.queue.len() < GATHER_ENOUGH
            && !state.closing
            && state.turn.is_none()
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.sleep(state, left);
        }
        state
    }

    fn sleep<'a>(&self, state: MutexGuard<'a, State>, left: Duration) -> MutexGuard<'a, State> {
        self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }

    /// A lock is never held over code that can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, event: &Event) {
        let decision = event.decision();
        if decision == Decision::Lifecycle {
            return;
        }
        *self.counts.entry((decision, event.reason().map(|reason| reason.as_str()))).or_default() += 1;
    }

    /// Adds an event to the sums; says whether the writer must learn that a sum has begun.
    fn sum_up(&mut self, event: Event) -> bool {
        self.summaries.add(event);
        if self.summaries_due.is_some() {
            return false;
        }
        self.summaries_due = Some(Instant::now() + SUMMARY_INTERVAL);
        self.wakes()
    }

    /// Says whether the writer must be woken; for a sleeping one that is said once.
    fn wakes(&mut self) -> bool {
        match self.writer {
            WriterIs::Busy => false,
            WriterIs::Gathering => self.queue.len() == GATHER_ENOUGH,
            WriterIs::Idle => {
                self.writer = WriterIs::Gathering;
                true
            }
        }
    }

    fn has_work(&self, now: Instant) -> bool {
        let summed_up = self.summaries_due.is_some_and(|due| due <= now);
        let asked = self.closing || self.turn.is_some();
        !self.queue.is_empty() || !self.folded.is_empty() || summed_up || asked
    }

    fn take(&mut self, now: Instant) -> Work {
        let due = self.closing || self.summaries_due.is_some_and(|due| due <= now);
        let summaries = if due { mem::take(&mut self.summaries) } else { Aggregates::default() };
        if due {
            self.summaries_due = None;
        }
        Work {
            events: mem::take(&mut self.queue),
            folded: mem::take(&mut self.folded),
            summaries,
            identity: self.identity.take(),
            turn: self.turn.take(),
            closing: self.closing,
        }
    }
}

/// How many events wait for the writer one by one; what comes while it is full goes into aggregates.
pub const QUEUE_CAPACITY: usize = 8_192;
/// How long allowed requests, and strangers beyond their allowance, are summed up before they are written.
pub const SUMMARY_INTERVAL: Duration = Duration::from_secs(10);
/// How long a batch may grow.
const GATHER: Duration = Duration::from_millis(5);
/// How many events make a batch that need not grow.
const GATHER_ENOUGH: usize = 1_024;

#[cfg(test)]
mod tests;
