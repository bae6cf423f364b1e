//! Reads a directory of policies as one snapshot: every file of one moment, or nothing.
//!
//! What is read is bounded in number, in bytes and in time. Links are followed: Kubernetes mounts files so. A directory
//! that changes while it is read is read again, and one that does not come to rest is refused.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use policy::{belongs_to_set, strict::Source};
use rustix::fs::OFlags;

use super::LoadError;
use crate::reload::Files;

/// The files of a directory at one moment, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) files: Arc<BTreeMap<String, Vec<u8>>>,
    /// What looks as if it were meant to be read, and is not.
    pub(crate) ignored: Arc<Vec<String>>,
    /// When the youngest of it was changed.
    youngest: Option<SystemTime>,
    /// What was listed, where nobody had touched it for a while when it was read: then its stamps tell of any change.
    listing: Option<Arc<Listing>>,
}

impl Snapshot {
    /// Takes files that somebody sent for those of a directory.
    pub(crate) fn sent(files: Files) -> Result<Self, LoadError> {
        if files.files.len() > MAX_FILES {
            return Err(LoadError::TooMany { path: PathBuf::from("what was sent") });
        }
        match files.files.keys().find(|name| !belongs_to_set(name) || name.contains('/')) {
            Some(name) => Err(LoadError::Unread { name: name.clone() }),
            None => {
                let files = files.files.into_iter().map(|(name, text)| (name, text.into_bytes()));
                Ok(Self { files: Arc::new(files.collect()), ..Self::default() })
            }
        }
    }

    /// Whether another reading found the same content.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.files == other.files && self.ignored == other.ignored
    }

    /// Whether the directory still lists what was read.
    pub(crate) fn is_untouched(&self, directory: &Path) -> bool {
        let listing = self.listing.as_deref();
        listing.is_some_and(|listing| Listing::of(directory).is_ok_and(|now| now == *listing))
    }

    /// Whether there is a policy in it: key sets alone are none.
    pub(crate) fn has_policies(&self) -> bool {
        self.files.keys().any(|name| !name.ends_with(".json"))
    }

    /// Whether nobody has touched the directory for so long that nobody can be in the middle of changing it.
    pub(crate) fn is_at_rest(&self, now: SystemTime) -> bool {
        let age = |youngest| now.duration_since(youngest).ok();
        self.youngest.and_then(age).is_some_and(|age| age >= REST)
    }

    /// The files as the language reads them.
    pub(crate) fn sources(&self) -> Result<Vec<Source>, LoadError> {
        let mut problems = policy::strict::Problems::default();
        let mut sources = Vec::with_capacity(self.files.len());
        for (name, bytes) in self.files.iter() {
            match Source::from_bytes(name.clone(), bytes.clone()) {
                Ok(source) => sources.push(source),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() { Ok(sources) } else { Err(LoadError::Problems(problems)) }
    }
}

/// Reads the directory until two looks at it agree.
pub(crate) fn read(directory: &Path) -> Result<Snapshot, LoadError> {
    let mut last = LoadError::Restless { path: directory.to_owned() };
    for _ in 0..ATTEMPTS {
        match read_once(directory) {
            Ok(Some(snapshot)) => return Ok(snapshot),
            Ok(None) => last = LoadError::Restless { path: directory.to_owned() },
            // A file that was listed and is gone belongs to another moment; a link that leads nowhere stays so.
            Err(error) if error.is_absence() => last = error,
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    Err(last)
}

/// Reads the directory; nothing where it changed meanwhile.
fn read_once(directory: &Path) -> Result<Option<Snapshot>, LoadError> {
    let began = SystemTime::now();
    let before = Listing::of(directory)?;
    let Some(files) = before.read()? else { return Ok(None) };
    if Listing::of(directory)? != before {
        return Ok(None);
    }
    let (youngest, ignored) = (before.youngest(), Arc::new(before.ignored.clone()));
    let snapshot = Snapshot { files: Arc::new(files), ignored, youngest, listing: None };
    let listing = snapshot.is_at_rest(began).then(|| Arc::new(before));
    Ok(Some(Snapshot { listing, ..snapshot }))
}

/// Which files there are, and which version of each.
#[derive(Debug, PartialEq, Eq)]
struct Listing {
    files: BTreeMap<String, (PathBuf, Stamp)>,
    ignored: Vec<String>,
    directory: Stamp,
    /// Where Kubernetes keeps the content: one link that is swapped.
    target: Option<PathBuf>,
}

/// What changes whenever a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// A file that was moved here keeps the time of its content; that of the move is the other one.
    fn time(&self) -> Option<SystemTime> {
        let (seconds, nanos) = self.changed.max(self.modified);
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since)
    }
}

impl Listing {
    fn of(directory: &Path) -> Result<Self, LoadError> {
        let stamp = Stamp::of(&std::fs::metadata(directory).map_err(failed(directory))?);
        let target = std::fs::read_link(directory.join(SWAPPED)).ok();
        let mut listing = Self { files: BTreeMap::new(), ignored: Vec::new(), directory: stamp, target };
        for (seen, entry) in std::fs::read_dir(directory).map_err(failed(directory))?.enumerate() {
            if seen >= MAX_ENTRIES {
                return Err(LoadError::TooMany { path: directory.to_owned() });
            }
            listing.add(directory, &entry.map_err(failed(directory))?)?;
        }
        listing.ignored.sort();
        Ok(listing)
    }

    fn add(&mut self, directory: &Path, entry: &std::fs::DirEntry) -> Result<(), LoadError> {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return if looks_meant(&entry.file_name().to_string_lossy()) {
                Err(LoadError::Name { path })
            } else {
                Ok(())
            };
        };
        if !belongs_to_set(&name) {
            // A link to a directory counts: somebody put it there.
            let meant = looks_meant(&name) || (!name.starts_with('.') && path.is_dir());
            if meant && self.ignored.len() < MAX_IGNORED {
                self.ignored.push(name);
            }
            return Ok(());
        }
        if self.files.len() >= MAX_FILES {
            return Err(LoadError::TooMany { path: directory.to_owned() });
        }
        let found = std::fs::metadata(&path).map_err(failed(&path))?;
        plain(&found).map_err(failed(&path))?;
        self.files.insert(name, (path, Stamp::of(&found)));
        Ok(())
    }

    /// Reads the files; none where one of them is not what was listed.
    fn read(&self) -> Result<Option<BTreeMap<String, Vec<u8>>>, LoadError> {
        let (mut files, mut total) = (BTreeMap::new(), 0);
        for (name, (path, stamp)) in &self.files {
            let file = match open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(path)(error)),
            };
            if Stamp::of(&file.metadata().map_err(failed(path))?) != *stamp {
                return Ok(None);
            }
            let bytes = contents(file).map_err(failed(path))?;
            total += bytes.len();
            if total > MAX_TOTAL {
                let path = path.parent().unwrap_or(path).to_owned();
                return Err(LoadError::TooLarge { path });
            }
            files.insert(name.clone(), bytes);
        }
        Ok(Some(files))
    }

    fn youngest(&self) -> Option<SystemTime> {
        let files = self.files.values().map(|(_, stamp)| stamp);
        files.chain([&self.directory]).filter_map(Stamp::time).max()
    }
}

