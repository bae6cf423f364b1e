//! From files to a policy set: a directory that stands alone, or what the CA has signed with denials of this host.

use std::{path::Path, sync::Arc};

use identity::{
    SpiffeId, TrustDomain,
    crypto::{hex, sha256},
};
use policy::{Checks, Mesh, Options, PolicySet, Unselected, Workload, strict::Source};

use super::{LoadError, reading, reading::Snapshot};
use crate::config::Istio;

/// What policies select the workload by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selectors {
    istio: Arc<Istio>,
    /// What the agent vouches for, one for each identity.
    attested: Arc<Vec<Workload>>,
}

impl Selectors {
    pub(crate) fn new(istio: Arc<Istio>, attested: Arc<Vec<Workload>>) -> Self {
        Self { istio, attested }
    }

    /// Returns the workload with the identity `id`.
    pub(crate) fn workload(&self, id: &SpiffeId) -> Workload {
        self.istio.workload(id, self.attested.iter().find(|workload| workload.id == *id))
    }
}

/// The central policies, as far as they concern this workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Central {
    /// The content hash of the whole set.
    generation: String,
    files: Vec<(String, Arc<[u8]>)>,
    attested: Arc<Vec<Workload>>,
    origin: Origin,
}

/// Who says that these are the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The CA has signed them.
    Signed,
    /// The agent says that there are none.
    Nobody,
}

impl Central {
    /// Files of a manifest that was verified, and the workloads that the agent vouches for.
    pub(crate) fn signed(
        generation: &str,
        files: Vec<(String, Arc<[u8]>)>,
        attested: Arc<Vec<Workload>>,
    ) -> Self {
        Self { generation: generation.to_owned(), files, attested, origin: Origin::Signed }
    }

    /// No central policies.
    pub(crate) fn nobodys() -> Self {
        Self {
            generation: "none".to_owned(),
            files: Vec::new(),
            attested: Arc::default(),
            origin: Origin::Nobody,
        }
    }

    /// The files, by name.
    pub(crate) fn files(&self) -> &[(String, Arc<[u8]>)] {
        &self.files
    }

    /// What the agent vouches for.
    pub(crate) fn attested(&self) -> Arc<Vec<Workload>> {
        Arc::clone(&self.attested)
    }
}

/// What a set is compiled from.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// What the CA has signed; without it the local files stand alone.
    pub(crate) central: Option<Arc<Central>>,
    pub(crate) local: Snapshot,
}

impl Input {
    /// Whether the meaning of the files depends on the mesh.
    pub(crate) fn needs_mesh(&self) -> bool {
        let central = self.central.iter().flat_map(|central| &central.files);
        let mut all = self.local.files.values().map(Vec::as_slice).chain(central.map(|(_, bytes)| &**bytes));
        all.any(|bytes| bytes.windows(ISTIO.len()).any(|window| window == ISTIO))
    }

    /// Compiles everything, or says all that is wrong.
    pub(crate) fn compile(&self, mesh: Mesh) -> Result<PolicySet, LoadError> {
        let local = self.local.sources()?;
        let Some(central) = &self.central else {
            let options = Options { mesh, ..Options::default() };
            return policy::compile_with(&local, &options).inspect(warn_of).map_err(LoadError::Problems);
        };
        let sources = central.files.iter().map(|(name, bytes)| Source::from_bytes(name, bytes.to_vec()));
        let sources = sources.collect::<Result<Vec<_>, _>>().map_err(LoadError::Problems)?;
        let denials =
            local.into_iter().map(|source| Source { name: format!("{LOCAL}{}", source.name), ..source });
        // The tests and guarantees are about the whole set, of which these files are a part: the CA has proved them.
        let generation = Some(self.generation(central));
        let mesh = match central.origin {
            Origin::Signed => mesh,
            // Only a signature can open what nothing protects.
            Origin::Nobody => Mesh { unselected: Unselected::Deny, ..mesh },
        };
        let options = Options { mesh, checks: Checks::Proved, denials: denials.collect(), generation };
        policy::compile_with(&sources, &options).inspect(warn_of).map_err(LoadError::Problems)
    }

    /// Files of this host make another set of it.
    fn generation(&self, central: &Central) -> String {
        if self.local.files.is_empty() {
            return central.generation.clone();
        }
        let mut all = Vec::new();
        for part in self.local.files.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes]) {
            all.extend_from_slice(&part.len().to_be_bytes());
            all.extend_from_slice(part);
        }
        let local: String = hex(&sha256(&all)).chars().take(SHORT_HASH).collect();
        format!("{}+{local}", central.generation)
    }
}

fn warn_of(set: &PolicySet) {
    for warning in set.warnings().iter() {
        let line = warning.position.map_or(0, |place| place.line);
        tracing::warn!(file = %warning.file, line, flaw = %warning.message, "policy file says what is hardly meant");
    }
}

/// Reads and compiles a directory once, for a configuration that is only looked at. Files that stand beside central
/// policies are read as denials.
pub(crate) fn check(
    directory: &Path,
    istio: &Istio,
    own: Option<&TrustDomain>,
    alone: bool,
) -> Result<PolicySet, LoadError> {
    let central = (!alone).then(|| Arc::new(Central::nobodys()));
    let input = Input { central, local: reading::read(directory)? };
    let mesh = own.map_or_else(|| istio.mesh.clone(), |own| istio.mesh(own));
    input.compile(mesh)
}

/// What every file of Istio names in its `apiVersion`.
const ISTIO: &[u8] = b"security.istio.io/";
/// The names of files of this host begin so where there are central ones.
const LOCAL: &str = "local/";
/// Enough of a hash to tell the files of one host apart.
const SHORT_HASH: usize = 16;
