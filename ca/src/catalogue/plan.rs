//! What has to change so that the catalogue holds what is wished for, and what stands in the way. Pure, save for the names that
//! are drawn for new entries.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::service::{Clash, Entry, EntryKind, clashes};

use super::{CatalogueError, Key};
use crate::{
    model::random_uuid,
    store::{CatalogueChange, ServiceRecord},
};

/// An entry of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its name in sets: whoever may not see the entry learns no more than that there is one.
    pub(crate) id: String,
    /// The entry.
    pub(crate) entry: Arc<Entry>,
    /// The same in its canonical form.
    pub(crate) document: String,
    /// When it last changed, in Unix seconds.
    pub(crate) changed_at: i64,
}

/// What an operator wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Entries that are to be there, in place of those of the same kind and name.
    pub entries: Vec<Entry>,
    /// Entries that are to go.
    pub remove: Vec<(EntryKind, String)>,
    /// What becomes of entries that were not named.
    pub prune: Prune,
    /// Whether it is only asked what would change.
    pub dry_run: bool,
}

/// What becomes of entries that nobody named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// They stay.
    Keep,
    /// They go.
    Remove,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was as wished.
    Unchanged,
    /// It is new.
    Created,
    /// It says something else than before.
    Updated,
    /// It is gone.
    Removed,
}

impl Change {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Removed => "removed",
        }
    }
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What kind of entry.
    pub kind: EntryKind,
    /// What it is called.
    pub name: String,
    /// What became of it.
    pub change: Change,
}

impl Outcome {
    /// Whether anything is different from before.
    pub fn is_change(&self) -> bool {
        self.change != Change::Unchanged
    }
}

/// Why a wish cannot be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What kind of entry is in the way.
    pub kind: EntryKind,
    /// What it is called.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The way from one catalogue to another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The catalogue as wished, by kind and name.
    pub(crate) entries: Vec<Stored>,
    /// What changes in the database.
    pub(crate) change: CatalogueChange,
    /// What becomes of each entry.
    pub(crate) outcomes: Vec<Outcome>,
    /// What stands in the way.
    pub(crate) conflicts: Vec<Conflict>,
}

/// Plans `wish` on top of what is `present` at `now`, in Unix seconds.
pub(crate) fn plan(present: Vec<Stored>, wish: Wish, now: i64) -> Result<Plan, CatalogueError> {
    let mut draft = Draft::of(present);
    for key in wish.remove {
        draft.remove(key, Absent::Conflict);
    }
    let wished: BTreeSet<Key> = wish.entries.iter().map(key).collect();
    if wished.len() < wish.entries.len() {
        draft.name_twice(&wish.entries);
    }
    for entry in wish.entries {
        draft.put(entry, now)?;
    }
    if wish.prune == Prune::Remove {
        let others: Vec<Key> = draft.entries.keys().filter(|key| !wished.contains(key)).cloned().collect();
        for key in others {
            draft.remove(key, Absent::Fine);
        }
    }
    Ok(draft.finish())
}

/// What it means that something to be removed is not there.
enum Absent {
    Conflict,
    Fine,
}

#[derive(Default)]
struct Draft {
    entries: BTreeMap<Key, Stored>,
    change: CatalogueChange,
    outcomes: Vec<Outcome>,
    conflicts: Vec<Conflict>,
}

impl Draft {
    fn of(present: Vec<Stored>) -> Self {
        let entries = present.into_iter().map(|stored| (key(&stored.entry), stored)).collect();
        Self { entries, ..Self::default() }
    }

    fn put(&mut self, entry: Entry, now: i64) -> Result<(), CatalogueError> {
        let (key, document) = (key(&entry), entry.document());
        let (change, id) = match self.entries.get(&key) {
            Some(held) if held.document == document => (Change::Unchanged, held.id.clone()),
            Some(held) => (Change::Updated, held.id.clone()),
            None => (Change::Created, random_uuid()?),
        };
        let (kind, name) = key.clone();
        self.outcomes.push(Outcome { kind, name: name.clone(), change });
        if change != Change::Unchanged {
            let record = ServiceRecord {
                id: id.clone(),
                kind: kind.as_str().to_owned(),
                name,
                document: document.clone(),
                changed_at: now,
            };
            self.change.put.push(record);
            self.entries.insert(key, Stored { id, entry: Arc::new(entry), document, changed_at: now });
        }
        Ok(())
    }

    fn remove(&mut self, key: Key, absent: Absent) {
        match (self.entries.remove(&key), absent) {
            (Some(stored), _) => {
                self.change.gone.push(stored.id);
                self.outcomes.push(Outcome { kind: key.0, name: key.1, change: Change::Removed });
            }
            (None, Absent::Conflict) => {
                let reason = format!("there is no {} called \"{}\"", key.0, key.1);
                self.conflicts.push(Conflict { kind: key.0, name: key.1, reason });
            }
            (None, Absent::Fine) => {}
        }
    }

    fn name_twice(&mut self, entries: &[Entry]) {
        let mut seen = BTreeSet::new();
        for (kind, name) in entries.iter().map(key) {
            if !seen.insert((kind, name.clone())) {
                let reason = format!("there are two of the kind {kind} called \"{name}\"");
                self.conflicts.push(Conflict { kind, name, reason });
            }
        }
    }

    fn finish(mut self) -> Plan {
        // Those that change come last: they are the ones to be named where two do not go together.
        let changed: BTreeSet<&str> = self.change.put.iter().map(|record| record.id.as_str()).collect();
        let (mut order, late): (Vec<&Stored>, Vec<&Stored>) =
            self.entries.values().partition(|stored| !changed.contains(stored.id.as_str()));
        order.extend(late);
        let all: Vec<&Entry> = order.iter().map(|stored| stored.entry.as_ref()).collect();
        let conflicts = clashes(&all).into_iter().filter_map(|Clash { later, reason }| {
            let (kind, name) = all.get(later).map(|entry| key(entry))?;
            Some(Conflict { kind, name, reason })
        });
        self.conflicts.extend(conflicts.collect::<Vec<_>>());
        let entries = self.entries.into_values().collect();
        Plan { entries, change: self.change, outcomes: self.outcomes, conflicts: self.conflicts }
    }
}

fn key(entry: &Entry) -> Key {
    (entry.kind(), entry.name().to_owned())
}
