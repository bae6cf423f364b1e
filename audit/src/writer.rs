//! The cold side of the log: one thread that turns events into lines and lines into files.
//!
//! A batch is one write, and its events are let go only once it is written. What cannot be written is
//! counted in aggregates until it can, so that the sum over the records never falls behind for good.
//! The thread sleeps without a timer while there is nothing to write, sync, sum up or rotate.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tracing::error;

use self::sink::Sink;
use crate::{
    aggregate::{Aggregate, Aggregates},
    chain::Link,
    config::Config,
    event::Event,
    log::{Log, Shared, Work},
    record::{CLOSED, Change, Product, Record, Subject, write_line},
};

mod failing;
mod rotate;
mod sink;
mod tail;
#[cfg(test)]
mod tests;
mod turn;

pub use turn::{Prepared, Side, TurnError, prepare};

/// The thread that writes a log. Closing it, or dropping it, writes everything first.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    ended: Option<Receiver<Result<(), CloseError>>>,
    #[cfg(test)]
    task: Receiver<i32>,
}

/// Why a log could not be started. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file cannot be opened or made.
    #[error("cannot open the audit log {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is a directory, a device or a pipe.
    #[error("the audit log {path} is not a plain file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Anybody may write to the file or its directory.
    #[error("the audit log {path} could be changed by anybody: mode {mode:o} of {culprit}")]
    WorldWritable {
        /// The log.
        path: PathBuf,
        /// The file or directory with that mode.
        culprit: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process writes to the file.
    #[error("the audit log {path} is being written by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no thread.
    #[error("cannot start the thread that writes the audit log")]
    Thread(#[source] io::Error),
}

/// Why the end of a log is not written.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Writing failed to the last.
    #[error("{events} events could not be written to the audit log")]
    Unwritten {
        /// How many.
        events: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The target takes no bytes: a stalled reader of standard output, a hung mount.
    #[error("the audit log takes no bytes; its end is not written after {limit:?}")]
    Stuck {
        /// How long the end was waited for.
        limit: Duration,
    },
}

/// Opens the log and starts its writer.
///
/// # Errors
/// When the target cannot be written safely, or no thread can be started.
pub fn start(config: Config) -> Result<(Log, Writer), StartError> {
    let (log, prepared) = prepare(config);
    Ok((log, prepared.start()?))
}

/// Starts a log on any stream.
#[cfg(test)]
pub(crate) fn start_on(config: Config, out: Box<dyn io::Write + Send>) -> Result<(Log, Writer), StartError> {
    let (log, prepared) = prepare(config);
    Ok((log, prepared.write_on(Sink::stream(out), tail::Tail::none())?))
}

fn spawn(shared: Arc<Shared>, config: Config, sink: Sink, tail: tail::Tail) -> Result<Writer, StartError> {
    let pen = Pen::new(config, sink, &tail, shared.clone());
    let (end, ended) = mpsc::channel();
    #[cfg(test)]
    let (tell, task) = mpsc::channel();
    let write = move || {
        #[cfg(test)]
        let _ = tell.send(rustix::thread::gettid().as_raw_nonzero().get());
        // Nobody listens any more where closing took too long.
        let _ = end.send(pen.run(tail.opened()));
    };
    thread::Builder::new().name("audit".to_owned()).spawn(write).map_err(StartError::Thread)?;
    let ended = Some(ended);
    Ok(Writer {
        shared,
        ended,
        #[cfg(test)]
        task,
    })
}

impl Writer {
    /// Writes everything that was handed over before this call, syncs and ends. Blocks.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.finish_within(CLOSE_LIMIT)
    }

    #[cfg(test)]
    pub(crate) fn task(&self) -> Option<i32> {
        self.task.recv().ok()
    }

    fn finish_within(&mut self, limit: Duration) -> Result<(), CloseError> {
        let Some(ended) = self.ended.take() else { return Ok(()) };
        self.shared.close();
        ended.recv_timeout(limit).unwrap_or(Err(CloseError::Stuck { limit }))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(failure) = self.finish_within(CLOSE_LIMIT) {
            error!(error = &failure as &dyn std::error::Error, "audit log not written to its end");
        }
    }
}

/// Where the chain stands: what the next record refers to.
#[derive(Debug, Clone)]
struct Position {
    sequence: u64,
    prev: Link,
}

/// What the thread owns.
struct Pen {
    shared: Arc<Shared>,
    config: Config,
    product: Product,
    chain: String,
    sink: Sink,
    position: Position,
    unwritten: Aggregates,
    failing: Option<Failing>,
    sync_due: Option<Instant>,
    /// When a rotation that failed may be tried again.
    rotate_after: Option<Instant>,
    /// When an operator was last told that something fails.
    said_at: Option<Instant>,
}

/// Writing fails.
struct Failing {
    cause: io::Error,
    since: SystemTime,
    retry_at: Instant,
}

