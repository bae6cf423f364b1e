//! A client of the SPIFFE Workload API: ours, SPIRE's or any other's.
//!
//! The answer to every message replaces what was known. A message that cannot be read whole is an error, never
//! half an identity.

mod connect;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use identity::{
    BundleError, BundleSet, KeyError, ParseIdError, PrivateKey, RevocationError, RevocationLists, SpiffeId,
    SvidError, TrustBundle, TrustDomain, X509Svid,
};
use proto::workload::{
    X509svid, X509svidRequest, X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue};

/// Where a Workload API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP address. Nothing protects it: the network has to.
    Tcp(SocketAddr),
}

impl Endpoint {
    /// Returns the endpoint that `SPIFFE_ENDPOINT_SOCKET` names.
    pub fn from_environment() -> Result<Self, EndpointError> {
        match std::env::var(ENVIRONMENT) {
            Ok(text) => text.parse(),
            Err(_) => Err(EndpointError::NotSet),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
            Self::Tcp(address) => write!(out, "tcp://{address}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    // SPIFFE Workload Endpoint 4: unix: without an authority and with an absolute path, tcp: with address and port.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if !path.starts_with('/') || path.contains(['?', '#']) {
                return Err(EndpointError::Path);
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        match text.strip_prefix("tcp://") {
            Some(address) => address.parse().map(Self::Tcp).map_err(|_| EndpointError::Address),
            None => Err(EndpointError::Scheme),
        }
    }
}

/// Why a text names no Workload API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The environment variable is not set.
    #[error("SPIFFE_ENDPOINT_SOCKET is not set")]
    NotSet,
    /// Neither `unix:` nor `tcp://`.
    #[error("it begins with neither unix:// nor tcp://")]
    Scheme,
    /// The path is not absolute, or an authority, a query or a fragment stands beside it.
    #[error("unix:// needs an absolute path and nothing else")]
    Path,
    /// Not an address with a port.
    #[error("tcp:// needs an IP address and a port")]
    Address,
}

/// One complete answer: the SVIDs of the caller, the default first, and the bundles it trusts.
#[derive(Clone)]
pub struct X509Update {
    /// The SVIDs, at least one. The first is the default.
    pub svids: Vec<Arc<X509Svid>>,
    /// The bundle of each SVID's trust domain and those of federated ones.
    pub bundles: BundleSet,
}

impl X509Update {
    /// Picks the SVID to use: the one named, or the only one.
    pub fn choose(&self, wanted: Option<&SpiffeId>) -> Result<&Arc<X509Svid>, ChooseError> {
        match (wanted, self.svids.as_slice()) {
            (Some(wanted), svids) => svids
                .iter()
                .find(|svid| svid.id() == wanted)
                .ok_or_else(|| ChooseError::Missing { wanted: wanted.clone() }),
            (None, [only]) => Ok(only),
            (None, svids) => {
                Err(ChooseError::Ambiguous { found: svids.iter().map(|svid| svid.id().clone()).collect() })
            }
        }
    }
}

impl fmt::Debug for X509Update {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.svids.iter().map(|svid| svid.id()).collect();
        out.debug_struct("X509Update").field("svids", &ids).field("bundles", &self.bundles).finish()
    }
}

/// Why no SVID could be picked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// The SVID the configuration names is not among those offered.
    #[error("the workload API offers no SVID for {wanted}")]
    Missing {
        /// The ID in the configuration.
        wanted: SpiffeId,
    },
    /// Several SVIDs are offered and the configuration names none.
    #[error("the workload API offers {} SVIDs: name one with \"identity\": {}", found.len(), listed(found))]
    Ambiguous {
        /// Whose.
        found: Vec<SpiffeId>,
    },
}

fn listed(ids: &[SpiffeId]) -> String {
    ids.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(", ")
}

/// A connection to a Workload API.
#[derive(Debug, Clone)]
pub struct Client {
    inner: SpiffeWorkloadApiClient<tonic::transport::Channel>,
}

impl Client {
    /// Connects.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, WorkloadApiError> {
        let channel = channel(endpoint).await?;
        Ok(Self { inner: SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_MESSAGE) })
    }

    /// Returns the first answer to `FetchX509SVID`.
    pub async fn fetch_x509(&mut self) -> Result<X509Update, WorkloadApiError> {
        self.watch_x509().await?.next().await
    }

    /// Opens the stream of answers to `FetchX509SVID`.
    pub async fn watch_x509(&mut self) -> Result<X509Updates, WorkloadApiError> {
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
        let stream = self.inner.fetch_x509svid(request).await.map_err(WorkloadApiError::from_status)?;
        Ok(X509Updates { stream: stream.into_inner() })
    }
}

