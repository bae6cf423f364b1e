//! Where the identity comes from. Each source yields whole snapshots; what is in force changes elsewhere.

mod pem;
mod workload_api;

use std::sync::Arc;

use identity::{Credentials, CredentialsError, SpiffeId};
use tokio::sync::mpsc;

use crate::{
    config::IdentitySource,
    workload_api::{ChooseError, Endpoint, EndpointError, WorkloadApiError},
};

pub(crate) use pem::load as load_pem;

/// What a source says.
#[derive(Debug)]
pub(crate) enum Update {
    /// A new identity, whole.
    Credentials(Arc<Credentials>),
    /// The identity in use, whole, among others that came beside it: which of them to use has to be said.
    Crowded { credentials: Arc<Credentials>, offered: SourceError },
    /// The identity known before may not be used any more.
    Withdrawn(SourceError),
    /// No new identity; the one known before stays as long as it is valid.
    Failed(SourceError),
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No socket is named.
    #[error("no workload API socket is known")]
    Endpoint(#[from] EndpointError),
    /// The Workload API does not give one.
    #[error("no identity from the workload API")]
    WorkloadApi(#[from] WorkloadApiError),
    /// Which SVID to use cannot be said.
    #[error("no SVID to use")]
    Choose(#[from] ChooseError),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: std::path::PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The certificate and key files make no SVID.
    #[error("no SVID in {certificate} and {key}")]
    Svid {
        /// The file with the certificate.
        certificate: std::path::PathBuf,
        /// The file with the key.
        key: std::path::PathBuf,
        /// What is wrong with them.
        source: Box<identity::SvidError>,
    },
    /// A bundle file cannot be used.
    #[error("no bundle in {path}")]
    Bundle {
        /// Which one.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: identity::BundleError,
    },
    /// The files are for another identity than the configuration names.
    #[error("the PEM files hold {found}, the configuration names {wanted}")]
    OtherIdentity {
        /// Whose files they are.
        found: SpiffeId,
        /// Who the configuration names.
        wanted: SpiffeId,
    },
    /// The SVID has no bundle of its own trust domain.
    #[error("SVID and bundles do not go together")]
    Credentials(#[from] CredentialsError),
}

/// Tells `updates` of the identity until nobody listens.
pub(crate) async fn watch(source: IdentitySource, wanted: Option<SpiffeId>, updates: mpsc::Sender<Update>) {
    let endpoint = match source {
        IdentitySource::Pem(files) => return pem::watch(&files, wanted.as_ref(), &updates).await,
        IdentitySource::WorkloadApi(endpoint) => Ok(endpoint),
        IdentitySource::Environment => Endpoint::from_environment(),
    };
    match endpoint {
        Ok(endpoint) => workload_api::watch(&endpoint, wanted.as_ref(), &updates).await,
        Err(error) => {
            // Nobody is left to listen when this fails.
            let _ = updates.send(Update::Withdrawn(error.into())).await;
            updates.closed().await;
        }
    }
}
