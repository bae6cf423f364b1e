//! A client of the admin socket, for the command line: each command is one call and one value back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use identity::{Secret, SpiffeId, TrustBundle, TrustDomain};
use proto::spire::api::server::{
    agent::v1::{self as agent, agent_client::AgentClient},
    bundle::v1::{self as bundle, bundle_client::BundleClient},
};
use rustls_pki_types::CertificateDer;
use tokio::net::UnixStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    model::{Node, Standing, SvidRecord},
    wire::{id_from_wire, id_to_wire, selectors},
};

mod entries;
mod policies;
mod services;

pub use entries::{Applied, Change, Listing, Outcome};
pub use services::{AppliedServices, Services};

/// A connection to a CA's admin socket.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("cannot reach the CA at {}: check that `vouchsafe ca run` is up and that this user may use the socket", socket.display())]
    Unreachable {
        /// Which socket.
        socket: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The CA went away during the call, or took too long.
    #[error("the CA did not answer: {}", .0.message())]
    Unanswered(Box<Status>),
    /// The CA refused.
    #[error("the CA refused: {}", .0.message())]
    Refused(Box<Status>),
    /// The answer makes no sense.
    #[error("the CA's answer holds a malformed {0}")]
    Malformed(&'static str),
}

impl ClientError {
    /// Whether the CA could not be asked at all, which has an exit code of its own.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unanswered(_))
    }

    /// Whether the thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::NotFound)
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                Self::Unanswered(Box::new(status))
            }
            _ => Self::Refused(Box::new(status)),
        }
    }
}

/// A join token just made.
pub struct Token {
    /// The token itself.
    pub value: Secret,
    /// When it stops to count, in Unix seconds.
    pub expires_at: i64,
}

impl Client {
    /// Connects to the socket at `socket`.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://vouchsafe.invalid")
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_with_connector(connector)
            .await
            .map_err(|source| ClientError::Unreachable {
                socket: socket.to_owned(),
                source: Box::new(source),
            })?;
        Ok(Self { channel })
    }

    /// Makes a join token that counts for `ttl`; with `alias`, the agent that spends it is also known by that identity.
    pub async fn create_token(&self, ttl: Duration, alias: Option<&SpiffeId>) -> Result<Token, ClientError> {
        let request = agent::CreateJoinTokenRequest {
            ttl: i32::try_from(ttl.as_secs()).unwrap_or(i32::MAX),
            token: String::new(),
            agent_id: alias.map(id_to_wire),
        };
        let token = self.agents_api().create_join_token(request).await?.into_inner();
        Ok(Token { value: Secret::new(token.value), expires_at: token.expires_at })
    }

    /// Returns the trust bundle. Its first authority is the one that signs: the one to pin in a join string.
    pub async fn bundle(&self) -> Result<TrustBundle, ClientError> {
        let request = bundle::GetBundleRequest { output_mask: None };
        let wire = BundleClient::new(self.channel.clone()).get_bundle(request).await?.into_inner();
        let trust_domain =
            TrustDomain::parse(&wire.trust_domain).map_err(|_| ClientError::Malformed("trust domain"))?;
        let authorities =
            wire.x509_authorities.into_iter().map(|authority| CertificateDer::from(authority.asn1));
        let bundle = TrustBundle::new(trust_domain, authorities.collect())
            .map_err(|_| ClientError::Malformed("trust bundle"))?;
        let hint = Duration::from_secs(u64::try_from(wire.refresh_hint).unwrap_or(0));
        Ok(bundle.with_sequence(wire.sequence_number).with_refresh_hint(hint))
    }

    /// Returns every attested agent.
    pub async fn agents(&self) -> Result<Vec<Node>, ClientError> {
        let mut agents = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = agent::ListAgentsRequest { page_token, ..Default::default() };
            let page = self.agents_api().list_agents(request).await?.into_inner();
            for wire in page.agents {
                agents.push(node_from_wire(wire).ok_or(ClientError::Malformed("agent"))?);
            }
            if page.next_page_token.is_empty() {
                return Ok(agents);
            }
            page_token = page.next_page_token;
        }
    }

    /// Shuts an agent out.
    pub async fn ban_agent(&self, id: &SpiffeId) -> Result<(), ClientError> {
        self.agents_api().ban_agent(agent::BanAgentRequest { id: Some(id_to_wire(id)) }).await?;
        Ok(())
    }

    /// Forgets an agent: it must attest anew.
    pub async fn evict_agent(&self, id: &SpiffeId) -> Result<(), ClientError> {
        self.agents_api().delete_agent(agent::DeleteAgentRequest { id: Some(id_to_wire(id)) }).await?;
        Ok(())
    }

    fn agents_api(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

fn node_from_wire(wire: proto::spire::api::types::Agent) -> Option<Node> {
    Some(Node {
        id: id_from_wire(wire.id)?,
        attestor: wire.attestation_type,
        svid: SvidRecord { serial: wire.x509svid_serial_number, expires_at: wire.x509svid_expires_at },
        renewed: None,
        standing: if wire.banned { Standing::Banned } else { Standing::Active },
        selectors: selectors(wire.selectors).ok()?,
        version: wire.agent_version,
    })
}

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of entries with long selector lists.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
