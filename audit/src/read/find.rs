//! Which files a log is: from what a user names to paths in the order of their records.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use crate::{files, record::MAX_LINE};

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// What was named cannot be looked at.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was named has no audit log in it.
    #[error("no audit log at {path}")]
    NoLog {
        /// What was named.
        path: PathBuf,
    },
}

/// Returns the files of the log that `what` names, the oldest first: a log file with those put aside for it,
/// every log of a directory, or the files whose names match a pattern with `*` in its last part.
///
/// # Errors
/// When there is nothing to read.
pub fn find(what: &Path) -> Result<Vec<PathBuf>, FindError> {
    let unreadable = |source| FindError::Unreadable { path: what.to_owned(), source };
    let mut found = if what.is_dir() {
        logs_in(what, |_| true).map_err(unreadable)?
    } else if let Some(pattern) = pattern(what) {
        logs_in(files::directory(what), |name| is_like(pattern, name)).map_err(unreadable)?
    } else {
        with_aside(what).map_err(unreadable)?
    };
    if found.is_empty() {
        return Err(FindError::NoLog { path: what.to_owned() });
    }
    // A log that is being rotated goes by its first record; a file without one goes last.
    found.sort_by_cached_key(|path| (first_place(path).unwrap_or((i64::MAX, u64::MAX)), path.clone()));
    Ok(found)
}

fn with_aside(log: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = files::aside(log)?;
    found.extend(files::beside(log)?);
    match fs::metadata(log) {
        Ok(_) => found.push(log.to_owned()),
        // Between two files of a rotation, or moved away after a stop.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && !found.is_empty() => {}
        Err(cause) => return Err(cause),
    }
    Ok(found)
}

fn logs_in(directory: &Path, is_meant: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let meant = path.file_name().and_then(|name| name.to_str()).is_some_and(&is_meant);
        if meant && path.is_file() && first_place(&path).is_some() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Returns time and number of a file's first record; `None` where its beginning has none.
fn first_place(path: &Path) -> Option<(i64, u64)> {
    let head = BufReader::new(File::open(path).ok()?.take(HEAD));
    let record = super::stream("", head).find_map(Result::ok)?.record;
    Some((record.time, record.metadata.sequence))
}

fn pattern(what: &Path) -> Option<&str> {
    what.file_name().and_then(|name| name.to_str()).filter(|name| name.contains('*'))
}

/// Says whether a name matches a pattern in which `*` is any text.
fn is_like(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// How far into a file its first record is looked for.
const HEAD: u64 = 2 * MAX_LINE as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_file_name_is_any_text() {
        for (pattern, name) in [("audit*", "audit.jsonl"), ("*.jsonl*", "a.jsonl.0001"), ("a*b*c", "a-b-b-c")]
        {
            assert!(is_like(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("audit*", "xaudit"), ("*.jsonl", "a.jsonl.1"), ("a*b*c", "acb"), ("ab*ba", "aba")]
        {
            assert!(!is_like(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();

        assert!(matches!(find(&dir.path().join("none")), Err(FindError::Unreadable { .. })));
        assert!(matches!(find(&dir.path().join("none/x")), Err(FindError::Unreadable { .. })));
        assert!(matches!(find(&dir.path().join("none*")), Err(FindError::NoLog { .. })));
        assert!(matches!(find(dir.path()), Err(FindError::NoLog { .. })));
    }

    #[test]
    fn files_without_a_record_are_no_logs_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "not a record\n").unwrap();
        fs::write(dir.path().join("empty.jsonl"), "").unwrap();

        assert!(matches!(find(dir.path()), Err(FindError::NoLog { .. })));
    }
}
