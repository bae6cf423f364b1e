//! Whose policies a command asks, and in which mesh: a workload file, or what the policies leave no doubt about.

use std::path::{Path, PathBuf};

use identity::SpiffeId;
use policy::strict::Problems;
use policy::{
    Compat, EvalWorkload, Mesh, Options, PolicySet, Reading, Workload, WorkloadError, assumed_workload,
};

use super::files::{self, Compiled};
use crate::cli::policy::WantedCompat;
use crate::exit::{Exit, Failure, OrExit as _};

/// The policies and whom they are asked about.
pub(super) struct Asked {
    pub(super) compiled: Compiled,
    pub(super) workload: Workload,
    pub(super) reading: Reading,
}

impl Asked {
    pub(super) fn set(&self) -> &PolicySet {
        &self.compiled.set
    }
}

/// Loads the policies for the workload that `file` describes.
pub(super) fn load(
    policies: &[PathBuf],
    file: Option<&Path>,
    compat: Option<WantedCompat>,
) -> Result<Asked, Failure> {
    load_for(policies, file, compat, None)
}

/// Loads the policies for the workload that `file` describes, or for the one with this ID.
pub(super) fn load_for(
    policies: &[PathBuf],
    file: Option<&Path>,
    compat: Option<WantedCompat>,
    id: Option<&SpiffeId>,
) -> Result<Asked, Failure> {
    let told = file.map(workload_file).transpose().or_exit(Exit::Unacceptable)?;
    let mut mesh = told.as_ref().map_or_else(Mesh::default, |told| told.mesh.clone());
    match compat {
        Some(WantedCompat::Sidecar) => mesh.compat = Compat::Sidecar,
        Some(WantedCompat::Ambient) => mesh.compat = Compat::Ambient,
        None => {}
    }
    let options = Options { mesh, ..Options::default() };
    let compiled = files::compile(policies, &options).or_exit(Exit::Unacceptable)?;
    let workload = match (told, id) {
        (Some(told), _) => told.workload,
        (None, Some(id)) => Workload::of(id),
        (None, None) => assumed_workload(&compiled.set).map_err(unclear)?,
    };
    let reading = Reading::of(&compiled.set);
    Ok(Asked { compiled, workload, reading })
}

fn workload_file(path: &Path) -> Result<EvalWorkload, Problems> {
    EvalWorkload::read(&files::source(path)?)
}

fn unclear(cause: WorkloadError) -> Failure {
    let told = format!("{cause}: say with --workload FILE whose requests these are");
    Failure::because(Exit::Unacceptable, told)
}
