//! SyncAuthorizedEntries: everything at once while it is little, else revisions first and entries as asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::Arc,
};

use futures_util::{Stream, stream};
use proto::spire::api::{
    server::entry::v1::{EntryRevision, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse},
    types::EntryMask,
};
use tonic::{Status, Streaming};

use crate::{
    model::{Entry, EntryId},
    wire::entry_to_wire,
};

/// The answers of one exchange. They speak of the entries as they were when it began.
pub(crate) struct Responses(
    Pin<Box<dyn Stream<Item = Result<SyncAuthorizedEntriesResponse, Status>> + Send>>,
);

impl Stream for Responses {
    type Item = Result<SyncAuthorizedEntriesResponse, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// Begins an exchange about `entries`.
pub(super) fn responses(
    entries: BTreeMap<EntryId, Arc<Entry>>,
    requests: Streaming<SyncAuthorizedEntriesRequest>,
) -> Responses {
    let exchange = Exchange { entries, mask: None, state: State::Opening, ready: VecDeque::new() };
    let stream = stream::unfold(Some((exchange, requests)), |open| async move {
        let (mut exchange, mut requests) = open?;
        loop {
            if let Some(response) = exchange.ready.pop_front() {
                return Some((Ok(response), Some((exchange, requests))));
            }
            if exchange.state == State::Done {
                return None;
            }
            let taken = match requests.message().await {
                Ok(Some(request)) => exchange.take(request),
                Ok(None) => return None,
                Err(status) => Err(status),
            };
            if let Err(status) = taken {
                return Some((Err(status), None));
            }
        }
    });
    Responses(Box::pin(stream))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Serving,
    Done,
}

/// The exchange without its connection.
struct Exchange {
    entries: BTreeMap<EntryId, Arc<Entry>>,
    mask: Option<EntryMask>,
    state: State,
    ready: VecDeque<SyncAuthorizedEntriesResponse>,
}

impl Exchange {
    fn take(&mut self, request: SyncAuthorizedEntriesRequest) -> Result<(), Status> {
        match self.state {
            State::Opening => self.open(request),
            State::Serving => self.serve(request),
            State::Done => Ok(()),
        }
    }

    fn open(&mut self, request: SyncAuthorizedEntriesRequest) -> Result<(), Status> {
        if !request.ids.is_empty() {
            return Err(Status::invalid_argument("specifying IDs on initial request is not supported"));
        }
        if request.output_mask.is_some_and(|mask| !mask.revision_number) {
            return Err(Status::invalid_argument("revision number cannot be masked"));
        }
        self.mask = request.output_mask;
        if self.entries.len() <= PAGE {
            let entries =
                self.entries.values().map(|entry| entry_to_wire(entry, self.mask.as_ref())).collect();
            self.ready.push_back(SyncAuthorizedEntriesResponse { entries, ..Default::default() });
            self.state = State::Done;
            return Ok(());
        }
        let revisions: Vec<_> = self.entries.values().map(|entry| revision(entry)).collect();
        self.ready = pages(&revisions, |entry_revisions, more| SyncAuthorizedEntriesResponse {
            entry_revisions,
            more,
            ..Default::default()
        });
        self.state = State::Serving;
        Ok(())
    }

    fn serve(&mut self, request: SyncAuthorizedEntriesRequest) -> Result<(), Status> {
        // The mask of the first request holds for the whole exchange; a later one is ignored, as SPIRE does.
        if request.ids.len() > self.entries.len() {
            return Err(Status::invalid_argument("more entries are asked for than there are"));
        }
        // Entries that the agent may not have are left out, as if they did not exist.
        let asked =
            request.ids.iter().filter_map(|id| EntryId::parse(id)).filter_map(|id| self.entries.get(&id));
        let entries: Vec<_> = asked.map(|entry| entry_to_wire(entry, self.mask.as_ref())).collect();
        self.ready = pages(&entries, |entries, more| SyncAuthorizedEntriesResponse {
            entries,
            more,
            ..Default::default()
        });
        Ok(())
    }
}

fn revision(entry: &Entry) -> EntryRevision {
    EntryRevision { id: entry.id.to_string(), revision_number: entry.revision, created_at: entry.created_at }
}

/// Cuts `items` into pages; there is always one, and only the last has nothing after it.
fn pages<T: Clone, P>(items: &[T], page: impl Fn(Vec<T>, bool) -> P) -> VecDeque<P> {
    let chunks: Vec<_> = items.chunks(PAGE).collect();
    if chunks.is_empty() {
        return VecDeque::from([page(Vec::new(), false)]);
    }
    let last = chunks.len() - 1;
    chunks.into_iter().enumerate().map(|(at, chunk)| page(chunk.to_vec(), at < last)).collect()
}

/// SPIRE's page.
const PAGE: usize = 500;

#[cfg(test)]
mod tests {
    use identity::SpiffeId;

