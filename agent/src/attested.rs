//! A caller of the Workload API's socket, attested when it asks and again whenever there is something to hand to it.

use tonic::{Request, Status};

use crate::attestor::{AttestError, Attestor, Depth, ProcessError};
use crate::health::{Figures, chain};
use crate::limits::{Gate, Pass};
use crate::selector::SelectorSet;
use crate::server::Caller;
use crate::state::{Phase, State};

/// The metadata key that every request carries.
pub(crate) const SECURITY_HEADER: &str = "workload.spiffe.io";

/// A caller, and what was seen of it last.
pub(crate) struct Attested {
    attestor: Attestor,
    caller: Caller,
    figures: Figures,
    seen: SelectorSet,
    depth: Option<Depth>,
}

/// What a stream takes up for as long as it is open.
pub(crate) struct Open {
    figures: Figures,
    _pass: Pass,
}

impl Attested {
    /// A caller of which nothing is known.
    pub(crate) fn new(attestor: Attestor, caller: Caller, figures: Figures) -> Self {
        Self { attestor, caller, figures, seen: SelectorSet::default(), depth: None }
    }

    /// Looks at the caller as deep as the entries of `state` ask for.
    pub(crate) async fn attest(&mut self, state: &State) -> Result<(), Status> {
        let depth = state.entries.depth();
        match self.attestor.attest(self.caller.process(), depth).await {
            Ok(seen) => {
                self.seen = seen;
                self.depth = Some(depth);
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Whether the caller was looked at as deep as the entries of `state` ask for.
    pub(crate) fn covers(&self, state: &State) -> bool {
        self.depth.is_some_and(|depth| depth.covers(state.entries.depth()))
    }

    /// What was seen last.
    pub(crate) fn seen(&self) -> &SelectorSet {
        &self.seen
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.caller.process().pid()
    }

    /// Where attestations are counted.
    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// A process that is not the one that connected gets a new connection, which is attested from the start.
    fn failed(&self, error: &AttestError) -> Status {
        self.figures.attested("failed");
        match error {
            AttestError::Process { source: ProcessError::Gone | ProcessError::OtherUser } => {
                tracing::debug!(pid = self.pid(), error = %chain(error), "connection ended");
                self.caller.retire();
            }
            _ => tracing::warn!(pid = self.pid(), error = %chain(error), "workload attestation failed"),
        }
        Status::unavailable("workload attestation failed; try again")
    }
}

impl Open {
    /// Counts a stream of `caller`, if it may open one more.
    pub(crate) fn enter(gate: &Gate, caller: &Caller, figures: Figures) -> Result<Self, Status> {
        let uid = caller.process().peer_uid().unwrap_or_default();
        let pass = gate.enter(uid).map_err(|error| {
            tracing::warn!(%error, "stream refused: too many");
            Status::unavailable("too many streams are open")
        })?;
        figures.streams.inc();
        Ok(Self { figures, _pass: pass })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.figures.streams.dec();
    }
}

/// Returns who calls, if the request says that it is no other program's doing.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    check_header(request)?;
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("connection without a caller"))
}

/// Workload Endpoint 4.1: exactly one value, exactly this one. It keeps requests that were forged through another
/// program, which cannot set metadata, from being answered.
pub(crate) fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    let mut values = request.metadata().get_all(SECURITY_HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_bytes() == b"true" => Ok(()),
        _ => Err(Status::invalid_argument("security header missing from request: workload.spiffe.io: true")),
    }
}

pub(crate) fn check_phase(state: &State) -> Result<(), Status> {
    match state.phase {
        Phase::Starting => Err(starting()),
        Phase::Stopping => Err(stopping()),
        Phase::Serving => Ok(()),
    }
}

pub(crate) fn starting() -> Status {
    Status::unavailable("the agent is starting; try again")
}

pub(crate) fn stopping() -> Status {
    Status::unavailable("the agent is going down; try again")
}

/// Clients look for these words to slow down.
pub(crate) fn no_identity() -> Status {
    Status::permission_denied("no identity issued")
}
