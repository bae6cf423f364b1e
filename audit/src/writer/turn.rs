//! Two daemons, one log: the one that takes over writes the file, the one that finishes writes beside it.
//!
//! At no time do two processes write one file: the file is let go, closed in order, before anybody else may open it, and
//! each file belongs to whoever holds its lock.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    time::{Duration, SystemTime},
};

use super::{CLOSED, Entry, Pen, Position, StartError, Writer, change, sink, sink::Sink, spawn, tail::Tail};
use crate::{
    config::{Config, Target},
    files,
    log::{Log, Shared, Turn},
};

/// A log that events may be handed to, and that is not written so far. They wait, within the bounds of the queue.
#[derive(Debug)]
pub struct Prepared {
    shared: Arc<Shared>,
    config: Config,
}

/// Where a writer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the file that the configuration names.
    Main,
    /// In a file of its own beside it, in a chain of its own.
    Beside,
}

/// Why a writer goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The other file cannot be opened.
    #[error("the audit log cannot be written elsewhere")]
    Open(#[from] StartError),
    /// What was handed over is not written.
    #[error("the audit log cannot be written at present")]
    Failing,
    /// The writer does not answer, or has ended.
    #[error("the writer of the audit log does not answer")]
    Silent,
}

/// Makes a log whose writer is started later.
pub fn prepare(config: Config) -> (Log, Prepared) {
    let shared = Arc::new(Shared::new());
    (Log::new(Arc::clone(&shared)), Prepared { shared, config })
}

impl Prepared {
    /// Opens the log and starts its writer, which begins with what waits.
    ///
    /// # Errors
    /// When the target cannot be written safely, or no thread can be started.
    pub fn start(self) -> Result<Writer, StartError> {
        let (sink, tail) = match &self.config.target {
            Target::File(path) => sink::open(path)?,
            Target::Stdout => (Sink::stream(Box::new(std::io::stdout())), Tail::none()),
        };
        self.write_on(sink, tail)
    }

    pub(super) fn write_on(self, sink: Sink, tail: Tail) -> Result<Writer, StartError> {
        spawn(self.shared, self.config, sink, tail)
    }
}

impl Log {
    /// Has the writer write everything that was handed over before this call, and go on at `to`. Blocks.
    ///
    /// # Errors
    /// When that cannot be written: the writer goes on where it was.
    pub fn turn(&self, to: Side) -> Result<(), TurnError> {
        let (reply, told) = sync_channel(1);
        self.shared().turn(Turn { to, reply });
        told.recv_timeout(TURN_LIMIT).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected => Err(TurnError::Silent),
        })
    }
}

impl Pen {
    pub(super) fn turn(&mut self, turn: Turn) {
        let turned = self.go_on(turn.to);
        // Whoever asked may have lost patience.
        let _ = turn.reply.send(turned);
    }

    fn go_on(&mut self, to: Side) -> Result<(), TurnError> {
        let Target::File(main) = self.config.target.clone() else { return Ok(()) };
        let path = match to {
            Side::Main => main,
            Side::Beside => files::beside_name(&main, self.position.sequence),
        };
        if self.sink.path() == Some(path.as_path()) {
            return Ok(());
        }
        if self.failing.is_some() {
            return Err(TurnError::Failing);
        }
        let (sink, tail) = open(&path)?;
        self.write(VecDeque::from([Entry::Change(change(CLOSED))]));
        if self.failing.is_some() || self.sink.sync().is_err() {
            return Err(TurnError::Failing);
        }
        self.sink = sink;
        self.chain.clone_from(&tail.chain);
        self.position = Position { sequence: tail.next_sequence, prev: tail.prev };
        self.rotate_after = None;
        self.write(VecDeque::from([Entry::Change(tail.opened())]));
        Ok(())
    }
}

/// Opens a file; one that whoever held it is just letting go of is waited for.
fn open(path: &Path) -> Result<(Sink, Tail), StartError> {
    let until = SystemTime::now() + LOCK_WAIT;
    loop {
        match sink::open(path) {
            Err(StartError::InUse { .. }) if SystemTime::now() < until => std::thread::sleep(LOCK_POLL),
            opened => return opened,
        }
    }
}

