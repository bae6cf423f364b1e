//! Stands before every method: decides who calls, and settles an agent's renewal when its new certificate first appears.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use http::{Request, Response};
use proto::spire::api::types::permission_denied_details::Reason;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::Core;
use crate::{
    access::{Caller, Origin, Phase, Refusal, authorise},
    wire::denied,
};

/// Puts a [`Gate`] before the services.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Core>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate { core: self.0.clone(), inner }
    }
}

/// Lets a request pass with its [`Caller`], or answers it.
#[derive(Clone)]
pub(crate) struct Gate<S> {
    core: Arc<Core>,
    inner: S,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready goes on; a clone takes its place.
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let core = self.core.clone();
        let method = request.uri().path().to_owned();
        let origin = request.extensions().get::<Origin>().cloned();
        Box::pin(async move {
            match pass(&core, &method, origin).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

async fn pass(core: &Core, method: &str, origin: Option<Origin>) -> Result<Caller, Status> {
    let origin = origin.ok_or_else(|| Status::internal("the connection has no origin"))?;
    let caller = authorise(method, &origin, &core.registry, SystemTime::now()).map_err(|refusal| {
        let peer = match &origin {
            Origin::Remote { source, peer: Some(peer) } => format!("{} at {source}", peer.id()),
            Origin::Remote { source, peer: None } => source.to_string(),
            Origin::Local { uid, .. } => format!("uid {uid}"),
        };
        tracing::warn!(%method, %peer, ?refusal, "call refused");
        core.metrics.refused();
        refused(refusal, method)
    })?;
    if let Caller::Agent { id, serial, phase: Phase::Renewed } = &caller {
        core.store.settle_renewal(id.clone(), serial.clone()).await.map_err(|error| {
            tracing::warn!(agent = %id, error = %crate::chain(&error), "renewal was not settled");
            Status::unavailable("the renewal could not be recorded")
        })?;
        tracing::info!(agent = %id, "agent uses its renewed certificate");
    }
    Ok(caller)
}

fn refused(refusal: Refusal, method: &str) -> Status {
    match refusal {
        Refusal::Unknown => Status::unimplemented(format!("{method} is not served by this CA")),
        Refusal::NotAllowed => Status::permission_denied(format!("authorization denied for method {method}")),
        Refusal::Agent(reason) => denied(reason, agent_message(reason)),
    }
}

/// SPIRE's words.
pub(super) fn agent_message(reason: Reason) -> &'static str {
    match reason {
        Reason::AgentExpired => "agent SVID is expired",
        Reason::AgentNotAttested => "agent is not attested",
        Reason::AgentNotActive => "agent SVID is not active",
        Reason::AgentBanned => "agent is banned",
        Reason::AgentMustReattest => "agent must reattest",
        Reason::Unknown => "agent is refused",
    }
}
