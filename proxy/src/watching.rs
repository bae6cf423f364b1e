//! Notices that files may have changed: by the kernel's notice of their directories, by looking every few
//! seconds, and when asked. Reading and comparing the content is up to whoever waits.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Wakes when something may have changed in one of some directories.
pub(crate) struct Watching {
    changed: Arc<Notify>,
    // Watches for as long as it lives.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Watching {
    /// Watches directories. Where the kernel offers no notice, looking regularly has to do.
    pub(crate) fn directories(directories: &BTreeSet<PathBuf>) -> Self {
        let changed = Arc::new(Notify::new());
        let signal = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if may_change(&event) {
                signal.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            for directory in directories {
                watcher.watch(directory, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "cannot be notified of file changes, looking every few seconds");
                None
            }
        };
        Self { changed, _watcher: watcher }
    }

    /// Waits for a change, or until it is time to look.
    pub(crate) async fn wait(&self) {
        // The end of the wait is as good a reason to look as a notice.
        let _ = tokio::time::timeout(POLL, self.changed.notified()).await;
    }

    /// Waits for as long as a writer is likely to take between two steps of one change.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(SETTLE).await;
    }
}

/// Whether an event can mean a change. That a file was opened or read is an event, too: heeding it would have
/// whoever looks wake itself for ever.
fn may_change(event: &notify::Result<notify::Event>) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            EventKind::Any
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Other => true,
        },
        // Events were lost: anything may have happened.
        Err(_) => true,
    }
}

/// Returns the directory to watch for a file.
pub(crate) fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// How often files are looked at without a notice: notices get lost.
pub(crate) const POLL: Duration = Duration::from_secs(2);
/// Two readings this far apart have to agree.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);
