//! Where a log's chain stands when a daemon starts: the end of its newest file, mended where it was torn.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    chain::{self, Link},
    files,
    id::fresh,
    read,
    record::{CLOSED, Change, MAX_LINE, OPENED, Record},
};

/// Where the chain stands and in what state it was found.
#[derive(Debug)]
pub(super) struct Tail {
    /// The chain's name.
    pub(super) chain: String,
    /// The number of the next record.
    pub(super) next_sequence: u64,
    /// The hash of the last record.
    pub(super) prev: Link,
    /// The number of the first record in the file.
    pub(super) first_sequence: Option<u64>,
    /// The time of the first record in the file.
    pub(super) first_at: Option<SystemTime>,
    torn: u64,
    unclean: bool,
}

impl Tail {
    /// Begins a new chain.
    pub(super) fn none() -> Self {
        Self {
            chain: fresh(SystemTime::now()).to_string(),
            next_sequence: 1,
            prev: Link::START,
            first_sequence: None,
            first_at: None,
            torn: 0,
            unclean: false,
        }
    }

    /// Finds the end of the chain in `file` or, where that has no record, in the files put aside.
    ///
    /// # Errors
    /// When a file cannot be read, or the torn end cannot be mended.
    pub(super) fn read(file: &mut File, path: &Path) -> io::Result<Self> {
        let torn = mend(file)?;
        let mut tail = Self { torn, ..Self::none() };
        if let Some(last) = last_record(file)? {
            tail.follow(&last);
        } else {
            for aside in files::aside(path)?.iter().rev() {
                if let Some(last) = last_record(&mut File::open(aside)?)? {
                    tail.follow(&last);
                    break;
                }
            }
        }
        if let Some(first) = first_record(file)? {
            tail.first_sequence = Some(first.metadata.sequence);
            tail.first_at = time_of(&first);
        }
        Ok(tail)
    }

    /// Returns what the first record of this start says.
    pub(super) fn opened(&self) -> Change {
        Change {
            what: OPENED.to_owned(),
            unclean_shutdown: self.unclean.then_some(true),
            torn_bytes: (self.torn > 0).then_some(self.torn),
            ..Change::default()
        }
    }

    fn follow(&mut self, last: &Record) {
        let ours = &last.unmapped.vouchsafe;
        self.chain.clone_from(&ours.chain);
        self.next_sequence = last.metadata.sequence.saturating_add(1);
        self.prev = Link::from_hex(&ours.hash).unwrap_or(Link::START);
        self.unclean = ours.change.as_ref().is_none_or(|change| change.what != CLOSED);
    }
}

/// Ends the last line: completes it where only its line feed is missing, cuts it off where it was torn.
/// Returns how many bytes were cut. What is too long to be ours is ended, not cut.
fn mend(file: &mut File) -> io::Result<u64> {
    let (start, window) = window(file)?;
    let torn_at = window.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = window.get(torn_at..).unwrap_or_default();
    if torn.is_empty() {
        return Ok(0);
    }
    if torn.len() > MAX_LINE || is_whole(torn) {
        file.write_all(b"\n")?;
        return Ok(0);
    }
    file.set_len(start + torn_at as u64)?;
    Ok(torn.len() as u64)
}

fn is_whole(line: &[u8]) -> bool {
    read::parse(line)
        .ok()
        .and_then(|record| Link::from_hex(&record.unmapped.vouchsafe.prev))
        .is_some_and(|prev| chain::verify(line, prev).is_ok())
}

/// Returns the last line that is a record; lines of others after it are passed over.
fn last_record(file: &mut File) -> io::Result<Option<Record>> {
    let (_, window) = window(file)?;
    Ok(window.split(|byte| *byte == b'\n').rev().find_map(|line| read::parse(line).ok()))
}

fn first_record(file: &mut File) -> io::Result<Option<Record>> {
    file.rewind()?;
    let mut head = Vec::new();
    file.take(MAX_LINE as u64).read_to_end(&mut head)?;
    Ok(head.split(|byte| *byte == b'\n').next().and_then(|line| read::parse(line).ok()))
}

/// Returns the last bytes of a file, and where they start.
fn window(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let len = file.metadata()?.len();
    let start = len.saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes)?;
    Ok((start, bytes))
}

fn time_of(record: &Record) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(record.time).ok()?))
}

/// How far back a last record is looked for: any torn line and several whole ones fit.
const WINDOW: u64 = 8 * MAX_LINE as u64;