/// What becomes a line.
enum Entry {
    Event(Event),
    Aggregate(Aggregate),
    Change(Change),
}

impl Pen {
    fn new(config: Config, sink: Sink, tail: &tail::Tail, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            product: Product::new(&config.product),
            config,
            chain: tail.chain.clone(),
            sink,
            position: Position { sequence: tail.next_sequence, prev: tail.prev },
            unwritten: Aggregates::default(),
            failing: None,
            sync_due: None,
            rotate_after: None,
            said_at: None,
        }
    }

    fn run(mut self, opened: Change) -> Result<(), CloseError> {
        self.write(VecDeque::from([Entry::Change(opened)]));
        loop {
            let mut work = self.shared.wait(self.deadline());
            if let Some(id) = work.identity.take() {
                self.config.product.id = Some(id);
                self.product = Product::new(&self.config.product);
            }
            let (closing, turn) = (work.closing, work.turn.take());
            self.write(entries(work));
            if let Some(turn) = turn {
                self.turn(turn);
            }
            self.retry(Instant::now(), closing);
            self.rotate_if_old();
            self.sync(Instant::now(), closing);
            if closing {
                return self.end();
            }
        }
    }

    fn end(mut self) -> Result<(), CloseError> {
        self.write(VecDeque::from([Entry::Change(change(CLOSED))]));
        let synced = self.sink.sync();
        let events = self.unwritten.total();
        let cause = self.failing.map(|failing| failing.cause).or(synced.err());
        cause.map_or(Ok(()), |source| Err(CloseError::Unwritten { events, source }))
    }

    /// Returns when there is something to do though nobody hands anything over.
    fn deadline(&self) -> Option<Instant> {
        let retry = self.failing.as_ref().map(|failing| failing.retry_at);
        [retry, self.sync_due, self.age_due()].into_iter().flatten().min()
    }

    /// Writes the entries in as few writes as their sizes allow; counts them where that fails.
    fn write(&mut self, mut entries: VecDeque<Entry>) {
        while !entries.is_empty() {
            if self.failing.is_some() {
                return self.keep(entries);
            }
            let batch = self.render(&entries);
            match self.sink.append(&batch.bytes) {
                Ok(()) => {
                    entries.drain(..batch.entries);
                    self.written(&batch);
                }
                Err(cause) => self.fail(cause),
            }
            if batch.full && self.failing.is_none() {
                self.rotate();
            }
        }
    }

    fn written(&mut self, batch: &Batch) {
        self.position = batch.after.clone();
        if batch.events {
            self.sink.has_events();
        }
        self.is_dirty();
    }

    /// Renders entries until the batch or the file is full.
    fn render(&self, entries: &VecDeque<Entry>) -> Batch {
        let mut batch =
            Batch { bytes: Vec::new(), entries: 0, events: false, after: self.position.clone(), full: false };
        for entry in entries {
            if batch.bytes.len() >= BATCH_BYTES {
                break;
            }
            let start = batch.bytes.len();
            let record = self.record(entry, &batch.after);
            let hash = write_line(&record, batch.after.prev, &mut batch.bytes);
            if self.is_full(batch.bytes.len()) {
                batch.bytes.truncate(start);
                batch.full = true;
                break;
            }
            batch.after = Position { sequence: batch.after.sequence + 1, prev: hash };
            batch.entries += 1;
            batch.events |= !matches!(entry, Entry::Change(_));
        }
        batch
    }

    fn record(&self, entry: &Entry, position: &Position) -> Record {
        let (product, chain) = (&self.product, self.chain.as_str());
        let subject = Subject { product, chain, sequence: position.sequence, prev: position.prev };
        match entry {
            Entry::Event(event) => Record::of_event(event, &subject),
            Entry::Aggregate(aggregate) => Record::of_aggregate(aggregate, &subject),
            Entry::Change(change) => Record::of_log(SystemTime::now(), change.clone(), &subject),
        }
    }
}

/// What a batch of entries became.
struct Batch {
    bytes: Vec<u8>,
    entries: usize,
    events: bool,
    after: Position,
    full: bool,
}

/// Puts work in the order it is written.
fn entries(work: Work) -> VecDeque<Entry> {
    let sums = work.folded.into_sorted().into_iter().chain(work.summaries.into_sorted());
    work.events.into_iter().map(Entry::Event).chain(sums.map(Entry::Aggregate)).collect()
}

fn change(what: &str) -> Change {
    Change { what: what.to_owned(), ..Change::default() }
}

/// The most bytes of one write, give or take a line.
const BATCH_BYTES: usize = 256 * 1024;
/// How long written lines may wait for the disk.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a failed write the next is tried.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a failed rotation the next is tried.
const ROTATE_RETRY: Duration = Duration::from_secs(60);
/// How often an operator is told that something still fails.
const SAY_INTERVAL: Duration = Duration::from_secs(30);
/// How long the end of a log is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
