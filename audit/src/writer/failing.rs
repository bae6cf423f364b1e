//! What the writer does while it cannot write: count, say so, and try again.

use std::{collections::VecDeque, error::Error, io, mem, time::Instant, time::SystemTime};

use tracing::{error, info};

use super::{Entry, Failing, Pen, RETRY_INTERVAL, SAY_INTERVAL, SYNC_INTERVAL};
use crate::record::{Change, GAP, millis};

impl Pen {
    /// Notes that writing failed; from here on events are only counted.
    pub(super) fn fail(&mut self, cause: io::Error) {
        self.shared.set_healthy(false);
        self.say(&cause, "audit log cannot be written, counting only");
        let since = SystemTime::now();
        self.failing = Some(Failing { cause, since, retry_at: Instant::now() + RETRY_INTERVAL });
    }

    /// Counts what could not be written.
    pub(super) fn keep(&mut self, entries: VecDeque<Entry>) {
        for entry in entries {
            match entry {
                Entry::Event(event) => self.unwritten.add(event),
                Entry::Aggregate(aggregate) => self.unwritten.merge(aggregate),
                Entry::Change(_) => {} // about the log itself, which is not written
            }
        }
    }

    /// Writes a gap record and what was counted since, when it is time to try.
    pub(super) fn retry(&mut self, now: Instant, closing: bool) {
        let Some(failing) = self.failing.take_if(|failing| closing || failing.retry_at <= now) else {
            return;
        };
        let counted = mem::take(&mut self.unwritten);
        let gap = Change {
            what: GAP.to_owned(),
            aggregated: Some(counted.total()),
            since: Some(millis(failing.since)),
            error: Some(failing.cause.to_string()),
            ..Change::default()
        };
        let entries = counted.into_sorted().into_iter().map(Entry::Aggregate);
        self.write([Entry::Change(gap)].into_iter().chain(entries).collect());
        match &mut self.failing {
            Some(still) => still.since = failing.since,
            None => {
                self.shared.set_healthy(true);
                self.said_at = None;
                info!("audit log is written again");
            }
        }
    }

    /// Brings what was written to the disk when it is time to.
    pub(super) fn sync(&mut self, now: Instant, closing: bool) {
        if self.sync_due.take_if(|due| closing || *due <= now).is_none() {
            return;
        }
        if let Err(cause) = self.sink.sync() {
            self.fail(cause);
        } else if self.sink.is_displaced() {
            self.reopen();
        }
    }

    /// Tells an operator, at a bounded rate.
    pub(super) fn say(&mut self, cause: &io::Error, sentence: &'static str) {
        if self.said_at.is_some_and(|said| said.elapsed() < SAY_INTERVAL) {
            return;
        }
        self.said_at = Some(Instant::now());
        error!(error = cause as &dyn Error, log = ?self.config.target, "{sentence}");
    }

    /// Notes that bytes wait for the disk.
    pub(super) fn is_dirty(&mut self) {
        self.sync_due.get_or_insert_with(|| Instant::now() + SYNC_INTERVAL);
    }
}