/// How long a turn may take: what is queued has to be written, and brought to the disk.
const TURN_LIMIT: Duration = Duration::from_secs(10);
/// A process that was killed holds its locks for a moment.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;
    use crate::{
        event::{Event, Lifecycle},
        read,
        record::Record,
    };

    fn config(path: &Path) -> Config {
        let product = crate::Product { daemon: "proxy".into(), id: None, version: "0".into() };
        Config::file(path, product)
    }

    fn event() -> Event {
        Event::lifecycle(SystemTime::now(), Lifecycle::PolicyChanged, Arc::from("g"))
    }

    fn records(path: &Path) -> Vec<Record> {
        read::files(vec![path.to_owned()]).map(|entry| entry.unwrap().record).collect()
    }

    fn whats(records: &[Record]) -> Vec<String> {
        let changes = records.iter().filter_map(|record| record.unmapped.vouchsafe.change.as_ref());
        changes.map(|change| change.what.clone()).collect()
    }

    #[test]
    fn the_successor_continues_the_chain_and_the_predecessor_finishes_in_one_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("audit.jsonl");
        let (old_log, old) = crate::start(config(&main)).unwrap();
        old_log.open(event());
        let (new_log, prepared) = prepare(config(&main));
        new_log.open(event());

        old_log.turn(Side::Beside).unwrap();
        let new = prepared.start().unwrap();
        old_log.open(event());
        new_log.open(event());
        old.close().unwrap();
        new.close().unwrap();

        let (kept, beside) = (records(&main), files::beside(&main).unwrap());
        let [beside] = beside.as_slice() else { panic!("{beside:?}") };
        let beside = records(beside);
        let changed = "policy_changed";
        assert_eq!(
            whats(&kept),
            ["log_opened", changed, "log_closed", "log_opened", changed, changed, "log_closed"]
        );
        assert_eq!(whats(&beside), ["log_opened", changed, "log_closed"]);
        let numbers: Vec<u64> = kept.iter().map(|record| record.metadata.sequence).collect();
        assert_eq!(numbers, (1..=7).collect::<Vec<_>>());
        assert_ne!(kept[0].unmapped.vouchsafe.chain, beside[0].unmapped.vouchsafe.chain);
        for records in [&kept, &beside] {
            assert!(
                records
                    .windows(2)
                    .all(|pair| { pair[0].unmapped.vouchsafe.hash == pair[1].unmapped.vouchsafe.prev })
            );
        }
    }

    #[test]
    fn who_comes_back_continues_the_chain_where_it_was_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("audit.jsonl");
        let (log, writer) = crate::start(config(&main)).unwrap();

        log.turn(Side::Beside).unwrap();
        log.turn(Side::Main).unwrap();
        log.open(event());
        writer.close().unwrap();

        let kept = records(&main);
        assert_eq!(whats(&kept), ["log_opened", "log_closed", "log_opened", "policy_changed", "log_closed"]);
        assert!(
            kept.iter().all(|record| record.unmapped.vouchsafe.chain == kept[0].unmapped.vouchsafe.chain)
        );
    }

    #[test]
    fn a_file_that_another_process_writes_is_not_come_back_to() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("audit.jsonl");
        let (log, old) = crate::start(config(&main)).unwrap();
        log.turn(Side::Beside).unwrap();
        let (_, new) = crate::start(config(&main)).unwrap();

        let refused = log.turn(Side::Main);
        log.open(event());
        old.close().unwrap();
        new.close().unwrap();

        assert!(matches!(refused, Err(TurnError::Open(StartError::InUse { .. }))), "{refused:?}");
        assert_eq!(whats(&records(&main)), ["log_opened", "log_closed", "log_opened", "log_closed"]);
    }

    #[test]
    fn a_log_that_cannot_be_written_beside_is_not_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("audit.jsonl");
        let (log, writer) = crate::start(config(&main)).unwrap();
        fs::create_dir(files::beside_name(&main, 2)).unwrap();

        let refused = log.turn(Side::Beside);
        log.open(event());
        writer.close().unwrap();

        assert!(matches!(refused, Err(TurnError::Open(_))), "{refused:?}");
        assert_eq!(whats(&records(&main)), ["log_opened", "policy_changed", "log_closed"]);
    }
}
