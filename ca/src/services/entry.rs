//! `spire.api.server.entry.v1`: registration entries.

use identity::SpiffeId;
use proto::spire::api::{
    server::entry::v1::{self as wire, entry_server::Entry},
    types,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Core, caller, calling_agent, store_failed, sync};
use crate::{
    model::{Entry as Registered, EntryId, JOIN_TOKEN_PATH},
    store::{Created, WriteError},
    wire::{
        entry_filter, entry_id, entry_patch, entry_spec, entry_to_wire, item_ok, item_status, now_seconds,
        page_size,
    },
};

#[tonic::async_trait]
impl Entry for Core {
    type SyncAuthorizedEntriesStream = sync::Responses;

    async fn count_entries(
        &self,
        request: Request<wire::CountEntriesRequest>,
    ) -> Result<Response<wire::CountEntriesResponse>, Status> {
        let count = match request.into_inner().filter {
            None => self.registry.read(|registry| registry.entry_count()),
            Some(filter) => {
                let filter = entry_filter(Some(list_filter(filter)))?;
                self.registry.read(|registry| registry.entries(&filter, None, usize::MAX).len())
            }
        };
        Ok(Response::new(wire::CountEntriesResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_entries(
        &self,
        request: Request<wire::ListEntriesRequest>,
    ) -> Result<Response<wire::ListEntriesResponse>, Status> {
        let request = request.into_inner();
        let filter = entry_filter(request.filter)?;
        let size = page_size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => None,
            text => Some(
                EntryId::parse(text).ok_or_else(|| Status::invalid_argument("page_token is malformed"))?,
            ),
        };
        let found = self.registry.read(|registry| registry.entries(&filter, after.as_ref(), size));
        let next = found.last().filter(|_| found.len() == size).map(|entry| entry.id.to_string());
        let mask = request.output_mask;
        let entries = found.iter().map(|entry| entry_to_wire(entry, mask.as_ref())).collect();
        Ok(Response::new(wire::ListEntriesResponse { entries, next_page_token: next.unwrap_or_default() }))
    }

    async fn get_entry(
        &self,
        request: Request<wire::GetEntryRequest>,
    ) -> Result<Response<types::Entry>, Status> {
        let request = request.into_inner();
        let id = entry_id(&request.id)?;
        let entry = self.registry.read(|registry| registry.entry(&id).cloned());
        let entry = entry.ok_or_else(|| Status::not_found("entry not found"))?;
        Ok(Response::new(entry_to_wire(&entry, request.output_mask.as_ref())))
    }

    async fn batch_create_entry(
        &self,
        request: Request<wire::BatchCreateEntryRequest>,
    ) -> Result<Response<wire::BatchCreateEntryResponse>, Status> {
        let by = caller(&request);
        let request = request.into_inner();
        bounded(request.entries.len())?;
        let (sound, flawed) =
            split(request.entries.into_iter().map(|entry| entry_spec(entry, &self.trust_domain)));
        let created =
            self.store.create_entries(sound, now_seconds()).await.map_err(|error| store_failed(&error))?;
        let mask = request.output_mask.as_ref();
        let created = created.into_iter().map(|outcome| self.created_to_wire(outcome, mask, &by));
        let flawed = flawed.map(|slot| {
            slot.map(|flaw| wire::batch_create_entry_response::Result {
                status: Some(item_status(&flaw)),
                entry: None,
            })
        });
        Ok(Response::new(wire::BatchCreateEntryResponse { results: merge(flawed, created) }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<wire::BatchUpdateEntryRequest>,
    ) -> Result<Response<wire::BatchUpdateEntryResponse>, Status> {
        let by = caller(&request);
        let request = request.into_inner();
        bounded(request.entries.len())?;
        let input = request.input_mask;
        let (sound, flawed) =
            split(request.entries.into_iter().map(|entry| entry_patch(entry, input, &self.trust_domain)));
        let updated = self.store.update_entries(sound, self.trust_domain.clone()).await;
        let updated = updated.map_err(|error| store_failed(&error))?.into_iter().map(|outcome| {
            let (status, entry) = match outcome {
                Ok(entry) => {
                    tracing::info!(%by, entry = %entry.id, spiffe_id = %entry.spec.spiffe_id, "entry updated");
                    entry.spec.warn_of_doubts(self.ca_ttl);
                    (item_ok(), Some(entry_to_wire(&entry, request.output_mask.as_ref())))
                }
                Err(error) => (item_status(&write_failed(&error)), None),
            };
            wire::batch_update_entry_response::Result { status: Some(status), entry }
        });
        let flawed = flawed.map(|slot| {
            slot.map(|flaw| wire::batch_update_entry_response::Result {
                status: Some(item_status(&flaw)),
                entry: None,
            })
        });
        Ok(Response::new(wire::BatchUpdateEntryResponse { results: merge(flawed, updated) }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<wire::BatchDeleteEntryRequest>,
    ) -> Result<Response<wire::BatchDeleteEntryResponse>, Status> {
        let by = caller(&request);
        let ids = request.into_inner().ids;
        bounded(ids.len())?;
        let (sound, flawed) = split(ids.iter().map(|id| entry_id(id)));
        let deleted = self.store.delete_entries(sound).await.map_err(|error| store_failed(&error))?;
        let deleted = deleted.into_iter().map(|outcome| match outcome {
            Ok(()) => item_ok(),
            Err(error) => item_status(&write_failed(&error)),
        });
        let flawed = flawed.map(|slot| slot.map(|flaw| item_status(&flaw)));
        let statuses = merge(flawed, deleted);
        let results = ids.into_iter().zip(statuses).map(|(id, status)| {
            if status.code == 0 {
                tracing::info!(%by, entry = %id, "entry deleted");
            }
            wire::batch_delete_entry_response::Result { status: Some(status), id }
        });
        Ok(Response::new(wire::BatchDeleteEntryResponse { results: results.collect() }))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<wire::GetAuthorizedEntriesRequest>,
    ) -> Result<Response<wire::GetAuthorizedEntriesResponse>, Status> {
        let (agent, _) = calling_agent(&request)?;
        let mask = request.into_inner().output_mask;
        let entries = self.registry.read(|registry| registry.authorised(&agent));
        let entries = entries.values().map(|entry| entry_to_wire(entry, mask.as_ref())).collect();
        Ok(Response::new(wire::GetAuthorizedEntriesResponse { entries }))
    }

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<wire::SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        let (agent, _) = calling_agent(&request)?;
        let entries = self.registry.read(|registry| registry.authorised(&agent));
        Ok(Response::new(sync::responses(entries, request.into_inner())))
    }
}

impl Core {
    fn created_to_wire(
        &self,
        outcome: Result<Created, WriteError>,
        mask: Option<&types::EntryMask>,
        by: &str,
    ) -> wire::batch_create_entry_response::Result {
        let show = |entry: &Registered| Some(entry_to_wire(entry, mask));
        let (status, entry) = match outcome {
            Ok(Created::New(entry)) => {
                let (spiffe_id, parent) = (&entry.spec.spiffe_id, self.loggable(&entry.spec.parent_id));
                tracing::info!(%by, entry = %entry.id, %spiffe_id, %parent, "entry created");
                entry.spec.warn_of_doubts(self.ca_ttl);
                (item_ok(), show(&entry))
            }
            Ok(Created::Exists(entry)) => {
                (item_status(&Status::already_exists("similar entry already exists")), show(&entry))
            }
            Err(error) => (item_status(&write_failed(&error)), None),
        };
        wire::batch_create_entry_response::Result { status: Some(status), entry }
    }

    /// A parent for the log. An agent that has not attested is named by a token that is still worth something.
    fn loggable<'a>(&self, parent: &'a SpiffeId) -> &'a str {
        let unspent = parent.path().starts_with(JOIN_TOKEN_PATH)
            && self.registry.read(|registry| registry.node(parent).is_none());
        if unspent { "an agent that has not attested" } else { parent.as_str() }
    }
}

fn write_failed(error: &WriteError) -> Status {
    match error {
        WriteError::NotFound(_) => Status::not_found("entry not found"),
        WriteError::IdTaken(_) | WriteError::Similar(_) => Status::already_exists(error.to_string()),
        WriteError::OwnedByFiles(_) => Status::failed_precondition(error.to_string()),
        WriteError::Invalid(_) => Status::invalid_argument(error.to_string()),
        WriteError::Random(_) => Status::internal(error.to_string()),
        WriteError::Store(error) => store_failed(error),
    }
}

fn bounded(items: usize) -> Result<(), Status> {
    if items > MAX_BATCH {
        return Err(Status::invalid_argument(format!(
            "{items} items in one request, at most {MAX_BATCH} are allowed"
        )));
    }
    Ok(())
}

/// Sorts the sound items from the flawed, whose places are kept.
fn split<T>(items: impl Iterator<Item = Result<T, Status>>) -> (Vec<T>, Slots<Status>) {
    let (mut sound, mut slots) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Ok(item) => {
                sound.push(item);
                slots.push(None);
            }
            Err(flaw) => slots.push(Some(flaw)),
        }
    }
    (sound, Slots(slots))
}

/// One place per item of a batch; an empty one waits for an outcome.
struct Slots<T>(Vec<Option<T>>);

impl<T> Slots<T> {
    fn map<U>(self, change: impl FnMut(Option<T>) -> Option<U>) -> Slots<U> {
        Slots(self.0.into_iter().map(change).collect())
    }
}

/// Fills the empty places in order.
fn merge<T>(slots: Slots<T>, outcomes: impl Iterator<Item = T>) -> Vec<T> {
    let mut outcomes = outcomes;
    slots.0.into_iter().filter_map(|slot| slot.or_else(|| outcomes.next())).collect()
}

fn list_filter(filter: wire::count_entries_request::Filter) -> wire::list_entries_request::Filter {
    wire::list_entries_request::Filter {
        by_spiffe_id: filter.by_spiffe_id,
        by_parent_id: filter.by_parent_id,
        by_selectors: filter.by_selectors,
        by_federates_with: filter.by_federates_with,
        by_hint: filter.by_hint,
        by_downstream: filter.by_downstream,
    }
}

/// Most entries of one request.
const MAX_BATCH: usize = 1000;
