//! Reading logs back: records out of files, whoever wrote them, filtered, followed and counted.
//!
//! Nothing in a file can stop a reader: a line that is foreign, torn or gigantic is a [`Problem`] with its
//! file and line, and reading goes on behind it. A line is never held beyond [`MAX_LINE`].

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    sync::Arc,
    vec,
};

use self::lines::{Line, Lines};
pub use self::{
    filter::{Caller, Filter},
    find::{FindError, find},
    follow::{Follow, POLL_INTERVAL, Start},
    glob::{Glob, GlobError},
    group::{Field, FieldError, Group, Groups, MAX_GROUPS},
    row::row,
};
use crate::record::{MAX_LINE, Record};

mod filter;
mod find;
mod follow;
mod glob;
mod group;
mod lines;
mod row;
#[cfg(test)]
mod tests;

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The line is longer than any record.
    #[error("line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The line is not one of our records.
    #[error("not an audit record: {0}")]
    NotARecord(serde_json::Error),
}

/// A record and where it was found.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// Its line as it is in the file, without the line feed.
    pub raw: String,
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u64,
}

/// A place in a log that is no record.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {cause}")]
pub struct Problem {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong there.
    pub cause: ProblemCause,
}

/// What is wrong with a place in a log.
#[derive(Debug, thiserror::Error)]
pub enum ProblemCause {
    /// The line is no record.
    #[error(transparent)]
    Line(ParseError),
    /// The file cannot be read on; reading goes on with the next file.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Reads one line, without its line feed.
///
/// # Errors
/// When the line is no record of ours.
pub fn parse(line: &[u8]) -> Result<Record, ParseError> {
    if line.len() > MAX_LINE {
        return Err(ParseError::TooLong);
    }
    serde_json::from_slice(line).map_err(ParseError::NotARecord)
}

/// Reads files one after the other, in the order given: see [`find`] for the oldest first.
pub fn files(paths: Vec<PathBuf>) -> Scan {
    Scan { paths: paths.into_iter(), open: None }
}

/// Reads one stream; `name` is what problems call it.
pub fn stream<R: BufRead>(name: &str, from: R) -> Records<R> {
    Records { name: name.into(), lines: Lines::new(from), ended: false }
}

/// The records of one stream.
#[derive(Debug)]
pub struct Records<R> {
    name: Arc<str>,
    lines: Lines<R>,
    ended: bool,
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Entry, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.lines.next_line() {
                Ok(Line::Whole(bytes)) if bytes.trim_ascii().is_empty() => {}
                Ok(Line::Whole(bytes) | Line::Unfinished(bytes)) => {
                    let line = self.lines.number();
                    return Some(entry(&self.name, line, &bytes));
                }
                Ok(Line::TooLong) => {
                    let line = self.lines.number();
                    return Some(Err(problem(&self.name, line, ProblemCause::Line(ParseError::TooLong))));
                }
                Ok(Line::End) => self.ended = true,
                Err(cause) => {
                    self.ended = true;
                    let line = self.lines.number() + 1;
                    return Some(Err(problem(&self.name, line, ProblemCause::Unreadable(cause))));
                }
            }
        }
        None
    }
}

/// The records of several files.
#[derive(Debug)]
pub struct Scan {
    paths: vec::IntoIter<PathBuf>,
    open: Option<Records<BufReader<File>>>,
}

impl Iterator for Scan {
    type Item = Result<Entry, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.open.as_mut().and_then(Iterator::next) {
                return Some(item);
            }
            let path = self.paths.next()?;
            let name = path.to_string_lossy();
            match File::open(&path) {
                Ok(file) => self.open = Some(stream(&name, BufReader::with_capacity(READ_BYTES, file))),
                Err(cause) => return Some(Err(problem(&name.into(), 0, ProblemCause::Unreadable(cause)))),
            }
        }
    }
}

fn entry(name: &Arc<str>, line: u64, bytes: &[u8]) -> Result<Entry, Problem> {
    let record = parse(bytes).map_err(|cause| problem(name, line, ProblemCause::Line(cause)))?;
    // What parsed as JSON is UTF-8, so nothing is replaced here.
    let raw = String::from_utf8_lossy(bytes).into_owned();
    Ok(Entry { record, raw, file: name.clone(), line })
}

fn problem(name: &Arc<str>, line: u64, cause: ProblemCause) -> Problem {
    Problem { file: name.clone(), line, cause }
}

/// How much of a file is read at once.
const READ_BYTES: usize = 256 * 1024;
