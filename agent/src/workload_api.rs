//! The SPIFFE Workload API, X.509 profile: complete states on a stream, one for every real change.
//!
//! The caller is attested when it asks and again before every message, so that it gets what it may have by then.
//! Losing the last identity ends the stream with `PermissionDenied`; what may pass by itself is `Unavailable`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt};
use prost::Message;
use proto::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::attested::{Attested, Open, caller, check_header};
use crate::attestor::Attestor;
use crate::health::Figures;
use crate::limits::{Gate, LARGE_RESPONSE_BYTES, MAX_REQUEST_BYTES, MAX_STREAMS, MAX_STREAMS_PER_UID};
use crate::state::State;
use crate::view::View;

mod subscription;

use subscription::{Subject, Subscription};

/// Serves the Workload API.
pub(crate) struct WorkloadApi {
    state: watch::Receiver<Arc<State>>,
    attestor: Attestor,
    figures: Figures,
    streams: Gate,
}

impl WorkloadApi {
    /// Creates the service.
    pub(crate) fn new(state: watch::Receiver<Arc<State>>, attestor: Attestor, figures: Figures) -> Self {
        Self { state, attestor, figures, streams: Gate::new(MAX_STREAMS, MAX_STREAMS_PER_UID) }
    }

    /// Returns the gRPC service with its limits.
    pub(crate) fn into_service(self) -> SpiffeWorkloadApiServer<Self> {
        SpiffeWorkloadApiServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    async fn subscribe<T: Message + 'static>(
        &self,
        request: Request<impl Send>,
        subject: Subject,
        write: fn(&View) -> T,
    ) -> Result<Response<Messages<T>>, Status> {
        let caller = caller(&request)?;
        let open = Open::enter(&self.streams, &caller, self.figures.clone())?;
        let attested = Attested::new(self.attestor.clone(), caller, self.figures.clone());
        let mut subscription = Subscription::new(self.state.clone(), attested, subject, open);
        subscription.open().await?;
        Ok(Response::new(messages(subscription, write)))
    }
}

/// The answers on a stream.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn messages<T: Message + 'static>(subscription: Subscription, write: fn(&View) -> T) -> Messages<T> {
    let views = stream::unfold(Some(subscription), async |subscription| {
        let mut subscription = subscription?;
        match subscription.next().await {
            Ok(view) => Some((Ok(view), Some(subscription))),
            // An error is the last thing on a stream.
            Err(status) => Some((Err(status), None)),
        }
    });
    views.map(move |view| view.map(|view| measured(write(&view)))).boxed()
}

fn measured<T: Message>(message: T) -> T {
    let bytes = message.encoded_len();
    if bytes > LARGE_RESPONSE_BYTES {
        tracing::warn!(
            bytes,
            "response is larger than clients in Go accept; give the process fewer identities"
        );
    }
    message
}

fn svids(view: &View) -> X509svidResponse {
    let bundle = view.bundle.authorities_der();
    let svids = view.identities.iter().map(|identity| X509svid {
        spiffe_id: identity.svid.id().to_string(),
        x509_svid: identity.svid.chain_der(),
        x509_svid_key: identity.svid.key().pkcs8_der().to_vec(),
        bundle: bundle.clone(),
        hint: identity.hint.clone(),
    });
    let federated = view.federated.iter().map(|(domain, bundle)| (domain.id(), bundle.authorities_der()));
    X509svidResponse { svids: svids.collect(), crl: Vec::new(), federated_bundles: federated.collect() }
}

fn bundles(view: &View) -> X509BundlesResponse {
    let own = std::iter::once((view.bundle.trust_domain(), &view.bundle));
    let all = own.chain(&view.federated).map(|(domain, bundle)| (domain.id(), bundle.authorities_der()));
    X509BundlesResponse { crl: Vec::new(), bundles: all.collect() }
}

fn unserved<T, U>(request: &Request<T>) -> Result<U, Status> {
    check_header(request)?;
    Err(Status::unimplemented("this agent serves the X.509 profile of the Workload API"))
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;
    type FetchWITSVIDStream = Messages<WitsvidResponse>;
    type FetchWITBundlesStream = Messages<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.subscribe(request, Subject::Svids, svids).await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.subscribe(request, Subject::Bundles, bundles).await
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        unserved(&request)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        unserved(&request)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        unserved(&request)
    }

    async fn fetch_witsvid(
        &self,
        request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        unserved(&request)
    }

    async fn fetch_wit_bundles(
        &self,
        request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        unserved(&request)
    }
}

#[cfg(test)]
mod tests;
