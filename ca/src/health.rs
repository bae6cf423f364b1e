//! What is wrong at the moment, part by part, for `/readyz` and the log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A part of the CA that can be unwell while the others work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Authorities cannot be made or put to work.
    Authorities,
    /// The database takes no writes.
    Database,
    /// The files of the entries directory are not applied.
    EntriesDirectory,
    /// The files of the policy directory are not handed out.
    Policies,
    /// The catalogue of services is not handed out.
    Services,
}

impl Part {
    /// The part's name for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorities => "authorities",
            Self::Database => "database",
            Self::EntriesDirectory => "entries_dir",
            Self::Policies => "policies",
            Self::Services => "services",
        }
    }
}

/// The list of what is wrong; clones share it.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<Part, String>>>);

impl Health {
    /// Notes what is wrong with `part`.
    pub fn flaw(&self, part: Part, reason: impl Into<String>) {
        self.parts().insert(part, reason.into());
    }

    /// Notes that `part` is well.
    pub fn mend(&self, part: Part) {
        self.parts().remove(&part);
    }

    /// What is wrong, as `part: reason`.
    pub fn flaws(&self) -> Vec<String> {
        self.parts().iter().map(|(part, reason)| format!("{}: {reason}", part.as_str())).collect()
    }

    /// What is wrong with `part`, if anything is.
    pub fn flaw_of(&self, part: Part) -> Option<String> {
        self.parts().get(&part).cloned()
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mended_part_is_no_longer_listed() {
        let health = Health::default();
        health.flaw(Part::EntriesDirectory, "a.yaml:1:1: bad");

        assert_eq!(health.flaws(), ["entries_dir: a.yaml:1:1: bad"]);
        health.mend(Part::EntriesDirectory);
        assert!(health.flaws().is_empty());
    }
}
