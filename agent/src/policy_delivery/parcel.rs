//! What one process is handed: the files that may matter to its identities, and what selects it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use identity::SpiffeId;

use crate::matching;
use crate::policies::{HeldFile, HeldSet, Policies};
use crate::selector::SelectorSet;
use crate::state::State;

/// One delivery.
#[derive(Clone)]
pub(super) enum Parcel {
    /// Whether there are policies is not known.
    Waiting,
    /// There are none.
    None,
    /// A set.
    Set(Contents),
}

/// A set as one process sees it.
#[derive(Clone)]
pub(super) struct Contents {
    pub(super) set: Arc<HeldSet>,
    /// Which files of the set, by their place in it.
    pub(super) files: Vec<usize>,
    pub(super) workloads: Vec<Workload>,
}

/// An identity of the process, and what policies may select it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) id: SpiffeId,
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
}

impl Parcel {
    /// Says what a process with the selectors `seen` is handed at `now`, the files aside; nothing for one without an
    /// identity.
    pub(super) fn outline(
        state: &State,
        policies: &Policies,
        seen: &SelectorSet,
        now: SystemTime,
    ) -> Option<Self> {
        let entries = matching::matches(&state.entries, seen, now);
        let ids: BTreeSet<SpiffeId> = entries.iter().map(|entry| entry.spiffe_id.clone()).collect();
        if ids.is_empty() {
            return None;
        }
        let set = match policies {
            Policies::Unknown => return Some(Self::Waiting),
            Policies::None => return Some(Self::None),
            Policies::Set(set) => set.clone(),
        };
        let (namespace, labels) = kubernetes(seen);
        let workload = |id| Workload { id, namespace: namespace.clone(), labels: labels.clone() };
        let workloads = ids.into_iter().map(workload).collect();
        Some(Self::Set(Contents { files: Vec::new(), workloads, set }))
    }

    /// Puts in the files that may concern one of the identities.
    pub(super) fn packed(self) -> Self {
        let Self::Set(contents) = self else { return self };
        let Contents { set, workloads, .. } = contents;
        let concerned =
            |file: &HeldFile| workloads.iter().any(|workload| file.selection.includes(&workload.id));
        let files =
            set.files.iter().enumerate().filter(|(_, file)| concerned(file)).map(|(at, _)| at).collect();
        Self::Set(Contents { set, files, workloads })
    }

    /// Whether a process that got `other` would learn nothing from this.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Waiting, Self::Waiting) | (Self::None, Self::None) => true,
            (Self::Set(a), Self::Set(b)) => Arc::ptr_eq(&a.set, &b.set) && a.workloads == b.workloads,
            (Self::Waiting | Self::None | Self::Set(_), _) => false,
        }
    }
}

/// The namespace and the labels that were seen of the process: every entry it matches asks for a part of them.
fn kubernetes(seen: &SelectorSet) -> (String, BTreeMap<String, String>) {
    let (mut namespace, mut labels) = (String::new(), BTreeMap::new());
    for selector in seen.iter().filter(|selector| selector.kind() == "k8s") {
        match selector.value().split_once(':') {
            Some(("ns", name)) => namespace = name.to_owned(),
            Some(("pod-label", label)) => {
                // A label's key has no colon, its value may be empty.
                let (key, value) = label.split_once(':').unwrap_or((label, ""));
                labels.insert(key.to_owned(), value.to_owned());
            }
            Some(_) | None => {}
        }
    }
    (namespace, labels)
}

#[cfg(test)]
mod tests;
