//! `spire.api.server.svid.v1`: certificates for workloads, through their agent or straight from an operator.

use std::{sync::Arc, time::Duration};

use proto::spire::api::server::svid::v1::{self as wire, svid_server::Svid};
use tonic::{Request, Response, Status};

use super::{Core, caller, calling_agent, issue, not_served};
use crate::{
    authority::rotation::Signing,
    issue::{Issued, RequestedKey, Subject, requested_names},
    metrics::Kind,
    model::{Entry, reserved},
    shares::Client,
    wire::{entry_id, item_ok, item_status, lifetime, now_seconds, svid_to_wire},
};

#[tonic::async_trait]
impl Svid for Core {
    async fn batch_new_x509svid(
        &self,
        request: Request<wire::BatchNewX509svidRequest>,
    ) -> Result<Response<wire::BatchNewX509svidResponse>, Status> {
        let (agent, _) = calling_agent(&request)?;
        let params = request.into_inner().params;
        if params.len() > MAX_SIGNATURES {
            let message = format!("{} requests at once, at most {MAX_SIGNATURES} are allowed", params.len());
            return Err(Status::invalid_argument(message));
        }
        let under_way = self.batches.take(Client::Identity(agent.clone()));
        let under_way = under_way.ok_or_else(|| {
            Status::resource_exhausted("too many batches at once: send one after the other")
        })?;
        // Looked up in one go: the agent's rights do not change within a batch.
        let now = now_seconds();
        let wanted = self.registry.read(|registry| {
            let find = |params: wire::NewX509svidParams| {
                let id = entry_id(&params.entry_id)?;
                let entry = registry.authorised_entry(&agent, &id).filter(|entry| !entry.spec.has_ended(now));
                let entry = entry.ok_or_else(|| Status::not_found("entry not found or not authorized"))?;
                Ok((entry, params.csr))
            };
            params.into_iter().map(find).collect::<Vec<Result<_, Status>>>()
        });
        let (default, metrics) = (self.svid_ttl, self.metrics.clone());
        let signed = self.sign(move |signing| {
            let sign = |wanted| match sign_entry(signing, wanted, default) {
                Ok((entry, issued)) => {
                    tracing::debug!(%agent, spiffe_id = %issued.id, serial = %issued.serial, "SVID issued");
                    metrics.issued(Kind::Workload);
                    let svid = svid_to_wire(issued, &entry.spec.hint);
                    wire::batch_new_x509svid_response::Result { status: Some(item_ok()), svid: Some(svid) }
                }
                Err(status) => {
                    tracing::warn!(%agent, reason = status.message(), "SVID refused");
                    wire::batch_new_x509svid_response::Result {
                        status: Some(item_status(&status)),
                        svid: None,
                    }
                }
            };
            let signed = wanted.into_iter().map(sign).collect::<Vec<_>>();
            drop(under_way);
            signed
        });
        Ok(Response::new(wire::BatchNewX509svidResponse { results: signed.await? }))
    }

    async fn mint_x509svid(
        &self,
        request: Request<wire::MintX509svidRequest>,
    ) -> Result<Response<wire::MintX509svidResponse>, Status> {
        let by = caller(&request);
        let request = request.into_inner();
        let ttl = lifetime(request.ttl, self.svid_ttl)?;
        let trust_domain = self.trust_domain.clone();
        let issued = self.sign(move |signing| {
            let key = requested_key(&request.csr)?;
            // The request has no other place for the names; its sender is an operator.
            let (id, dns_names) =
                requested_names(&request.csr).map_err(|flaw| Status::invalid_argument(flaw.to_string()))?;
            if !id.is_member_of(&trust_domain) || id.path().is_empty() || reserved(&id).is_some() {
                return Err(Status::invalid_argument(format!("{id} is not a workload of {trust_domain}")));
            }
            issue(signing, &key, &Subject { id, dns_names, ttl })
        });
        let issued = issued.await??;
        self.metrics.issued(Kind::Minted);
        tracing::info!(%by, spiffe_id = %issued.id, serial = %issued.serial, "SVID minted");
        Ok(Response::new(wire::MintX509svidResponse { svid: Some(svid_to_wire(issued, "")) }))
    }

    async fn mint_jwtsvid(
        &self,
        _: Request<wire::MintJwtsvidRequest>,
    ) -> Result<Response<wire::MintJwtsvidResponse>, Status> {
        Err(not_served("MintJWTSVID"))
    }

    async fn mint_witsvid(
        &self,
        _: Request<wire::MintWitsvidRequest>,
    ) -> Result<Response<wire::MintWitsvidResponse>, Status> {
        Err(not_served("MintWITSVID"))
    }

    async fn new_jwtsvid(
        &self,
        _: Request<wire::NewJwtsvidRequest>,
    ) -> Result<Response<wire::NewJwtsvidResponse>, Status> {
        Err(not_served("NewJWTSVID"))
    }

    async fn batch_new_witsvid(
        &self,
        _: Request<wire::BatchNewWitsvidRequest>,
    ) -> Result<Response<wire::BatchNewWitsvidResponse>, Status> {
        Err(not_served("BatchNewWITSVID"))
    }

    async fn new_downstream_x509ca(
        &self,
        _: Request<wire::NewDownstreamX509caRequest>,
    ) -> Result<Response<wire::NewDownstreamX509caResponse>, Status> {
        Err(not_served("NewDownstreamX509CA"))
    }
}

fn sign_entry(
    signing: &Signing,
    wanted: Result<(Arc<Entry>, Vec<u8>), Status>,
    default: Duration,
) -> Result<(Arc<Entry>, Issued), Status> {
    let (entry, csr) = wanted?;
    // The database may hold entries that were registered before a path was reserved.
    if let Some(path) = reserved(&entry.spec.spiffe_id) {
        let message =
            format!("{} lies below the reserved path {path}: delete this entry", entry.spec.spiffe_id);
        return Err(Status::failed_precondition(message));
    }
    let key = requested_key(&csr)?;
    let subject = Subject {
        id: entry.spec.spiffe_id.clone(),
        dns_names: entry.spec.dns_names.clone(),
        ttl: lifetime(entry.spec.x509_svid_ttl, default)?,
    };
    let issued = issue(signing, &key, &subject)?;
    Ok((entry, issued))
}

fn requested_key(csr: &[u8]) -> Result<RequestedKey, Status> {
    RequestedKey::from_csr(csr).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// SPIRE's limit.
const MAX_SIGNATURES: usize = 500;
