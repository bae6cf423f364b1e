//! What the connected sidecars run, as they tell: one line for each process that has its stream of policies open.

use std::collections::BTreeMap;

use identity::SpiffeId;
use identity::manifest::Seen;
use tokio::sync::watch;

/// The longest reason of a refusal that is passed on, in bytes.
pub(crate) const MAX_REASON_BYTES: usize = 1024;

/// The sidecars of the node. Clones share them.
#[derive(Clone)]
pub(crate) struct Sidecars(watch::Sender<BTreeMap<u32, Sidecar>>);

/// A process with an open stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sidecar {
    streams: usize,
    /// As whom it acts; before it says so, its first identity.
    pub(crate) id: SpiffeId,
    /// What it told.
    pub(crate) report: Option<(Report, i64)>,
}

/// What a sidecar tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The set is in force.
    InForce(Seen),
    /// The set was refused.
    Refused {
        /// Which.
        offered: Seen,
        /// Why.
        reason: String,
        /// What is in force still.
        in_force: Option<Seen>,
    },
    /// No central policies are in force.
    None,
}

/// An open stream of a process, counted until it is dropped.
pub(crate) struct Presence {
    sidecars: Sidecars,
    pid: u32,
}

impl Default for Sidecars {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl Sidecars {
    /// Counts a stream of the process `pid`, whose first identity is `id`.
    pub(crate) fn enter(&self, pid: u32, id: SpiffeId) -> Presence {
        self.0.send_modify(|sidecars| {
            sidecars.entry(pid).or_insert(Sidecar { streams: 0, id, report: None }).streams += 1;
        });
        Presence { sidecars: self.clone(), pid }
    }

    /// Notes what the process `pid` tells at `now`, in Unix seconds. Returns false where it has no stream open.
    pub(crate) fn tell(&self, pid: u32, id: SpiffeId, report: Report, now: i64) -> bool {
        let mut present = false;
        self.0.send_if_modified(|sidecars| {
            let Some(sidecar) = sidecars.get_mut(&pid) else { return false };
            present = true;
            let old = sidecar.report.as_ref().map(|(report, _)| report);
            if old == Some(&report) && sidecar.id == id {
                return false;
            }
            (sidecar.id, sidecar.report) = (id, Some((report, now)));
            true
        });
        present
    }

    /// Hears of every later change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<BTreeMap<u32, Sidecar>> {
        self.0.subscribe()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.sidecars.0.send_if_modified(|sidecars| {
            let Some(sidecar) = sidecars.get_mut(&self.pid) else { return false };
            sidecar.streams = sidecar.streams.saturating_sub(1);
            let last = sidecar.streams == 0;
            if last {
                sidecars.remove(&self.pid);
            }
            last
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_for_as_long_as_one_of_its_streams_is_open() {
        let sidecars = Sidecars::default();
        let first = sidecars.enter(7, id("/web"));
        let second = sidecars.enter(7, id("/web"));

        drop(first);
        assert!(sidecars.tell(7, id("/web"), Report::None, 1));
        drop(second);
        assert!(!sidecars.tell(7, id("/web"), Report::None, 1));
        assert!(sidecars.0.borrow().is_empty());
    }

    #[test]
    fn the_same_report_again_is_no_news_and_keeps_its_time() {
        let sidecars = Sidecars::default();
        let _presence = sidecars.enter(7, id("/web"));
        let report = Report::InForce(Seen { number: 1, generation: String::new() });
        sidecars.tell(7, id("/web"), report.clone(), 10);
        let mut heard = sidecars.subscribe();
        heard.mark_unchanged();

        sidecars.tell(7, id("/web"), report.clone(), 20);

        assert!(!heard.has_changed().unwrap());
        assert_eq!(heard.borrow()[&7].report, Some((report, 10)));
    }

    fn id(path: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://prod.test{path}")).unwrap()
    }
}
