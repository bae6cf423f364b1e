//! Fetching the entries of the node from a CA that does not push: only those that changed, where the CA can tell.

use std::collections::BTreeSet;

use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{
    EntryRevision, GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use proto::spire::api::types;
use proto::vouchsafe::v1::AuthorizedEntries;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{CallError, MAX_MESSAGE_BYTES, Upstream, call, timed};
use crate::entry::Entries;

/// The most entries that a CA may give to one node.
pub(super) const MAX_ENTRIES: usize = 250_000;

/// The entries that the agent has, by which the CA can leave them out.
pub(crate) struct Known<'a>(pub &'a Entries);

impl Upstream {
    /// Fetches what changed since `known`, with the methods that spire-agent uses.
    pub(crate) async fn entries(&self, known: Known<'_>) -> Result<AuthorizedEntries, CallError> {
        match timed(self.sync_entries(&known)).await {
            Err(CallError::Unimplemented) => self.all_entries().await,
            synced => synced,
        }
    }

    async fn all_entries(&self) -> Result<AuthorizedEntries, CallError> {
        let mut client = self.entry_client();
        let response = call(client.get_authorized_entries(GetAuthorizedEntriesRequest::default())).await?;
        complete(response.entries)
    }

    async fn sync_entries(&self, known: &Known<'_>) -> Result<AuthorizedEntries, CallError> {
        let (requests, queue) = mpsc::channel(1);
        send(&requests, Vec::new()).await?;
        let mut answers =
            self.entry_client().sync_authorized_entries(ReceiverStream::new(queue)).await?.into_inner();
        let first = answer(&mut answers).await?;
        // A short list comes whole; of a long one the revisions come, and the entries on request.
        if first.entry_revisions.is_empty() {
            let (mut entries, mut more) = (first.entries, first.more);
            while more {
                let page = answer(&mut answers).await?;
                entries.extend(page.entries);
                more = page.more;
                check_count(entries.len())?;
            }
            return complete(entries);
        }
        let (mut revisions, mut more) = (first.entry_revisions, first.more);
        while more {
            let page = answer(&mut answers).await?;
            revisions.extend(page.entry_revisions);
            more = page.more;
            check_count(revisions.len())?;
        }
        let wanted = known.stale(&revisions);
        let mut changed = Vec::with_capacity(wanted.len());
        if !wanted.is_empty() {
            send(&requests, wanted).await?;
            more = true;
        }
        while more {
            let page = answer(&mut answers).await?;
            changed.extend(page.entries);
            more = page.more;
            check_count(changed.len())?;
        }
        let removed = known.gone(&revisions);
        Ok(AuthorizedEntries { complete: false, changed, removed, bundle: None })
    }

    fn entry_client(&self) -> EntryClient<tonic::transport::Channel> {
        EntryClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

impl Known<'_> {
    /// Returns the ids of entries that are new or were changed.
    fn stale(&self, revisions: &[EntryRevision]) -> Vec<String> {
        let is_stale = |revision: &&EntryRevision| {
            self.0.get(&revision.id).is_none_or(|entry| {
                (entry.revision, entry.created_at) != (revision.revision_number, revision.created_at)
            })
        };
        revisions.iter().filter(is_stale).map(|revision| revision.id.clone()).collect()
    }

    /// Returns the ids of entries that the CA does not list.
    fn gone(&self, revisions: &[EntryRevision]) -> Vec<String> {
        let listed: BTreeSet<&str> = revisions.iter().map(|revision| revision.id.as_str()).collect();
        self.0
            .iter()
            .filter(|entry| !listed.contains(entry.id.as_str()))
            .map(|entry| entry.id.clone())
            .collect()
    }
}

fn complete(entries: Vec<types::Entry>) -> Result<AuthorizedEntries, CallError> {
    check_count(entries.len())?;
    Ok(AuthorizedEntries { complete: true, changed: entries, removed: Vec::new(), bundle: None })
}

fn check_count(count: usize) -> Result<(), CallError> {
    if count > MAX_ENTRIES {
        Err(CallError::Unexpected { what: "more entries than a node can serve" })
    } else {
        Ok(())
    }
}

async fn send(
    requests: &mpsc::Sender<SyncAuthorizedEntriesRequest>,
    ids: Vec<String>,
) -> Result<(), CallError> {
    let request = SyncAuthorizedEntriesRequest { output_mask: None, ids };
    requests.send(request).await.map_err(|_| CallError::Unexpected { what: "the end of the stream" })
}

async fn answer(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
) -> Result<SyncAuthorizedEntriesResponse, CallError> {
    answers.message().await?.ok_or(CallError::Unexpected { what: "the end of the stream" })
}
