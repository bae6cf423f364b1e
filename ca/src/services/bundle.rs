//! `spire.api.server.bundle.v1`: the trust bundle. Foreign bundles do not exist here: listings are empty.

use proto::spire::api::{
    server::bundle::v1::{self as wire, bundle_server::Bundle},
    types,
};
use tonic::{Request, Response, Status};

use super::{Core, not_served};
use crate::wire::bundle_to_wire;

#[tonic::async_trait]
impl Bundle for Core {
    async fn count_bundles(
        &self,
        _: Request<wire::CountBundlesRequest>,
    ) -> Result<Response<wire::CountBundlesResponse>, Status> {
        Ok(Response::new(wire::CountBundlesResponse { count: 1 }))
    }

    async fn get_bundle(
        &self,
        request: Request<wire::GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let mask = request.into_inner().output_mask;
        Ok(Response::new(bundle_to_wire(&self.signing().bundle, mask.as_ref())))
    }

    async fn list_federated_bundles(
        &self,
        _: Request<wire::ListFederatedBundlesRequest>,
    ) -> Result<Response<wire::ListFederatedBundlesResponse>, Status> {
        Ok(Response::new(wire::ListFederatedBundlesResponse::default()))
    }

    async fn get_federated_bundle(
        &self,
        _: Request<wire::GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Err(Status::not_found("bundle not found"))
    }

    async fn append_bundle(
        &self,
        _: Request<wire::AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Err(not_served("AppendBundle"))
    }

    async fn publish_jwt_authority(
        &self,
        _: Request<wire::PublishJwtAuthorityRequest>,
    ) -> Result<Response<wire::PublishJwtAuthorityResponse>, Status> {
        Err(not_served("PublishJWTAuthority"))
    }

    async fn publish_wit_authority(
        &self,
        _: Request<wire::PublishWitAuthorityRequest>,
    ) -> Result<Response<wire::PublishWitAuthorityResponse>, Status> {
        Err(not_served("PublishWITAuthority"))
    }

    async fn batch_create_federated_bundle(
        &self,
        _: Request<wire::BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<wire::BatchCreateFederatedBundleResponse>, Status> {
        Err(not_served("BatchCreateFederatedBundle"))
    }

    async fn batch_update_federated_bundle(
        &self,
        _: Request<wire::BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<wire::BatchUpdateFederatedBundleResponse>, Status> {
        Err(not_served("BatchUpdateFederatedBundle"))
    }

    async fn batch_set_federated_bundle(
        &self,
        _: Request<wire::BatchSetFederatedBundleRequest>,
    ) -> Result<Response<wire::BatchSetFederatedBundleResponse>, Status> {
        Err(not_served("BatchSetFederatedBundle"))
    }

    async fn batch_delete_federated_bundle(
        &self,
        _: Request<wire::BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<wire::BatchDeleteFederatedBundleResponse>, Status> {
        Err(not_served("BatchDeleteFederatedBundle"))
    }
}
