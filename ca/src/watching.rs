//! Being told that something in a directory may have changed: at once where the system tells, and every few seconds anyway.

use std::{path::Path, time::Duration};

use notify::Watcher;
use tokio::sync::mpsc;

/// Rings `bell` for changes in `directory` until what is returned is dropped.
pub(crate) fn watch(directory: &Path, bell: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let ring = move |event: notify::Result<notify::Event>| {
        if may_change(&event) {
            // A full queue already holds a ring.
            let _ = bell.try_send(());
        }
    };
    let started = notify::recommended_watcher(ring).and_then(|mut watcher| {
        watcher.watch(directory, notify::RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    started
        .inspect_err(|error| {
            tracing::warn!(directory = %directory.display(), %error, "directory is polled, the system cannot watch it");
        })
        .ok()
}

/// Whether an event can mean a change. That a file was opened or read is an event, too: heeding it would have
/// the directory read for ever.
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

/// How often a directory is read whatever the system tells: watches lose events.
pub(crate) const POLL: Duration = Duration::from_secs(5);
/// How long to let writers finish: editors and copies write in several steps.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);
