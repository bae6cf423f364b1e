//! `spire.api.server.agent.v1`: attestation by join token, renewal, and what operators do with agents.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use identity::{SpiffeId, crypto};
use proto::spire::api::{
    server::agent::v1::{self as wire, agent_server::Agent, attest_agent_request::Step},
    types,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Core, caller, calling_agent, gate::agent_message, not_served, source, store_failed};
use crate::{
    issue::{RequestedKey, Subject},
    metrics::{Attested, Kind},
    model::{EntrySpec, JOIN_TOKEN_PATH, Node, Standing, SvidRecord, random_uuid},
    rate::Admission,
    registry::NodeFilter,
    store::{AttestError, Attestation, NewToken, NodeError, TokenError},
    wire::{denied, lifetime, member_id, node_filter, node_to_wire, now_seconds, page_size, svid_to_wire},
};

#[tonic::async_trait]
impl Agent for Core {
    type AttestAgentStream = tokio_stream::Once<Result<wire::AttestAgentResponse, Status>>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<wire::AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        self.admit_attestation(&request).await?;
        let attested = self.attest(request.into_inner()).await;
        self.metrics.attested(if attested.is_ok() { Attested::Admitted } else { Attested::Refused });
        Ok(Response::new(tokio_stream::once(Ok(attested?))))
    }

    async fn renew_agent(
        &self,
        request: Request<wire::RenewAgentRequest>,
    ) -> Result<Response<wire::RenewAgentResponse>, Status> {
        let (id, serial) = calling_agent(&request)?;
        let params =
            request.into_inner().params.ok_or_else(|| Status::invalid_argument("params are missing"))?;
        let (_, issued) = self.agent_certificate(id.clone(), params.csr).await?;
        let renewed = SvidRecord { serial: issued.serial.clone(), expires_at: issued.expires_at };
        self.store.renew_node(id.clone(), serial, renewed).await.map_err(node_failed)?;
        tracing::info!(agent = %id, serial = %issued.serial, "agent renewed its certificate");
        Ok(Response::new(wire::RenewAgentResponse { svid: Some(svid_to_wire(issued, "")) }))
    }

    async fn create_join_token(
        &self,
        request: Request<wire::CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        let by = caller(&request);
        let wanted = request.into_inner();
        let ttl = lifetime(wanted.ttl, Duration::ZERO)?;
        if ttl.is_zero() || ttl > MAX_TOKEN_TTL {
            return Err(Status::invalid_argument("ttl must be between 1 s and 30 days"));
        }
        let alias = wanted.agent_id.map(|id| self.alias(Some(id))).transpose()?;
        let value = if wanted.token.is_empty() {
            random_uuid().map_err(|error| Status::internal(error.to_string()))?
        } else {
            wanted.token
        };
        let agent = self.agent_of_token(&value)?;
        let expires_at = now_seconds() + i64::try_from(ttl.as_secs()).unwrap_or(0);
        let token = NewToken { hash: crypto::sha256(value.as_bytes()), expires_at, alias };
        self.store.create_token(token, agent).await.map_err(|error| match error {
            TokenError::Exists => Status::already_exists(error.to_string()),
            TokenError::Store(error) => store_failed(&error),
        })?;
        tracing::info!(%by, ttl = ttl.as_secs(), "join token created");
        Ok(Response::new(types::JoinToken { value, expires_at }))
    }

    async fn post_status(
        &self,
        request: Request<wire::PostStatusRequest>,
    ) -> Result<Response<wire::PostStatusResponse>, Status> {
        let (id, _) = calling_agent(&request)?;
        let version = request.into_inner().agent_version;
        if version.len() > MAX_VERSION_BYTES || version.chars().any(char::is_control) {
            return Err(Status::invalid_argument("agent_version is too long or not plain text"));
        }
        let known = self.registry.read(|registry| registry.node(&id).map(|node| node.version.clone()));
        if known.is_some_and(|known| known != version) {
            self.store.note_version(id, version).await.map_err(node_failed)?;
        }
        Ok(Response::new(wire::PostStatusResponse {}))
    }

    async fn count_agents(
        &self,
        request: Request<wire::CountAgentsRequest>,
    ) -> Result<Response<wire::CountAgentsResponse>, Status> {
        let filter = request.into_inner().filter.map(|filter| wire::list_agents_request::Filter {
            by_attestation_type: filter.by_attestation_type,
            by_selector_match: filter.by_selector_match,
            by_banned: filter.by_banned,
            by_can_reattest: filter.by_can_reattest,
            by_expires_before: filter.by_expires_before,
        });
        let filter: NodeFilter = node_filter(filter)?;
        let count = self.registry.read(|registry| registry.nodes(&filter, None, usize::MAX).len());
        Ok(Response::new(wire::CountAgentsResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_agents(
        &self,
        request: Request<wire::ListAgentsRequest>,
    ) -> Result<Response<wire::ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let filter = node_filter(request.filter)?;
        let size = page_size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => None,
            text => {
                Some(SpiffeId::parse(text).map_err(|_| Status::invalid_argument("page_token is malformed"))?)
            }
        };
        let found = self.registry.read(|registry| registry.nodes(&filter, after.as_ref(), size));
        let next = found.last().filter(|_| found.len() == size).map(|node| node.id.to_string());
        let mask = request.output_mask;
        let agents = found.iter().map(|node| node_to_wire(node, mask.as_ref())).collect();
        Ok(Response::new(wire::ListAgentsResponse { agents, next_page_token: next.unwrap_or_default() }))
    }

    async fn get_agent(
        &self,
        request: Request<wire::GetAgentRequest>,
    ) -> Result<Response<types::Agent>, Status> {
        let request = request.into_inner();
        let id = member_id(request.id, "id", &self.trust_domain)?;
        let node = self.registry.read(|registry| registry.node(&id).cloned());
        let node = node.ok_or_else(|| Status::not_found("agent not found"))?;
        Ok(Response::new(node_to_wire(&node, request.output_mask.as_ref())))
    }

    async fn delete_agent(&self, request: Request<wire::DeleteAgentRequest>) -> Result<Response<()>, Status> {
        let by = caller(&request);
        let id = member_id(request.into_inner().id, "id", &self.trust_domain)?;
        self.store.delete_node(id.clone()).await.map_err(node_failed)?;
        tracing::info!(%by, agent = %id, "agent deleted");
        Ok(Response::new(()))
    }

    async fn ban_agent(&self, request: Request<wire::BanAgentRequest>) -> Result<Response<()>, Status> {
        let by = caller(&request);
        let id = member_id(request.into_inner().id, "id", &self.trust_domain)?;
        self.store.ban_node(id.clone()).await.map_err(node_failed)?;
        tracing::info!(%by, agent = %id, "agent banned");
        Ok(Response::new(()))
    }
}

