//! Following a log while it grows, through every change of its file.

use std::{
    fs::{self, File, Metadata},
    io::{self, BufReader, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Entry, ParseError, Problem, ProblemCause, entry,
    lines::{Line, Lines},
    problem,
};
use crate::files;

/// Reads a log as it grows. It returns what there is and never waits: whoever asks waits
/// [`POLL_INTERVAL`] after a `None`.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    open: Option<Open>,
}

/// Where following begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first record of the file being written.
    Beginning,
    /// With the next record to come.
    End,
}

#[derive(Debug)]
struct Open {
    name: Arc<str>,
    lines: Lines<BufReader<File>>,
    inode: (u64, u64),
}

impl Follow {
    /// Follows the log at `path`. The file need not be there yet.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn new(path: &Path, start: Start) -> io::Result<Self> {
        let mut open = there_or_none(Open::new(path))?;
        if let (Some(open), Start::End) = (&mut open, start) {
            open.lines.stream().seek(SeekFrom::End(0))?;
        }
        Ok(Self { path: path.to_owned(), open })
    }

    /// Returns the next record or problem; `None` when there is no more as yet.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn poll(&mut self) -> io::Result<Option<Result<Entry, Problem>>> {
        loop {
            // Ask where the path leads before reading to the end: what was written before a
            // change of file is then always read before moving on.
            let there = self.there()?;
            if let Some(found) = self.read_on()? {
                return Ok(Some(found));
            }
            if !self.move_on(there.as_ref())? {
                return Ok(None);
            }
        }
    }

    fn there(&self) -> io::Result<Option<Metadata>> {
        there_or_none(fs::metadata(&self.path))
    }

    fn read_on(&mut self) -> io::Result<Option<Result<Entry, Problem>>> {
        let Some(open) = &mut self.open else { return Ok(None) };
        loop {
            match open.lines.next_whole_line()? {
                Line::Whole(bytes) if bytes.trim_ascii().is_empty() => {}
                Line::Whole(bytes) | Line::Unfinished(bytes) => {
                    return Ok(Some(entry(&open.name, open.lines.number(), &bytes)));
                }
                Line::TooLong => {
                    let cause = ProblemCause::Line(ParseError::TooLong);
                    return Ok(Some(Err(problem(&open.name, open.lines.number(), cause))));
                }
                Line::End => return Ok(None),
            }
        }
    }

    /// Goes on with the file after the one that was read to its end; says whether there is one.
    fn move_on(&mut self, there: Option<&Metadata>) -> io::Result<bool> {
        let Some(there) = there else { return Ok(false) };
        if let Some(open) = &mut self.open
            && open.inode == inode(there)
        {
            return open.start_over_if_emptied(there);
        }
        // The live file is opened before the files put aside are listed: should it be put aside in
        // between, it is in the list.
        let Some(live) = there_or_none(Open::new(&self.path))? else { return Ok(false) };
        let aside = match &self.open {
            Some(open) => next_aside(&self.path, open.inode)?,
            None => None,
        };
        match aside {
            None => self.open = Some(live),
            // Where it was removed in the meantime, the next look finds the one after it.
            Some(aside) => self.open = there_or_none(Open::new(&aside))?.or(self.open.take()),
        }
        Ok(true)
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = inode(&file.metadata()?);
        Ok(Self { name: path.to_string_lossy().into(), lines: Lines::new(BufReader::new(file)), inode })
    }

    fn start_over_if_emptied(&mut self, there: &Metadata) -> io::Result<bool> {
        if there.len() >= self.lines.stream().stream_position()? {
            return Ok(false);
        }
        self.lines.stream().rewind()?;
        self.lines.restart();
        Ok(true)
    }
}

/// Returns the file put aside after the one with inode `open`; none where that is the last, or was removed.
fn next_aside(path: &Path, open: (u64, u64)) -> io::Result<Option<PathBuf>> {
    let aside = files::aside(path)?;
    let is_open = |path: &PathBuf| fs::metadata(path).is_ok_and(|there| inode(&there) == open);
    let known = aside.iter().position(is_open);
    Ok(known.and_then(|at| aside.into_iter().nth(at + 1)))
}

/// Makes absence a value: a log may not be there yet, or be on its way aside.
fn there_or_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// How long to wait before asking a quiet log again.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
