//! The catalogue of services over the admin socket.

use identity::manifest::Seen;
use policy::{
    service::{Entry, EntryKind},
    strict::Source,
};
use proto::vouchsafe::v1::{
    ApplyServicesRequest, EntryName, ListServicesRequest, ListStatusRequest, services_client::ServicesClient,
};
use tonic::transport::Channel;

use super::{Client, ClientError, MAX_ANSWER_BYTES};
use crate::{
    catalogue::{Conflict, Outcome, Prune, Wish},
    policies::status::Overview,
    wire::catalogue,
};

/// The catalogue as the CA tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// The set in force; none where nothing was ever applied.
    pub set: Option<Seen>,
    /// Every entry with the time of its last change, in Unix seconds.
    pub entries: Vec<(Entry, i64)>,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedServices {
    /// The set in force after it.
    pub set: Option<Seen>,
    /// What became of each entry.
    pub outcomes: Vec<Outcome>,
    /// Why nothing was changed; empty where the wish was granted.
    pub conflicts: Vec<Conflict>,
}

impl Client {
    /// Returns every entry of the catalogue.
    pub async fn services(&self) -> Result<Services, ClientError> {
        let answer = self.services_api().list_services(ListServicesRequest {}).await?.into_inner();
        let entry = |entry: proto::vouchsafe::v1::ServiceEntry| {
            let read = policy::service::entry(&Source::new(&*entry.name, &*entry.document));
            Ok((read.map_err(|_| ClientError::Malformed("entry"))?, entry.changed_at))
        };
        let entries = answer.entries.into_iter().map(entry).collect::<Result<_, ClientError>>()?;
        Ok(Services { set: seen(answer.number, answer.generation), entries })
    }

    /// Makes the catalogue hold what is wished for, or nothing of it.
    pub async fn apply_services(&self, wish: &Wish) -> Result<AppliedServices, ClientError> {
        let name = |(kind, name): &(EntryKind, String)| EntryName {
            kind: kind.as_str().to_owned(),
            name: name.clone(),
        };
        let request = ApplyServicesRequest {
            documents: wish.entries.iter().map(Entry::document).collect(),
            remove: wish.remove.iter().map(name).collect(),
            prune: wish.prune == Prune::Remove,
            dry_run: wish.dry_run,
        };
        let answer = self.services_api().apply_services(request).await?.into_inner();
        let outcomes = answer.outcomes.into_iter().map(catalogue::outcome).collect::<Option<_>>();
        let conflicts = answer.conflicts.into_iter().map(catalogue::conflict).collect::<Option<_>>();
        Ok(AppliedServices {
            set: seen(answer.number, answer.generation),
            outcomes: outcomes.ok_or(ClientError::Malformed("outcome"))?,
            conflicts: conflicts.ok_or(ClientError::Malformed("conflict"))?,
        })
    }

    /// Returns which set of services is handed out, and what every agent and sidecar runs.
    pub async fn service_status(&self) -> Result<Overview, ClientError> {
        let items = self.services_api().list_service_status(ListStatusRequest {}).await?.into_inner();
        super::policies::overview(items).await
    }

    fn services_api(&self) -> ServicesClient<Channel> {
        ServicesClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

fn seen(number: u64, generation: String) -> Option<Seen> {
    (number > 0).then_some(Seen { number, generation })
}
