//! Every policy of a directory: which workload each protects, and the generation they make up.

use std::fmt;
use std::sync::Arc;

use identity::SpiffeId;
use identity::crypto::{hex, sha256};

use crate::document::Policy;
use crate::index::Trie;
use crate::mesh::{Mesh, Unselected, Workload};
use crate::pattern::without_scheme;
use crate::strict::Source;
use crate::workload::{Protection, WorkloadPolicies};

/// Every policy of a directory, compiled. Cloning is cheap.
#[derive(Clone)]
pub struct PolicySet {
    generation: Arc<str>,
    state: State,
}

#[derive(Clone)]
enum State {
    Unavailable,
    Loaded(Arc<Loaded>),
}

struct Loaded {
    policies: Vec<Arc<Policy>>,
    by_target: Trie<Vec<usize>>,
    mesh: Mesh,
}

impl PolicySet {
    /// A set without policies: everything is refused, because nothing protects anything.
    pub fn empty() -> Self {
        Self::new(generation_of(&[]), Vec::new(), Mesh { unselected: Unselected::Deny, ..Mesh::default() })
    }

    /// What stands in for policies that could not be loaded: everything is refused, and the reason says so.
    pub fn unavailable() -> Self {
        Self { generation: "unavailable".into(), state: State::Unavailable }
    }

    pub(crate) fn new(generation: Arc<str>, policies: Vec<Arc<Policy>>, mesh: Mesh) -> Self {
        let mut by_target: Trie<Vec<usize>> = Trie::new();
        for (number, policy) in policies.iter().enumerate() {
            for pattern in &policy.protects {
                if let Some(numbers) = by_target.at(pattern.segments()) {
                    numbers.push(number);
                }
            }
        }
        Self { generation, state: State::Loaded(Arc::new(Loaded { policies, by_target, mesh })) }
    }

    /// The content hash of the files: SHA-256, in hex.
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// Whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.loaded().is_empty()
    }

    /// The policies, in the order of their files' names.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.loaded().iter().map(|policy| &**policy)
    }

    /// The policies that protect the workload with an ID, compiled for it; see [`Workload::of`].
    pub fn for_workload(&self, id: &SpiffeId) -> WorkloadPolicies {
        self.protecting(&Workload::of(id))
    }

    /// The policies that protect a workload, compiled for it.
    pub fn protecting(&self, workload: &Workload) -> WorkloadPolicies {
        let generation = Arc::clone(&self.generation);
        match &self.state {
            State::Unavailable => {
                WorkloadPolicies { generation, protection: Arc::new(Protection::Unavailable) }
            }
            State::Loaded(loaded) => WorkloadPolicies::new(generation, loaded.protecting(&workload.id)),
        }
    }

    /// The settings of the mesh that Istio's files in it were read with.
    pub fn mesh(&self) -> Mesh {
        match &self.state {
            State::Unavailable => Mesh { unselected: Unselected::Deny, ..Mesh::default() },
            State::Loaded(loaded) => loaded.mesh.clone(),
        }
    }

    pub(crate) fn loaded(&self) -> &[Arc<Policy>] {
        match &self.state {
            State::Unavailable => &[],
            State::Loaded(loaded) => &loaded.policies,
        }
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("generation", &self.generation)
            .field("policies", &self.loaded().len())
            .finish()
    }
}

impl Loaded {
    fn protecting(&self, id: &SpiffeId) -> Vec<Arc<Policy>> {
        let mut numbers: Vec<usize> = Vec::new();
        self.by_target.visit(without_scheme(id), &mut |found| numbers.extend(found));
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().filter_map(|number| self.policies.get(number).cloned()).collect()
    }
}

/// The hash of names and contents; lengths go in too, so that no two sets of files run together into one text.
pub(crate) fn generation_of(sorted: &[&Source]) -> Arc<str> {
    let mut all = Vec::new();
    for source in sorted {
        for part in [&source.name, &source.text] {
            all.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            all.extend_from_slice(part.as_bytes());
        }
    }
    hex(&sha256(&all)).into()
}
