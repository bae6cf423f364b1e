//! The catalogue of services on the wire.

use policy::service::EntryKind;
use proto::vouchsafe::v1 as wire;

use crate::catalogue::{Applied, Change, Conflict, Outcome, Stored};

/// Puts an entry on the wire.
pub(crate) fn entry_to_wire(stored: Stored) -> wire::ServiceEntry {
    wire::ServiceEntry {
        kind: stored.entry.kind().as_str().to_owned(),
        name: stored.entry.name().to_owned(),
        document: stored.document,
        changed_at: stored.changed_at,
    }
}

/// Puts what became of a wish on the wire.
pub(crate) fn applied_to_wire(applied: Applied) -> wire::ApplyServicesResponse {
    let name = |kind: EntryKind, name| Some(wire::EntryName { kind: kind.as_str().to_owned(), name });
    let outcome = |Outcome { kind, name: called, change }| wire::ServiceOutcome {
        entry: name(kind, called),
        change: change_to_wire(change).into(),
    };
    let conflict =
        |Conflict { kind, name: called, reason }| wire::ServiceConflict { entry: name(kind, called), reason };
    wire::ApplyServicesResponse {
        number: applied.set.as_ref().map_or(0, |set| set.number),
        generation: applied.set.map(|set| set.generation).unwrap_or_default(),
        outcomes: applied.outcomes.into_iter().map(outcome).collect(),
        conflicts: applied.conflicts.into_iter().map(conflict).collect(),
    }
}

fn change_to_wire(change: Change) -> wire::ServiceChange {
    match change {
        Change::Unchanged => wire::ServiceChange::Unchanged,
        Change::Created => wire::ServiceChange::Created,
        Change::Updated => wire::ServiceChange::Updated,
        Change::Removed => wire::ServiceChange::Removed,
    }
}

/// Takes what became of an entry from the wire.
pub(crate) fn outcome(outcome: wire::ServiceOutcome) -> Option<Outcome> {
    let change = match outcome.change() {
        wire::ServiceChange::Unspecified => return None,
        wire::ServiceChange::Unchanged => Change::Unchanged,
        wire::ServiceChange::Created => Change::Created,
        wire::ServiceChange::Updated => Change::Updated,
        wire::ServiceChange::Removed => Change::Removed,
    };
    let (kind, name) = key(outcome.entry)?;
    Some(Outcome { kind, name, change })
}

/// Takes what stands in the way from the wire.
pub(crate) fn conflict(conflict: wire::ServiceConflict) -> Option<Conflict> {
    let (kind, name) = key(conflict.entry)?;
    Some(Conflict { kind, name, reason: conflict.reason })
}

fn key(entry: Option<wire::EntryName>) -> Option<(EntryKind, String)> {
    let entry = entry?;
    Some((EntryKind::parse(&entry.kind)?, entry.name))
}