impl Core {
    /// Slows down whoever guesses tokens.
    async fn admit_attestation<T>(&self, request: &Request<T>) -> Result<(), Status> {
        // Whoever has the admin socket need not guess.
        let Some(source) = source(request) else { return Ok(()) };
        let admission = {
            let mut buckets = self.attestations.lock().unwrap_or_else(PoisonError::into_inner);
            buckets.take(source.ip(), Instant::now())
        };
        match admission {
            Admission::After(Duration::ZERO) => Ok(()),
            Admission::After(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Admission::Refuse => {
                tracing::warn!(%source, "attestation refused, too many from this address");
                Err(Status::resource_exhausted("too many attestations from this address: try again later"))
            }
        }
    }

    async fn attest(
        &self,
        mut requests: Streaming<wire::AttestAgentRequest>,
    ) -> Result<wire::AttestAgentResponse, Status> {
        let first = tokio::time::timeout(FIRST_MESSAGE, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no attestation parameters came"))??;
        let Some(Step::Params(params)) = first.and_then(|request| request.step) else {
            return Err(Status::invalid_argument("attestation parameters are missing"));
        };
        let data = params.data.ok_or_else(|| Status::invalid_argument("attestation data is missing"))?;
        let csr = params.params.ok_or_else(|| Status::invalid_argument("SVID parameters are missing"))?.csr;
        if data.r#type != crate::store::JOIN_TOKEN {
            return Err(not_served("this kind of attestation"));
        }
        let token = String::from_utf8(data.payload).map_err(|_| no_such_token())?;
        let agent = self.agent_of_token(&token).map_err(|_| no_such_token())?;
        self.refuse_banned(&agent)?;
        let svid = self.spend(crypto::sha256(token.as_bytes()), agent, csr).await?;
        let result = wire::attest_agent_response::Result { svid: Some(svid), reattestable: false };
        Ok(wire::AttestAgentResponse { step: Some(wire::attest_agent_response::Step::Result(result)) })
    }

    /// Signs first and spends after: a token is never gone without its certificate.
    async fn spend(&self, token: [u8; 32], agent: SpiffeId, csr: Vec<u8>) -> Result<types::X509svid, Status> {
        let key =
            RequestedKey::from_csr(&csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.store.check_token(token, key.hash(), now_seconds()).await.map_err(attest_failed)?;
        let (key, issued) = self.agent_certificate(agent.clone(), csr).await?;
        let svid = SvidRecord { serial: issued.serial.clone(), expires_at: issued.expires_at };
        let attestation = Attestation { token, key, agent: agent.clone(), svid, now: now_seconds() };
        self.store.attest(attestation).await.map_err(attest_failed)?;
        tracing::info!(%agent, serial = %issued.serial, "agent attested");
        Ok(svid_to_wire(issued, ""))
    }

    async fn agent_certificate(
        &self,
        id: SpiffeId,
        csr: Vec<u8>,
    ) -> Result<([u8; 32], crate::issue::Issued), Status> {
        let (ttl, metrics) = (self.agent_svid_ttl, self.metrics.clone());
        self.sign(move |signing| {
            let key =
                RequestedKey::from_csr(&csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
            let subject = Subject { id, dns_names: Vec::new(), ttl };
            let issued = super::issue(signing, &key, &subject)?;
            metrics.issued(Kind::Agent);
            Ok((key.hash(), issued))
        })
        .await?
    }

    /// SPIRE names an agent by its token. The token is worth nothing any more when the name is first seen.
    fn agent_of_token(&self, token: &str) -> Result<SpiffeId, Status> {
        if !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) || token.contains('/') {
            return Err(Status::invalid_argument(
                "a join token has 8 to 128 letters, digits, '.', '_' or '-'",
            ));
        }
        SpiffeId::new(&self.trust_domain, &format!("{JOIN_TOKEN_PATH}{token}")).map_err(|_| {
            Status::invalid_argument("a join token has 8 to 128 letters, digits, '.', '_' or '-'")
        })
    }

    fn alias(&self, id: Option<types::Spiffeid>) -> Result<SpiffeId, Status> {
        let alias = member_id(id, "agent_id", &self.trust_domain)?;
        // The entry that the alias will become must be one that could be registered.
        EntrySpec::new(alias.clone(), self.server_id.clone(), EntrySpec::alias_selectors(&alias))
            .check(&self.trust_domain)
            .map_err(|flaw| Status::invalid_argument(format!("agent_id: {flaw}")))?;
        Ok(alias)
    }

    fn refuse_banned(&self, agent: &SpiffeId) -> Result<(), Status> {
        let banned = |node: &std::sync::Arc<Node>| node.standing == Standing::Banned;
        if self.registry.read(|registry| registry.node(agent).is_some_and(banned)) {
            return Err(banned_status());
        }
        Ok(())
    }
}

fn no_such_token() -> Status {
    Status::invalid_argument("failed to attest: join token does not exist or has already been used")
}

fn banned_status() -> Status {
    let reason = types::permission_denied_details::Reason::AgentBanned;
    denied(reason, agent_message(reason))
}

fn attest_failed(error: AttestError) -> Status {
    match error {
        AttestError::NoSuchToken => no_such_token(),
        AttestError::Banned(_) => banned_status(),
        AttestError::Store(error) => store_failed(&error),
    }
}

fn node_failed(error: NodeError) -> Status {
    match error {
        NodeError::NotFound(_) => Status::not_found("agent not found"),
        NodeError::Banned(_) => banned_status(),
        NodeError::NotCurrent(_) => {
            let reason = types::permission_denied_details::Reason::AgentNotActive;
            denied(reason, agent_message(reason))
        }
        NodeError::Store(error) => store_failed(&error),
    }
}

/// How long an attesting agent may take to say what it wants.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// A token that lives longer is a password.
const MAX_TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Shorter ones can be guessed.
const MIN_TOKEN_BYTES: usize = 8;
/// Longest token.
const MAX_TOKEN_BYTES: usize = 128;
/// Longest version an agent may report.
const MAX_VERSION_BYTES: usize = 256;