/// Opens a file without waiting for whoever may be at the other end of it, and looks again at what it is: what lay
/// there before may have been something else.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    plain(&file.metadata()?)?;
    Ok(file)
}

/// A pipe or a device would be waited for, or read, without end.
fn plain(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"))
}

fn contents(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than the reader of the language accepts, so that it can say so with the file's name.
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether somebody who wrote this name wanted the file to be read.
fn looks_meant(name: &str) -> bool {
    let kind = name.rsplit_once('.').map(|(_, kind)| kind.to_ascii_lowercase());
    !name.starts_with('.') && matches!(kind.as_deref(), Some("yaml" | "yml" | "json"))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> LoadError + use<> {
    let path = path.to_owned();
    move |source| LoadError::Read { path, source }
}

/// The link that a Kubernetes volume swaps (`AtomicWriter`).
const SWAPPED: &str = "..data";
/// Looks at a directory that changes under them.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(5);
/// A directory that was last touched this long ago is whole.
pub(crate) const REST: Duration = Duration::from_secs(1);
/// Entries of one directory, whatever they are.
pub(crate) const MAX_ENTRIES: usize = 50_000;
/// Files of one directory.
pub(crate) const MAX_FILES: usize = policy::MAX_FILES;
/// Bytes of all files of one directory.
pub(crate) const MAX_TOTAL: usize = policy::MAX_SET_BYTES;
pub(crate) const MAX_FILE: usize = policy::strict::MAX_BYTES;
/// Names that are told of; a directory of a thousand folders is named by some of them.
const MAX_IGNORED: usize = 16;
