//! Every policy of a directory: which workload each protects, and the generation they make up.

use std::fmt;
use std::sync::Arc;

use identity::SpiffeId;
use identity::crypto::{hex, sha256};

use crate::document::{Guarantee, Policy};
use crate::index::Trie;
use crate::istio::{PeerAuthentication, Scope, Weight, resolved};
use crate::mesh::{Mesh, Unselected, Workload};
use crate::pattern::{IdPattern, without_scheme};
use crate::strict::{Problems, Source};
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
    members: Vec<Choice>,
    by_target: Trie<Vec<usize>>,
    peers: [Vec<PeerAuthentication>; 2],
    kind: SetKind,
    mesh: Mesh,
    warnings: Problems,
}

/// What a set is made of.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The policies, in the order in which records name them.
    pub(crate) policies: Vec<Member>,
    /// Who must prove an identity where, in files of the set.
    pub(crate) peers: Vec<PeerAuthentication>,
    /// And in files that may only refuse.
    pub(crate) local_peers: Vec<PeerAuthentication>,
    pub(crate) kind: SetKind,
    pub(crate) mesh: Mesh,
    pub(crate) warnings: Problems,
}

/// One policy of a set.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) policy: Arc<Policy>,
    pub(crate) choice: Choice,
}

/// Which workloads a policy is about, and whether they count as protected by it.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) by: By,
    pub(crate) weight: Weight,
}

/// How a policy names its workloads.
#[derive(Clone, Debug)]
pub(crate) enum By {
    /// By the patterns in `protects`.
    Identity,
    /// By namespace and labels.
    Scope(Scope),
}

/// Whose files a set is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetKind {
    /// Istio's only: there are some, and no native policy.
    Istio,
    /// Others, or none.
    Own,
}

impl PolicySet {
    /// A set without policies: everything is refused, because nothing protects anything.
    pub fn empty() -> Self {
        Self::new(generation_of(&[]), Contents::of(Vec::new()))
    }

    /// What stands in for policies that could not be loaded: everything is refused, and the reason says so.
    pub fn unavailable() -> Self {
        Self { generation: "unavailable".into(), state: State::Unavailable }
    }

    pub(crate) fn new(generation: Arc<str>, contents: Contents) -> Self {
        let Contents { policies, peers, local_peers, kind, mesh, warnings } = contents;
        let mut by_target: Trie<Vec<usize>> = Trie::new();
        for (number, member) in policies.iter().enumerate() {
            for pattern in &member.policy.protects {
                if let Some(numbers) = by_target.at(pattern.segments()) {
                    numbers.push(number);
                }
            }
        }
        let (policies, members) = policies.into_iter().map(|member| (member.policy, member.choice)).unzip();
        let peers = [peers, local_peers];
        let loaded = Loaded { policies, members, by_target, peers, kind, mesh, warnings };
        Self { generation, state: State::Loaded(Arc::new(loaded)) }
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

    /// What each policy protects, in words: identities, or for Istio's what it selects. In the order of [`Self::policies`].
    pub fn protections(&self) -> impl Iterator<Item = Vec<String>> {
        let loaded = match &self.state {
            State::Unavailable => None,
            State::Loaded(loaded) => Some(loaded),
        };
        let pairs = loaded.into_iter().flat_map(|loaded| loaded.policies.iter().zip(&loaded.members));
        pairs.map(|(policy, choice)| match &choice.by {
            By::Identity => policy.protects.iter().map(ToString::to_string).collect(),
            By::Scope(scope) => vec![scope.to_string()],
        })
    }

    /// The policies that protect the workload with an ID, compiled for it; see [`Workload::of`].
    pub fn for_workload(&self, id: &SpiffeId) -> WorkloadPolicies {
        self.protecting(&Workload::of(id))
    }

    /// The policies that protect a workload, compiled for it.
    pub fn protecting(&self, workload: &Workload) -> WorkloadPolicies {
        let protection = match &self.state {
            State::Unavailable => Protection::Unavailable,
            State::Loaded(loaded) => loaded.protection(workload),
        };
        WorkloadPolicies { generation: Arc::clone(&self.generation), protection: Arc::new(protection) }
    }

    /// What is acceptable in the files and probably not what was meant, in the order of the files.
    pub fn warnings(&self) -> &Problems {
        match &self.state {
            State::Unavailable => &NO_PROBLEMS,
            State::Loaded(loaded) => &loaded.warnings,
        }
    }

    /// Why a guarantee cannot be proved: Istio's files select workloads by namespace and labels, which identities alone do not tell.
    pub(crate) fn is_out_of_reach(&self, guarantee: &Guarantee) -> Option<&'static str> {
        let State::Loaded(loaded) = &self.state else { return None };
        let scopes = || {
            loaded.members.iter().filter_map(|choice| match &choice.by {
                By::Scope(scope) => Some(scope),
                By::Identity => None,
            })
        };
        let peers = || loaded.peers.iter().flatten().map(|policy| &policy.scope);
        let mut all = scopes().chain(peers()).peekable();
        if all.peek().is_none() && loaded.kind == SetKind::Own {
            None
        } else if all.any(|scope| !scope.is_everywhere_in_it()) {
            Some("some of Istio's files select workloads by labels, which an identity does not tell")
        } else if guarantee.to.iter().all(tells_namespace) {
            None
        } else {
            Some("it is about several namespaces, and Istio's files are each for one")
        }
    }

