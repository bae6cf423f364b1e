//! The names of a log's files: the one being written, and the full ones put aside next to it.
//!
//! A file put aside is named for the number of its first record, so that names sort like the chain does.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// Returns the name under which a file whose first record is number `sequence` is put aside.
pub(crate) fn aside_name(path: &Path, sequence: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{sequence:0DIGITS$}"));
    PathBuf::from(name)
}

/// Returns the files put aside for the log at `path`, the oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = directory(path);
    let Some(base) = path.file_name() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(sequence) = sequence(&entry.file_name(), base) {
            found.push((sequence, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Returns the name of the file that a daemon writes which has let go of the log at its record number `sequence`.
pub(crate) fn beside_name(path: &Path, sequence: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("{BESIDE}{sequence:0DIGITS$}"));
    PathBuf::from(name)
}

/// Returns the files of daemons that had let go of the log at `path`, the oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn beside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(base) = path.file_name().and_then(std::ffi::OsStr::to_str) else { return Ok(Vec::new()) };
    let wanted = format!("{base}{BESIDE}");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?;
        let name = entry.file_name();
        // What such a file put aside itself has digits after a further dot.
        let digits = name.to_str().and_then(|name| name.strip_prefix(&wanted));
        if digits.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the directory a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn sequence(name: &OsString, base: &std::ffi::OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_prefix(base.to_str()?)?.strip_prefix('.')?;
    if digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

/// What stands between the name of a log and the number at which it was let go.
const BESIDE: &str = ".handover-";
/// As many digits as the largest number has.
const DIGITS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_put_aside_are_listed_in_the_order_of_the_chain() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.jsonl");
        for sequence in [100, 9, u64::MAX] {
            fs::write(aside_name(&log, sequence), "").unwrap();
        }

        let found = aside(&log).unwrap();

        assert_eq!(found, [9, 100, u64::MAX].map(|sequence| aside_name(&log, sequence)));
    }

    #[test]
    fn files_of_a_handover_are_found_and_are_not_part_of_the_chain() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.jsonl");
        let own = beside_name(&log, 7);
        for name in [own.clone(), aside_name(&own, 1), aside_name(&log, 1)] {
            fs::write(name, "").unwrap();
        }
        fs::write(dir.path().join("audit.jsonl.handover-x"), "").unwrap();

        assert_eq!(beside(&log).unwrap(), [own.clone(), aside_name(&own, 1)]);
        assert_eq!(aside(&log).unwrap(), [aside_name(&log, 1)]);
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.jsonl");
        for other in
            ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.bak", "audit.jsonl.0000000000000000000x", "b"]
        {
            fs::write(dir.path().join(other), "").unwrap();
        }

        assert!(aside(&log).unwrap().is_empty());
    }

    #[test]
    fn a_bare_file_name_is_in_the_working_directory() {
        assert_eq!(directory(Path::new("audit.jsonl")), Path::new("."));
    }
}
