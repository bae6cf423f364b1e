//! Calls to the CA: SPIRE's server API over TLS with SPIFFE identities, and the push stream of our own CA.

use std::sync::Arc;
use std::time::Duration;

use identity::manifest::Kind;
use identity::tls::{self, ExpectedServer, TlsError};
use identity::{Anchors, Credentials, PrivateKey, TrustDomain, X509Svid};
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, RenewAgentRequest, attest_agent_request, attest_agent_response,
};
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::bundle::v1::{GetBundleRequest, GetFederatedBundleRequest};
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use proto::spire::api::server::svid::v1::{
    BatchNewX509svidRequest, NewX509svidParams, batch_new_x509svid_response,
};
use proto::spire::api::types;
use proto::vouchsafe::v1::policy_client::PolicyClient;
use proto::vouchsafe::v1::registry_client::RegistryClient;
use proto::vouchsafe::v1::services_client::ServicesClient;
use proto::vouchsafe::v1::{
    AuthorizedEntries, PolicyUpdate, ReportStatusRequest, WatchAuthorizedEntriesRequest, WatchPoliciesRequest,
};
use rustls::ClientConfig;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::wire::{self, Received};

mod connect;
mod entries;
mod error;

pub(crate) use connect::ConnectError;
pub(crate) use entries::Known;
pub(crate) use error::{CallError, Refusal};

/// How long a call may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest message taken from the CA. 64 MiB hold about 270,000 entries.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The largest message of a set: a manifest, which is longer than any file.
pub(crate) const MAX_POLICY_MESSAGE_BYTES: usize = identity::manifest::MAX_MANIFEST_BYTES + 64 * 1024;

/// The path of the CA's own SPIFFE ID, which is SPIRE's.
pub(crate) const SERVER_PATH: &str = "/spire/server";

/// By what the CA is recognised, and what the node proves itself with.
#[derive(Clone)]
pub(crate) enum Trust {
    /// By its SVID.
    Verified(Arc<ClientConfig>),
    /// Not at all: only to fetch a bundle that is compared with a pinned hash.
    DangerUnverified,
}

impl Trust {
    /// Recognises the CA; the node proves itself with its SVID.
    pub(crate) fn mutual(credentials: &Credentials) -> Result<Self, TlsError> {
        let expected = expected(&credentials.svid().id().trust_domain());
        tls::client_config(credentials, expected, &[tls::ALPN_H2]).map(Self::Verified)
    }

    /// Recognises the CA; the node has no SVID.
    pub(crate) fn server_only(anchors: Arc<Anchors>, trust_domain: &TrustDomain) -> Result<Self, TlsError> {
        tls::client_config_without_svid(anchors, expected(trust_domain), &[tls::ALPN_H2]).map(Self::Verified)
    }
}

/// A connection to the CA.
#[derive(Clone)]
pub(crate) struct Upstream {
    channel: Channel,
}

impl Upstream {
    /// Connects to the CA at `address`.
    pub(crate) async fn connect(address: &str, trust: Trust) -> Result<Self, ConnectError> {
        Ok(Self { channel: connect::channel(address, trust).await? })
    }

    /// Lets the node in with a join token. `key` has to be on disk before.
    pub(crate) async fn attest(&self, token: &str, key: &Arc<PrivateKey>) -> Result<X509Svid, CallError> {
        let params = attest_agent_request::Params {
            data: Some(types::AttestationData {
                r#type: JOIN_TOKEN.to_owned(),
                payload: token.as_bytes().to_vec(),
            }),
            params: Some(AgentX509svidParams { csr: key.csr(None)? }),
        };
        let request = AttestAgentRequest { step: Some(attest_agent_request::Step::Params(params)) };
        // The server reads until the client is done, so the request stays open until the answer is there.
        let requests = futures_util::StreamExt::chain(
            futures_util::stream::iter([request]),
            futures_util::stream::pending::<AttestAgentRequest>(),
        );
        let mut client = AgentClient::new(self.channel.clone());
        let first =
            timed(async { Ok(client.attest_agent(requests).await?.into_inner().message().await?) }).await?;
        match first.and_then(|response| response.step) {
            Some(attest_agent_response::Step::Result(result)) => read_svid(result.svid, key),
            Some(attest_agent_response::Step::Challenge(_)) => {
                Err(CallError::Unexpected { what: "a challenge" })
            }
            None => Err(CallError::Unexpected { what: "no answer" }),
        }
    }

