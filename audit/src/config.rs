//! Where a log goes, who writes it and when its file is changed for a new one.

use std::{path::PathBuf, time::Duration};

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the lines go.
    pub target: Target,
    /// Who writes them.
    pub product: Product,
    /// A file that would grow beyond this many bytes is changed for a new one.
    pub rotate_bytes: u64,
    /// A file whose first record is older than this is changed for a new one.
    pub rotate_age: Duration,
    /// How many full files are kept beside the one being written; the oldest beyond that are removed.
    pub keep_files: usize,
}

impl Config {
    /// Keeps the log in `path` and its rotated siblings, with the default limits.
    pub fn file(path: impl Into<PathBuf>, product: Product) -> Self {
        Self::to(Target::File(path.into()), product)
    }

    /// Writes the log to standard output.
    pub fn stdout(product: Product) -> Self {
        Self::to(Target::Stdout, product)
    }

    fn to(target: Target, product: Product) -> Self {
        let (rotate_bytes, rotate_age, keep_files) =
            (DEFAULT_ROTATE_BYTES, DEFAULT_ROTATE_AGE, DEFAULT_KEEP_FILES);
        Self { target, product, rotate_bytes, rotate_age, keep_files }
    }
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file. Full ones stand beside it as `<file>.<sequence of their first record>`.
    File(PathBuf),
    /// Standard output, for a host whose runtime collects it. Nothing is rotated or continued.
    Stdout,
}

/// Who writes a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// The daemon: `proxy`, `agent` or `ca`.
    pub daemon: String,
    /// The SPIFFE ID the daemon acts for, where it has one.
    pub id: Option<String>,
    /// The daemon's version.
    pub version: String,
}

/// Rotation by size, unless configured: one file greps in well under a second.
pub const DEFAULT_ROTATE_BYTES: u64 = 100 * 1024 * 1024;
/// Rotation by age, unless configured.
pub const DEFAULT_ROTATE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Full files kept, unless configured: together with the default size, 1.5 GiB at most.
pub const DEFAULT_KEEP_FILES: usize = 14;
/// The smallest size at which files are changed, whatever is configured: room for the longest record.
pub const MIN_ROTATE_BYTES: u64 = 2 * crate::record::MAX_LINE as u64;
