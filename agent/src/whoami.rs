//! `vouchsafe.v1.Workload/WhoAmI`: how the agent sees a process, and what keeps it from matching.

use std::sync::Arc;
use std::time::SystemTime;

use proto::vouchsafe::v1::workload_server::{Workload, WorkloadServer};
use proto::vouchsafe::v1::{MatchingEntry, NearMiss, WhoAmIRequest, WhoAmIResponse};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::attestor::{AttestError, Attestor, Depth, Process, ProcessError};
use crate::entry::Entry;
use crate::health::chain;
use crate::limits::MAX_REQUEST_BYTES;
use crate::matching::{Nearness, matches, near_misses};
use crate::selector::SelectorSet;
use crate::server::Caller;
use crate::state::{Phase, State};
use crate::wire::{to_selector, unix_seconds};

/// About whom a socket answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The caller, and of the entries only those that share a selector with it.
    Caller,
    /// Any process of the node, and every entry.
    Anybody,
}

/// Serves `WhoAmI`.
pub(crate) struct WhoAmI {
    state: watch::Receiver<Arc<State>>,
    attestor: Attestor,
    scope: Scope,
}

impl WhoAmI {
    /// Creates the service.
    pub(crate) fn new(state: watch::Receiver<Arc<State>>, attestor: Attestor, scope: Scope) -> Self {
        Self { state, attestor, scope }
    }

    /// Returns the gRPC service with its limits.
    pub(crate) fn into_service(self) -> WorkloadServer<Self> {
        WorkloadServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn process(&self, pid: i32, caller: &Caller) -> Result<Arc<Process>, Status> {
        match (self.scope, u32::try_from(pid)) {
            (_, Ok(0)) => Ok(caller.process().clone()),
            (Scope::Caller, _) => Err(Status::permission_denied(
                "this socket answers about the caller only; use the agent's admin socket",
            )),
            (Scope::Anybody, Err(_)) => Err(Status::invalid_argument("a pid is a positive number")),
            (Scope::Anybody, Ok(pid)) => {
                tracing::info!(pid, by = caller.process().pid(), uid = ?caller.process().peer_uid(), "asked about a process");
                Process::open(pid).map(Arc::new).map_err(|error| match error {
                    ProcessError::Gone => Status::not_found(format!("there is no process {pid}")),
                    error => Status::unavailable(chain(&error)),
                })
            }
        }
    }
}

#[tonic::async_trait]
impl Workload for WhoAmI {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::internal("connection without a caller"))?;
        let process = self.process(request.get_ref().pid, &caller)?;
        let seen =
            self.attestor.attest(&process, Depth::ALL).await.map_err(|error| failed(&error, &caller))?;
        let state = self.state.borrow().clone();
        match state.phase {
            Phase::Serving => Ok(Response::new(answer(&state, &seen, &process, self.scope))),
            Phase::Starting | Phase::Stopping => {
                Err(Status::unavailable("the agent does not know its entries yet; try again"))
            }
        }
    }
}

fn failed(error: &AttestError, caller: &Caller) -> Status {
    match error {
        AttestError::Process { source: ProcessError::OtherUser } => {
            caller.retire();
            Status::unavailable("the process changed its user since it connected; connect again")
        }
        AttestError::Process { source: ProcessError::Gone } => Status::not_found("the process has exited"),
        error => Status::unavailable(chain(error)),
    }
}

fn answer(state: &State, seen: &SelectorSet, process: &Process, scope: Scope) -> WhoAmIResponse {
    let now = SystemTime::now();
    let nearness = match scope {
        Scope::Caller => Nearness::SharesSelector,
        Scope::Anybody => Nearness::Any,
    };
    WhoAmIResponse {
        pid: i32::try_from(process.pid()).unwrap_or_default(),
        selectors: seen.iter().map(to_selector).collect(),
        matches: matches(&state.entries, seen, now).iter().map(|entry| matching(state, entry, now)).collect(),
        near_misses: near_misses(&state.entries, seen, nearness, now).iter().map(near_miss).collect(),
        agent_id: state.agent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn matching(state: &State, entry: &Entry, now: SystemTime) -> MatchingEntry {
    MatchingEntry {
        entry_id: entry.id.clone(),
        spiffe_id: entry.spiffe_id.to_string(),
        selectors: entry.selectors.iter().map(to_selector).collect(),
        svid_expires_at: state.svid_for(entry, now).map_or(0, |held| unix_seconds(held.svid.not_after())),
    }
}

fn near_miss(miss: &crate::matching::NearMiss) -> NearMiss {
    NearMiss {
        entry_id: miss.entry.id.clone(),
        spiffe_id: miss.entry.spiffe_id.to_string(),
        missing: miss.missing.iter().map(to_selector).collect(),
    }
}
