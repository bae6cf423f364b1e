//! Looking at what a configuration names without starting anything.

use std::path::PathBuf;

use crate::{
    config::{Config, IdentitySource, PolicySource},
    policies::{self, LoadError},
    source::{self, SourceError},
};

/// What is wrong with what a configuration names.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The policies cannot be loaded.
    #[error("policies in {path} cannot be loaded")]
    Policies {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: LoadError,
    },
    /// The PEM files make no identity.
    #[error("identity cannot be read from the PEM files")]
    Identity(#[source] SourceError),
    /// No Workload API socket is named.
    #[error("no identity source")]
    Source(#[source] SourceError),
}

/// Looks at everything a configuration names that can be looked at without starting: policies, PEM files, the
/// environment. Returns every problem found.
pub fn check(config: &Config) -> Vec<CheckError> {
    let mut problems = Vec::new();
    if let Some(source) = &config.policies
        && let Some(path) = source.directory()
    {
        let own = config.identity.as_ref().map(identity::SpiffeId::trust_domain);
        let alone = matches!(source, PolicySource::Directory(_));
        if let Err(source) = policies::check(path, &config.istio, own.as_ref(), alone) {
            problems.push(CheckError::Policies { path: path.to_owned(), source });
        }
    }
    match &config.source {
        IdentitySource::Pem(files) => {
            if let Err(error) = source::load_pem(files, config.identity.as_ref()) {
                problems.push(CheckError::Identity(error));
            }
        }
        IdentitySource::Environment => {
            if let Err(error) = crate::workload_api::Endpoint::from_environment() {
                problems.push(CheckError::Source(error.into()));
            }
        }
        IdentitySource::WorkloadApi(_) => {}
    }
    problems
}