    /// Renews the node's own SVID for a new key.
    pub(crate) async fn renew(&self, key: &Arc<PrivateKey>) -> Result<X509Svid, CallError> {
        let request = RenewAgentRequest { params: Some(AgentX509svidParams { csr: key.csr(None)? }) };
        let mut client = AgentClient::new(self.channel.clone());
        let response = call(client.renew_agent(request)).await?;
        read_svid(response.svid, key)
    }

    /// Fetches the trust bundle of `trust_domain`, which the CA serves to everybody.
    pub(crate) async fn bundle(&self, trust_domain: &TrustDomain) -> Result<Received, CallError> {
        let mut client = BundleClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let bundle = call(client.get_bundle(GetBundleRequest::default())).await?;
        Ok(wire::bundle(bundle, trust_domain)?)
    }

    /// Fetches the trust bundle of a foreign trust domain.
    pub(crate) async fn federated_bundle(&self, trust_domain: &TrustDomain) -> Result<Received, CallError> {
        let mut client = BundleClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let request = GetFederatedBundleRequest { trust_domain: trust_domain.to_string(), output_mask: None };
        Ok(wire::bundle(call(client.get_federated_bundle(request)).await?, trust_domain)?)
    }

    /// Opens the stream on which our CA pushes changes. Another CA answers that it does not know the method.
    pub(crate) async fn watch(&self) -> Result<Streaming<AuthorizedEntries>, CallError> {
        let mut client =
            RegistryClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        call(client.watch_authorized_entries(WatchAuthorizedEntriesRequest {})).await
    }

    /// Opens the stream on which our CA pushes sets of `kind`, without the files whose SHA-256 are `held`.
    pub(crate) async fn watch_sets(
        &self,
        kind: Kind,
        held: Vec<Vec<u8>>,
    ) -> Result<Streaming<PolicyUpdate>, CallError> {
        let (request, channel) = (WatchPoliciesRequest { held }, self.channel.clone());
        match kind {
            Kind::Policies => {
                let client = PolicyClient::new(channel);
                call(client.max_decoding_message_size(MAX_POLICY_MESSAGE_BYTES).watch_policies(request)).await
            }
            Kind::Services => {
                let client = ServicesClient::new(channel);
                call(client.max_decoding_message_size(MAX_POLICY_MESSAGE_BYTES).watch_services(request)).await
            }
        }
    }

    /// Tells our CA which sets of `kind` run here.
    pub(crate) async fn report_sets(&self, kind: Kind, report: ReportStatusRequest) -> Result<(), CallError> {
        let channel = self.channel.clone();
        match kind {
            Kind::Policies => call(PolicyClient::new(channel).report_status(report)).await.map(drop),
            Kind::Services => call(ServicesClient::new(channel).report_services(report)).await.map(drop),
        }
    }

    /// Asks for SVIDs, given by the ids of their entries and certificate requests. The answers have the same order.
    pub(crate) async fn issue(
        &self,
        requests: Vec<NewX509svidParams>,
    ) -> Result<Vec<batch_new_x509svid_response::Result>, CallError> {
        let sent = requests.len();
        let mut client = SvidClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let response = call(client.batch_new_x509svid(BatchNewX509svidRequest { params: requests })).await?;
        if response.results.len() == sent {
            Ok(response.results)
        } else {
            Err(CallError::Unexpected { what: "another number of SVIDs than was asked for" })
        }
    }
}

fn expected(trust_domain: &TrustDomain) -> ExpectedServer {
    let id = identity::SpiffeId::new(trust_domain, SERVER_PATH);
    ExpectedServer::AnyOf(id.into_iter().collect())
}

fn read_svid(svid: Option<types::X509svid>, key: &Arc<PrivateKey>) -> Result<X509Svid, CallError> {
    let svid = svid.ok_or(CallError::Unexpected { what: "no SVID" })?;
    Ok(wire::svid(svid, key.clone())?)
}

async fn call<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CallError> {
    timed(async { Ok(answer.await?.into_inner()) }).await
}

async fn timed<T>(answer: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    tokio::time::timeout(CALL_TIMEOUT, answer).await.unwrap_or(Err(CallError::Timeout))
}

const JOIN_TOKEN: &str = "join_token";
