//! The command that asks who runs which policies.

use proto::vouchsafe::v1::{ListStatusRequest, StatusItem, policy_client::PolicyClient, status_item::Item};
use tonic::Streaming;

use super::{Client, ClientError, MAX_ANSWER_BYTES};
use crate::{policies::status::Overview, wire::policies};

impl Client {
    /// Returns what is handed out, and what every agent and sidecar runs.
    pub async fn policy_status(&self) -> Result<Overview, ClientError> {
        let mut client = PolicyClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        overview(client.list_status(ListStatusRequest {}).await?.into_inner()).await
    }
}

/// Reads what is told of the sets of one kind.
pub(super) async fn overview(mut items: Streaming<StatusItem>) -> Result<Overview, ClientError> {
    let first = items.message().await?.and_then(|item| item.item);
    let Some(Item::Summary(summary)) = first else {
        return Err(ClientError::Malformed("summary"));
    };
    let (handed_out, flaw) = policies::summary(summary);
    let mut agents = Vec::new();
    while let Some(item) = items.message().await? {
        let Some(Item::Agent(row)) = item.item else { return Err(ClientError::Malformed("agent")) };
        agents.push(policies::row(row).ok_or(ClientError::Malformed("agent"))?);
    }
    Ok(Overview { handed_out, flaw, agents })
}