/// Connects to the socket of an agent.
pub(crate) async fn channel(endpoint: &Endpoint) -> Result<tonic::transport::Channel, WorkloadApiError> {
    let connected = connect::channel(endpoint).await;
    connected.map_err(|source| WorkloadApiError::Unreachable { endpoint: endpoint.clone(), source })
}

/// The answers to one `FetchX509SVID`, each complete.
#[derive(Debug)]
pub struct X509Updates {
    stream: Streaming<X509svidResponse>,
}

impl X509Updates {
    /// Waits for the next answer.
    pub async fn next(&mut self) -> Result<X509Update, WorkloadApiError> {
        match self.stream.message().await.map_err(WorkloadApiError::from_status)? {
            Some(response) => update(response),
            None => Err(WorkloadApiError::Ended),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadApiError {
    /// Nobody listens there.
    #[error("cannot reach the workload API at {endpoint}")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// The API has no identity for this process, or has one no longer.
    #[error("the workload API has no identity for this process: {message}")]
    NoIdentity {
        /// What the API says.
        message: String,
    },
    /// The API answered with another error.
    #[error("the workload API failed with {code:?}: {message}")]
    Failed {
        /// The gRPC code.
        code: Code,
        /// What the API says.
        message: String,
    },
    /// The stream ended.
    #[error("the workload API ended the stream")]
    Ended,
    /// An answer without SVIDs, which the API has an error code for.
    #[error("the workload API sent an answer without an SVID")]
    Empty,
    /// An identifier in the answer is none.
    #[error("the workload API sent the identifier \"{text}\"")]
    Id {
        /// What came.
        text: String,
        /// What is wrong with it.
        source: ParseIdError,
    },
    /// An SVID carries another ID than the answer says.
    #[error("the workload API sent an SVID of {found} as that of {announced}")]
    OtherId {
        /// What the answer says.
        announced: SpiffeId,
        /// What the certificate says.
        found: SpiffeId,
    },
    /// A private key cannot be read.
    #[error("the workload API sent a key that cannot be used")]
    Key(#[from] KeyError),
    /// An SVID cannot be read.
    #[error("the workload API sent an SVID that cannot be used")]
    Svid(#[from] SvidError),
    /// A bundle cannot be read.
    #[error("the workload API sent a bundle that cannot be used")]
    Bundle(#[from] BundleError),
    /// A revocation list cannot be read.
    #[error("the workload API sent a revocation list that cannot be used")]
    Revocation(#[from] RevocationError),
}

impl WorkloadApiError {
    /// Returns whether what was received before is to be given up.
    pub fn withdraws(&self) -> bool {
        matches!(self, Self::NoIdentity { .. })
    }

    fn from_status(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied => Self::NoIdentity { message },
            code => Self::Failed { code, message },
        }
    }
}

fn update(response: X509svidResponse) -> Result<X509Update, WorkloadApiError> {
    if response.svids.is_empty() {
        return Err(WorkloadApiError::Empty);
    }
    let revocation = RevocationLists::from_der(&response.crl)?;
    let mut bundles = BundleSet::new();
    for (id, der) in &response.federated_bundles {
        let trust_domain =
            TrustDomain::parse_id(id).map_err(|source| WorkloadApiError::Id { text: id.clone(), source })?;
        bundles.insert(TrustBundle::from_der(trust_domain, der)?);
    }
    let mut svids: Vec<Arc<X509Svid>> = Vec::with_capacity(response.svids.len());
    for message in response.svids {
        let svid = svid(&message)?;
        bundles.insert(TrustBundle::from_der(svid.id().trust_domain(), &message.bundle)?);
        // Workload API 5.2.1: of two SVIDs with one hint the first counts.
        let repeated = |known: &Arc<X509Svid>| known.hint().is_some() && known.hint() == svid.hint();
        if !svids.iter().any(repeated) {
            svids.push(Arc::new(svid));
        }
    }
    Ok(X509Update { svids, bundles: bundles.without(revocation) })
}

fn svid(message: &X509svid) -> Result<X509Svid, WorkloadApiError> {
    let announced = SpiffeId::parse(&message.spiffe_id)
        .map_err(|source| WorkloadApiError::Id { text: message.spiffe_id.clone(), source })?;
    let hint = (!message.hint.is_empty()).then(|| message.hint.clone());
    let key = PrivateKey::from_pkcs8_der(&message.x509_svid_key)?;
    let svid = X509Svid::from_der(&message.x509_svid, key, hint)?;
    if *svid.id() != announced {
        return Err(WorkloadApiError::OtherId { announced, found: svid.id().clone() });
    }
    Ok(svid)
}

/// The variable that names the socket (SPIFFE Workload Endpoint 4).
pub const ENVIRONMENT: &str = "SPIFFE_ENDPOINT_SOCKET";
/// What go clients accept; the bundle repeats for each SVID.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
pub(crate) const SECURITY_HEADER: &str = "workload.spiffe.io";
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