    use super::*;
    use crate::model::{EntrySpec, Origin, Selector};

    #[test]
    fn a_page_full_of_entries_is_sent_whole_and_ends_the_exchange() {
        let mut exchange = exchange(PAGE);

        exchange.take(SyncAuthorizedEntriesRequest::default()).unwrap();

        assert_eq!(exchange.ready.len(), 1);
        assert_eq!(exchange.ready[0].entries.len(), PAGE);
        assert!(!exchange.ready[0].more);
        assert_eq!(exchange.state, State::Done);
    }

    #[test]
    fn more_than_a_page_is_sent_as_revisions_first() {
        let mut exchange = exchange(2 * PAGE + 1);

        exchange.take(SyncAuthorizedEntriesRequest::default()).unwrap();

        let shape: Vec<_> =
            exchange.ready.iter().map(|page| (page.entry_revisions.len(), page.more)).collect();
        assert_eq!(shape, [(PAGE, true), (PAGE, true), (1, false)]);
        assert!(exchange.ready.iter().all(|page| page.entries.is_empty()));
    }

    #[test]
    fn entries_asked_for_come_in_pages_and_strangers_are_left_out() {
        let mut exchange = opened(PAGE + 10);
        let mut ids: Vec<String> = (0..PAGE + 5).map(name).collect();
        ids.push("stranger".into());

        exchange.take(SyncAuthorizedEntriesRequest { ids, output_mask: None }).unwrap();

        let shape: Vec<_> = exchange.ready.iter().map(|page| (page.entries.len(), page.more)).collect();
        assert_eq!(shape, [(PAGE, true), (5, false)]);
    }

    #[test]
    fn a_request_for_strangers_only_is_still_answered() {
        let mut exchange = opened(PAGE + 1);

        exchange
            .take(SyncAuthorizedEntriesRequest { ids: vec!["stranger".into()], output_mask: None })
            .unwrap();

        assert_eq!(exchange.ready, [SyncAuthorizedEntriesResponse::default()]);
    }

    #[test]
    fn broken_protocol_is_refused() {
        let mask = Some(EntryMask { spiffe_id: true, ..Default::default() });
        let first = SyncAuthorizedEntriesRequest { ids: vec!["a".into()], output_mask: None };
        assert!(exchange(1).take(first).is_err());
        let masked = SyncAuthorizedEntriesRequest { ids: vec![], output_mask: mask };
        assert!(exchange(1).take(masked).is_err());
        let greedy = SyncAuthorizedEntriesRequest { ids: vec![name(0); PAGE + 2], output_mask: None };
        assert!(opened(PAGE + 1).take(greedy).is_err());
    }

    fn opened(entries: usize) -> Exchange {
        let mut exchange = exchange(entries);
        exchange.take(SyncAuthorizedEntriesRequest::default()).unwrap();
        exchange.ready.clear();
        exchange
    }

    fn exchange(entries: usize) -> Exchange {
        let entries = (0..entries).map(|n| {
            let id = EntryId::parse(&name(n)).unwrap();
            let spec = EntrySpec::new(
                SpiffeId::parse("spiffe://prod.test/web").unwrap(),
                SpiffeId::parse("spiffe://prod.test/node").unwrap(),
                vec![Selector::parse(&format!("unix:uid:{n}")).unwrap()],
            );
            (id.clone(), Arc::new(Entry { id, spec, revision: 1, created_at: 2, origin: Origin::Api }))
        });
        Exchange { entries: entries.collect(), mask: None, state: State::Opening, ready: VecDeque::new() }
    }

    fn name(n: usize) -> String {
        format!("e{n:05}")
    }
}
