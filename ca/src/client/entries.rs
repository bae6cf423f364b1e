//! Entries over the admin socket: one by one, and a whole wish list at once.

use proto::spire::api::server::entry::v1::{self as wire, entry_client::EntryClient};
use tonic::{Code, transport::Channel};

use super::{Client, ClientError, MAX_ANSWER_BYTES};
use crate::{
    entries::{Plan, Prune, plan},
    model::{Entry, EntryId, EntrySpec},
    registry::EntryFilter,
    wire::{entry_from_wire, filter_to_wire, spec_to_wire},
};

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done; for a deletion, what is named is gone.
    Done(Box<Listing>),
    /// The CA has an entry with the same identity, parent and selectors already.
    Exists(Box<Listing>),
    /// There is no such entry.
    NotFound,
    /// The CA refused, for this reason.
    Refused(String),
}

/// What an entry is called, and what the CA says it is where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The entry's name.
    pub id: String,
    /// The entry itself; absent after a deletion.
    pub entry: Option<Entry>,
}

/// What a wish list changed.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Every change, in the order in which it was made.
    pub changes: Vec<(Change, Outcome)>,
    /// Entries that were as wished.
    pub unchanged: usize,
}

impl Applied {
    /// Whether every change was made.
    pub fn is_complete(&self) -> bool {
        self.changes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Done(_)))
    }
}

/// One change of a wish list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To be made.
    Create(Box<EntrySpec>),
    /// To be changed.
    Update(EntryId, Box<EntrySpec>),
    /// To be removed.
    Delete(EntryId),
}

impl Client {
    /// Registers each specification.
    pub async fn create_entries(&self, specs: &[EntrySpec]) -> Result<Vec<Outcome>, ClientError> {
        let mut outcomes = Vec::with_capacity(specs.len());
        for batch in specs.chunks(BATCH) {
            let entries = batch.iter().map(|spec| spec_to_wire(None, spec)).collect();
            let request = wire::BatchCreateEntryRequest { entries, output_mask: None };
            let response = self.entries_api().batch_create_entry(request).await?.into_inner();
            for result in response.results {
                outcomes.push(outcome(result.status, result.entry, "")?);
            }
        }
        Ok(outcomes)
    }

    /// Makes each named entry say exactly what its specification says.
    pub async fn update_entries(
        &self,
        updates: &[(EntryId, EntrySpec)],
    ) -> Result<Vec<Outcome>, ClientError> {
        let mut outcomes = Vec::with_capacity(updates.len());
        for batch in updates.chunks(BATCH) {
            let entries = batch.iter().map(|(id, spec)| spec_to_wire(Some(id), spec)).collect();
            let request = wire::BatchUpdateEntryRequest { entries, input_mask: None, output_mask: None };
            let response = self.entries_api().batch_update_entry(request).await?.into_inner();
            for result in response.results {
                outcomes.push(outcome(result.status, result.entry, "")?);
            }
        }
        Ok(outcomes)
    }

    /// Removes each named entry.
    pub async fn delete_entries(&self, ids: &[EntryId]) -> Result<Vec<Outcome>, ClientError> {
        let mut outcomes = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let request =
                wire::BatchDeleteEntryRequest { ids: batch.iter().map(ToString::to_string).collect() };
            let response = self.entries_api().batch_delete_entry(request).await?.into_inner();
            for result in response.results {
                outcomes.push(outcome(result.status, None, &result.id)?);
            }
        }
        Ok(outcomes)
    }

    /// Returns the entry of that name.
    pub async fn entry(&self, id: &EntryId) -> Result<Entry, ClientError> {
        let request = wire::GetEntryRequest { id: id.to_string(), output_mask: None };
        let entry = self.entries_api().get_entry(request).await?.into_inner();
        entry_from_wire(entry).ok_or(ClientError::Malformed("entry"))
    }

    /// Returns every entry that `filter` accepts.
    pub async fn entries(&self, filter: &EntryFilter) -> Result<Vec<Entry>, ClientError> {
        let mut entries = Vec::new();
        let mut page_token = String::new();
        loop {
            let filter = Some(filter_to_wire(filter));
            let request = wire::ListEntriesRequest { filter, output_mask: None, page_size: PAGE, page_token };
            let page = self.entries_api().list_entries(request).await?.into_inner();
            for entry in page.entries {
                entries.push(entry_from_wire(entry).ok_or(ClientError::Malformed("entry"))?);
            }
            if page.next_page_token.is_empty() {
                return Ok(entries);
            }
            page_token = page.next_page_token;
        }
    }

    /// How many entries there are.
    pub async fn count_entries(&self) -> Result<usize, ClientError> {
        let request = wire::CountEntriesRequest { filter: None };
        let count = self.entries_api().count_entries(request).await?.into_inner().count;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Says what [`Client::apply`] would change.
    pub async fn plan(&self, wanted: &[EntrySpec], prune: Prune) -> Result<Plan, ClientError> {
        Ok(plan(wanted, &self.entries(&EntryFilter::default()).await?, prune))
    }

    /// Makes the registry hold what is `wanted`: removes first, so that what moved does not stand in its own way.
    pub async fn apply(&self, wanted: &[EntrySpec], prune: Prune) -> Result<Applied, ClientError> {
        let plan = self.plan(wanted, prune).await?;
        let mut applied = Applied { unchanged: plan.unchanged.len(), changes: Vec::new() };
        let deleted = self.delete_entries(&plan.delete).await?;
        applied.changes.extend(plan.delete.into_iter().map(Change::Delete).zip(deleted));
        let updated = self.update_entries(&plan.update).await?;
        let updates = plan.update.into_iter().map(|(id, spec)| Change::Update(id, Box::new(spec)));
        applied.changes.extend(updates.zip(updated));
        let created = self.create_entries(&plan.create).await?;
        let creations = plan.create.into_iter().map(|spec| Change::Create(Box::new(spec)));
        applied.changes.extend(creations.zip(created));
        Ok(applied)
    }

    fn entries_api(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

fn outcome(
    status: Option<proto::spire::api::types::Status>,
    entry: Option<proto::spire::api::types::Entry>,
    id: &str,
) -> Result<Outcome, ClientError> {
    let status = status.ok_or(ClientError::Malformed("status"))?;
    let listing = || {
        let id = entry.as_ref().map_or(id, |entry| &entry.id).to_owned();
        let entry = entry.clone().map(|entry| entry_from_wire(entry).ok_or(ClientError::Malformed("entry")));
        Ok::<_, ClientError>(Box::new(Listing { id, entry: entry.transpose()? }))
    };
    Ok(match Code::from_i32(status.code) {
        Code::Ok => Outcome::Done(listing()?),
        Code::AlreadyExists if entry.is_some() => Outcome::Exists(listing()?),
        Code::NotFound => Outcome::NotFound,
        _ => Outcome::Refused(status.message),
    })
}

/// Entries of one request.
const BATCH: usize = 500;
/// Entries of one page.
const PAGE: i32 = 1000;
