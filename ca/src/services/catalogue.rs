//! `vouchsafe.v1.Services`: the catalogue for operators, and its sets, pushed to agents as those of policies are.

use policy::service::EntryKind;
use proto::vouchsafe::v1::{
    ApplyServicesRequest, ApplyServicesResponse, ListServicesRequest, ListServicesResponse,
    ListStatusRequest, PolicyUpdate, ReportStatusRequest, ReportStatusResponse, StatusItem,
    WatchPoliciesRequest, services_server::Services,
};
use tonic::{Request, Response, Status};

use super::{
    Core, caller,
    policy::{Messages, keep_report, status_items, watch_sets},
    store_failed,
};
use crate::{
    catalogue::{CatalogueError, Prune, Wish, read},
    health::Part,
    wire::catalogue::{applied_to_wire, entry_to_wire},
};

#[tonic::async_trait]
impl Services for Core {
    type WatchServicesStream = Messages<PolicyUpdate>;
    type ListServiceStatusStream = Messages<StatusItem>;

    async fn watch_services(
        &self,
        request: Request<WatchPoliciesRequest>,
    ) -> Result<Response<Self::WatchServicesStream>, Status> {
        watch_sets(self, request, &self.services)
    }

    async fn report_services(
        &self,
        request: Request<ReportStatusRequest>,
    ) -> Result<Response<ReportStatusResponse>, Status> {
        keep_report(self, request, &self.services.board)
    }

    async fn list_service_status(
        &self,
        _: Request<ListStatusRequest>,
    ) -> Result<Response<Self::ListServiceStatusStream>, Status> {
        Ok(status_items(self, &self.services, Part::Services))
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let listing = self.catalogue.list().await.map_err(failed)?;
        let set = listing.set;
        Ok(Response::new(ListServicesResponse {
            number: set.as_ref().map_or(0, |set| set.number),
            generation: set.map(|set| set.generation).unwrap_or_default(),
            entries: listing.entries.into_iter().map(entry_to_wire).collect(),
        }))
    }

    async fn apply_services(
        &self,
        request: Request<ApplyServicesRequest>,
    ) -> Result<Response<ApplyServicesResponse>, Status> {
        let operator = caller(&request);
        let wish = wish(request.into_inner())?;
        let dry_run = wish.dry_run;
        let applied = self.catalogue.apply(wish).await.map_err(failed)?;
        if !dry_run && applied.conflicts.is_empty() {
            let changed = applied.outcomes.iter().filter(|outcome| outcome.is_change()).count();
            tracing::info!(%operator, changed, "services applied");
        }
        Ok(Response::new(applied_to_wire(applied)))
    }
}

fn wish(request: ApplyServicesRequest) -> Result<Wish, Status> {
    if request.documents.len().saturating_add(request.remove.len()) > policy::service::MAX_ENTRIES {
        let most = policy::service::MAX_ENTRIES;
        return Err(Status::invalid_argument(format!("more than {most} entries at once")));
    }
    let entry = |document: &String| {
        read(document).map_err(|problems| Status::invalid_argument(format!("an entry is flawed: {problems}")))
    };
    let kind = |word: &str| {
        let unknown = || Status::invalid_argument("an entry is neither a service nor a sidecar");
        EntryKind::parse(word).ok_or_else(unknown)
    };
    Ok(Wish {
        entries: request.documents.iter().map(entry).collect::<Result<_, _>>()?,
        remove: (request.remove.into_iter())
            .map(|entry| Ok((kind(&entry.kind)?, entry.name)))
            .collect::<Result<_, Status>>()?,
        prune: if request.prune { Prune::Remove } else { Prune::Keep },
        dry_run: request.dry_run,
    })
}

fn failed(error: CatalogueError) -> Status {
    match error {
        CatalogueError::Store(error) => store_failed(&error),
        CatalogueError::Stopped => Status::unavailable("the CA is shutting down"),
        CatalogueError::Sign(_) | CatalogueError::Broken(_) => Status::failed_precondition(error.to_string()),
        CatalogueError::Entry { .. } | CatalogueError::Random(_) => Status::internal(crate::chain(&error)),
    }
}
