//! When and how the file is changed for a new one. The chain goes on in the new one.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::{Entry, Pen, ROTATE_RETRY};
use crate::{
    config::MIN_ROTATE_BYTES,
    files,
    record::{Change, REMOVED, ROTATED},
};

impl Pen {
    /// Says whether `more` bytes are too many for the file, and it can be changed.
    pub(super) fn is_full(&self, more: usize) -> bool {
        let limit = self.config.rotate_bytes.max(MIN_ROTATE_BYTES);
        self.sink.would_exceed(more, limit) && self.may_rotate()
    }

    /// Returns when the file is too old. A file without events does not age, and one that cannot be
    /// written is not changed.
    pub(super) fn age_due(&self) -> Option<Instant> {
        if self.failing.is_some() {
            return None;
        }
        let due = self.sink.first_event_at()?.checked_add(self.config.rotate_age)?;
        let left = due.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        Instant::now().checked_add(left).max(self.rotate_after)
    }

    pub(super) fn rotate_if_old(&mut self) {
        if self.age_due().is_some_and(|due| due <= Instant::now()) {
            self.rotate();
        }
    }

    /// Puts the file aside and goes on in a new one; where that fails, in the old one.
    pub(super) fn rotate(&mut self) {
        match self.sink.rotate(self.position.sequence) {
            Ok(aside) => {
                self.rotate_after = None;
                let file = aside.as_deref().map(name);
                self.write(VecDeque::from([about(ROTATED, file)]));
                self.remove_oldest();
            }
            Err(cause) => {
                self.rotate_after = Some(Instant::now() + ROTATE_RETRY);
                self.say(&cause, "audit log cannot be rotated, its file goes on growing");
            }
        }
    }

    /// Goes on in a new file where somebody took the old one away.
    pub(super) fn reopen(&mut self) {
        match self.sink.reopen(self.position.sequence) {
            Ok(()) => self.write(VecDeque::from([about(ROTATED, None)])),
            Err(cause) => self.fail(cause),
        }
    }

    fn remove_oldest(&mut self) {
        let Some(path) = self.sink.path() else { return };
        let (aside, beside) =
            (files::aside(path).unwrap_or_default(), files::beside(path).unwrap_or_default());
        let surplus = |files: Vec<PathBuf>| {
            let count = files.len().saturating_sub(self.config.keep_files);
            files.into_iter().take(count)
        };
        let mut removed = VecDeque::new();
        for old in surplus(aside).chain(surplus(beside)) {
            match fs::remove_file(&old) {
                Ok(()) => removed.push_back(about(REMOVED, Some(name(&old)))),
                Err(cause) => self.say(&cause, "old audit log file cannot be removed"),
            }
        }
        self.write(removed);
    }

    fn may_rotate(&self) -> bool {
        self.rotate_after.is_none_or(|after| after <= Instant::now())
    }
}

fn about(what: &str, file: Option<String>) -> Entry {
    Entry::Change(Change { what: what.to_owned(), file, ..Change::default() })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