    /// The settings of the mesh that Istio's files in it were read with.
    pub fn mesh(&self) -> Mesh {
        match &self.state {
            State::Unavailable => Mesh { unselected: Unselected::Deny, ..Mesh::default() },
            State::Loaded(loaded) => loaded.mesh.clone(),
        }
    }

    /// The scopes of Istio's files.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        let loaded = match &self.state {
            State::Unavailable => None,
            State::Loaded(loaded) => Some(loaded),
        };
        loaded.into_iter().flat_map(|loaded| {
            let members = loaded.members.iter().filter_map(|choice| match &choice.by {
                By::Scope(scope) => Some(scope),
                By::Identity => None,
            });
            members.chain(loaded.peers.iter().flatten().map(|policy| &policy.scope))
        })
    }

    /// Whose files the set is made of.
    pub(crate) fn kind(&self) -> SetKind {
        match &self.state {
            State::Unavailable => SetKind::Own,
            State::Loaded(loaded) => loaded.kind,
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
    fn protection(&self, workload: &Workload) -> Protection {
        let numbers = self.selecting(workload);
        let protects = |number: &usize| {
            self.members.get(*number).is_some_and(|choice| choice.weight == Weight::Protects)
        };
        // What only watches, or is about tokens and identities, does not say that everything else may pass.
        let open = self.kind == SetKind::Istio && self.mesh.unselected == Unselected::Allow;
        if !open && !numbers.iter().any(protects) {
            return Protection::None;
        }
        let mut policies: Vec<Arc<Policy>> =
            numbers.into_iter().filter_map(|number| self.policies.get(number).cloned()).collect();
        policies.extend(self.peers.iter().filter_map(|peers| resolved(peers, workload)).map(Arc::new));
        Protection::by(policies)
    }

    fn selecting(&self, workload: &Workload) -> Vec<usize> {
        let mut numbers: Vec<usize> = Vec::new();
        self.by_target.visit(without_scheme(&workload.id), &mut |found| numbers.extend(found));
        numbers.extend(self.members.iter().enumerate().filter_map(|(number, choice)| match &choice.by {
            By::Scope(scope) if scope.selects(workload) => Some(number),
            By::Scope(_) | By::Identity => None,
        }));
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

impl Contents {
    /// Native policies only.
    pub(crate) fn of(policies: Vec<Arc<Policy>>) -> Self {
        let choice = Choice { by: By::Identity, weight: Weight::Protects };
        let member = |policy| Member { policy, choice: choice.clone() };
        Self {
            policies: policies.into_iter().map(member).collect(),
            peers: Vec::new(),
            local_peers: Vec::new(),
            kind: SetKind::Own,
            mesh: Mesh { unselected: Unselected::Deny, ..Mesh::default() },
            warnings: Problems::default(),
        }
    }
}

// `spiffe://T/ns/N/…`, or one whole ID.
fn tells_namespace(pattern: &IdPattern) -> bool {
    let mut segments = pattern.as_str().split('/').skip(3);
    let namespace = (segments.next(), segments.next());
    pattern.literal().is_some()
        || matches!(namespace, (Some("ns"), Some(namespace)) if !namespace.contains('*'))
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

static NO_PROBLEMS: Problems = Problems::none();
