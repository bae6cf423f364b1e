//! Where bytes go: a file of ours that no other process writes, or a stream.
//!
//! A file never keeps part of a write: what failed half-way is cut off again before anything follows.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use super::{StartError, tail::Tail};
use crate::files;

/// Where bytes go.
pub(super) enum Sink {
    File(LogFile),
    Stream { out: Box<dyn Write + Send>, torn: bool },
}

/// The file being written.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    torn: bool,
    first_sequence: u64,
    first_event_at: Option<SystemTime>,
}

/// Opens the log at `path`, makes it ours and finds where its chain stands.
pub(super) fn open(path: &Path) -> Result<(Sink, Tail), StartError> {
    let failed = |source| StartError::Open { path: path.to_owned(), source };
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(StartError::NotAFile { path: path.to_owned() });
    }
    let directory = files::directory(path);
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed)?;
    refuse_world_writable(path, directory, &fs::metadata(directory).map_err(failed)?)?;
    let mut file = open_file(path).map_err(failed)?;
    refuse_world_writable(path, path, &file.metadata().map_err(failed)?)?;
    if !is_locked(&file) || !is_at(&file, path) {
        return Err(StartError::InUse { path: path.to_owned() });
    }
    let tail = Tail::read(&mut file, path).map_err(failed)?;
    sync_directory(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let file = LogFile {
        path: path.to_owned(),
        file,
        len,
        torn: false,
        first_sequence: tail.first_sequence.unwrap_or(tail.next_sequence),
        first_event_at: tail.first_at,
    };
    Ok((Sink::File(file), tail))
}

impl Sink {
    /// Makes a sink of a stream.
    pub(super) fn stream(out: Box<dyn Write + Send>) -> Self {
        Self::Stream { out, torn: false }
    }

    /// Writes whole lines, or nothing.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.append(lines),
            Self::Stream { out, torn } => {
                // What was written of a stream cannot be taken back: end the torn line.
                let end: &[u8] = if *torn { b"\n" } else { b"" };
                *torn = true;
                out.write_all(end)?;
                out.write_all(lines)?;
                out.flush()?;
                *torn = false;
                Ok(())
            }
        }
    }

    /// Notes that what was appended had events in it.
    pub(super) fn has_events(&mut self) {
        if let Self::File(file) = self {
            file.first_event_at.get_or_insert_with(SystemTime::now);
        }
    }

    /// Brings everything written to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.file.sync_data(),
            Self::Stream { .. } => Ok(()),
        }
    }

    /// Says whether the file would exceed `limit` with `more` bytes. An empty file takes anything.
    pub(super) fn would_exceed(&self, more: usize, limit: u64) -> bool {
        match self {
            Self::File(file) => file.len > 0 && file.len.saturating_add(more as u64) > limit,
            Self::Stream { .. } => false,
        }
    }

    /// Returns when the first event in the file was written.
    pub(super) fn first_event_at(&self) -> Option<SystemTime> {
        match self {
            Self::File(file) => file.first_event_at,
            Self::Stream { .. } => None,
        }
    }

    /// Returns the file's path.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(&file.path),
            Self::Stream { .. } => None,
        }
    }

    /// Says whether the path leads to another file than the one being written, or to none.
    pub(super) fn is_displaced(&self) -> bool {
        match self {
            Self::File(file) => !is_at(&file.file, &file.path),
            Self::Stream { .. } => false,
        }
    }

    /// Puts the file aside and starts a new one whose first record is number `sequence`.
    pub(super) fn rotate(&mut self, sequence: u64) -> io::Result<Option<PathBuf>> {
        match self {
            Self::File(file) => file.rotate(sequence).map(Some),
            Self::Stream { .. } => Ok(None),
        }
    }

    /// Starts a new file where the old one was taken away.
    pub(super) fn reopen(&mut self, sequence: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.replace(sequence),
            Self::Stream { .. } => Ok(()),
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => path.fmt(out),
            None => out.write_str("stream"),
        }
    }
}

impl LogFile {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.cut()?;
        }
        if let Err(cause) = self.file.write_all(lines) {
            self.torn = self.cut().is_err();
            return Err(cause);
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Takes back what a failed write left; never lengthens a file that somebody emptied.
    fn cut(&mut self) -> io::Result<()> {
        self.len = self.len.min(self.file.metadata()?.len());
        self.file.set_len(self.len)?;
        self.torn = false;
        Ok(())
    }

    fn rotate(&mut self, sequence: u64) -> io::Result<PathBuf> {
        self.file.sync_data()?;
        let aside = files::aside_name(&self.path, self.first_sequence);
        rename(&self.path, &aside)?;
        if let Err(cause) = self.replace(sequence) {
            // Go on in the old file under the old name; if even that fails, under the new name.
            let _ = rename(&aside, &self.path);
            return Err(cause);
        }
        sync_directory(&self.path)?;
        Ok(aside)
    }

    fn replace(&mut self, sequence: u64) -> io::Result<()> {
        let file = open_file(&self.path)?;
        if !is_locked(&file) {
            return Err(io::Error::from(io::ErrorKind::ResourceBusy));
        }
        self.len = file.metadata()?.len();
        self.file = file;
        self.torn = false;
        self.first_sequence = sequence;
        self.first_event_at = None;
        Ok(())
    }
}

/// Brings the names in the log's directory to the disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(files::directory(path))?.sync_all()
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path)
}

/// Renames without ever replacing a file: what it replaced would be evidence.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.try_exists()? => fs::rename(from, to),
        result => Ok(result?),
    }
}

/// Locks the file for this process; the lock goes with the open file.
fn is_locked(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}

fn refuse_world_writable(log: &Path, what: &Path, metadata: &fs::Metadata) -> Result<(), StartError> {
    let mode = metadata.mode() & PERMISSIONS;
    if mode & WORLD_WRITABLE == 0 {
        return Ok(());
    }
    Err(StartError::WorldWritable { path: log.to_owned(), culprit: what.to_owned(), mode })
}

/// Only the daemon's user reads and writes the log.
const FILE_MODE: u32 = 0o600;
/// A directory made for the log; its group may list it.
const DIRECTORY_MODE: u32 = 0o750;
/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;
/// The bit that lets anybody write.
const WORLD_WRITABLE: u32 = 0o002;
