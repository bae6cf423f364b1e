//! `vouchsafe.v1.Policy`: the set of policies, pushed to agents, and what they tell of it.

use std::{
    collections::{HashSet, VecDeque},
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, stream};
use identity::crypto::hex;
use proto::vouchsafe::v1::{
    EndOfSet, ListStatusRequest, NoPolicies, PolicyFile, PolicyUpdate, ReportStatusRequest,
    ReportStatusResponse, StatusItem, WatchPoliciesRequest, policy_server::Policy, policy_update::Step,
    status_item::Item,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    Core, Sets, calling_agent,
    lasting::{GATHER, Lasting},
};
use crate::{
    health::Part,
    policies::{
        Published, SignedSet,
        status::{AgentRow, Board, HandedOut, Stream as Counted},
    },
    wire::policies::{row_to_wire, signed_to_wire, summary_to_wire, told},
};

/// The messages of a stream.
pub(crate) struct Messages<T>(Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>);

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

#[tonic::async_trait]
impl Policy for Core {
    type WatchPoliciesStream = Messages<PolicyUpdate>;
    type ListStatusStream = Messages<StatusItem>;

    async fn watch_policies(
        &self,
        request: Request<WatchPoliciesRequest>,
    ) -> Result<Response<Self::WatchPoliciesStream>, Status> {
        watch_sets(self, request, &self.policies)
    }

    async fn report_status(
        &self,
        request: Request<ReportStatusRequest>,
    ) -> Result<Response<ReportStatusResponse>, Status> {
        keep_report(self, request, &self.policies.board)
    }

    async fn list_status(
        &self,
        _: Request<ListStatusRequest>,
    ) -> Result<Response<Self::ListStatusStream>, Status> {
        Ok(status_items(self, &self.policies, Part::Policies))
    }
}

/// Opens a stream on which an agent is pushed every one of `sets`.
pub(super) fn watch_sets(
    core: &Core,
    request: Request<WatchPoliciesRequest>,
    sets: &Sets,
) -> Result<Response<Messages<PolicyUpdate>>, Status> {
    let lasting = Lasting::of(core, &request)?;
    let held = request.into_inner().held;
    if held.len() > policy::MAX_FILES || held.iter().any(|hash| hash.len() != 32) {
        return Err(Status::invalid_argument("held: not a list of SHA-256"));
    }
    let handout = Handout {
        _counted: sets.board.open(&lasting.agent),
        lasting,
        base: Base::of(&sets.published.borrow(), &held),
        policies: sets.published.clone(),
        told: Told::Nothing,
        queue: VecDeque::new(),
    };
    let messages = stream::unfold(Some(handout), |handout| async move {
        let mut handout = handout?;
        match handout.next().await {
            Ok(step) => Some((Ok(PolicyUpdate { step: Some(step) }), Some(handout))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(Response::new(Messages(Box::pin(messages))))
}

/// Keeps what an agent tells on `board`.
pub(super) fn keep_report(
    core: &Core,
    request: Request<ReportStatusRequest>,
    board: &Board,
) -> Result<Response<ReportStatusResponse>, Status> {
    let (agent, _) = calling_agent(&request)?;
    let told = told(request.into_inner())?;
    let known = |id: &identity::SpiffeId| core.registry.read(|registry| registry.node(id).is_some());
    board.tell(&agent, told, known).map_err(|error| {
        tracing::warn!(%agent, %error, "what an agent told of its sidecars was not kept");
        Status::resource_exhausted(error.to_string())
    })?;
    Ok(Response::new(ReportStatusResponse {}))
}

/// Says which of `sets` is handed out, and who runs which.
pub(super) fn status_items(core: &Core, sets: &Sets, part: Part) -> Response<Messages<StatusItem>> {
    let handed_out = match &*sets.published.borrow() {
        Published::None => HandedOut::Nothing,
        Published::Pending => HandedOut::Pending,
        Published::Set(held) => HandedOut::Set { set: held.set.seen.clone(), since: held.set.since },
    };
    let flaw = core.health.flaw_of(part).unwrap_or_default();
    let summary = StatusItem { item: Some(Item::Summary(summary_to_wire(&handed_out, flaw))) };
    let board = sets.board.clone();
    let agents = core.registry.read(crate::registry::Registry::active_agents);
    let row = move |id| {
        let row: AgentRow = board.row(&id);
        Ok(StatusItem { item: Some(Item::Agent(row_to_wire(row))) })
    };
    let items = std::iter::once(Ok(summary)).chain(agents.into_iter().map(row));
    Response::new(Messages(Box::pin(stream::iter(items))))
}

/// What one agent is handed.
struct Handout {
    lasting: Lasting,
    _counted: Counted,
    policies: watch::Receiver<Published>,
    base: Base,
    told: Told,
    queue: VecDeque<Next>,
}

/// The files that the agent has for sure.
enum Base {
    /// Those of this set that it said to hold.
    Held(Arc<SignedSet>, Vec<bool>),
    /// None.
    Nothing,
    /// Those of the set that ended last on this stream.
    Set(Arc<SignedSet>),
}

impl Base {
    /// What the agent said to hold is remembered as far as it is in the set: else an agent could fill the memory with hashes.
    fn of(published: &Published, held: &[Vec<u8>]) -> Self {
        let Published::Set(set) = published else { return Self::Nothing };
        let held: HashSet<String> = held.iter().map(|hash| hex(hash)).collect();
        let has = set.set.files.iter().map(|(file, _)| held.contains(file.sha256())).collect();
        Self::Held(set.clone(), has)
    }

    fn has(&self) -> HashSet<&str> {
        match self {
            Self::Nothing => HashSet::new(),
            Self::Set(set) => set.set.files.iter().map(|(file, _)| file.sha256()).collect(),
            Self::Held(set, has) => {
                let files = set.set.files.iter().zip(has).filter(|(_, has)| **has);
                files.map(|((file, _), _)| file.sha256()).collect()
            }
        }
    }
}

/// What the agent was told last.
enum Told {
    Nothing,
    None,
    Set(Arc<SignedSet>),
}

/// A message that is made when its turn comes.
enum Next {
    Manifest,
    File(usize),
    End,
}

impl Handout {
    async fn next(&mut self) -> Result<Step, Status> {
        loop {
            self.lasting.check()?;
            if let Some(step) = self.begin().or_else(|| self.proceed()) {
                return Ok(step);
            }
            self.wait().await?;
        }
    }

    /// Begins what is new, also in the middle of a set that is not the newest any more.
    fn begin(&mut self) -> Option<Step> {
        let published = self.policies.borrow_and_update().clone();
        match published {
            Published::Pending => None,
            Published::None if matches!(self.told, Told::None) => None,
            Published::None => {
                self.told = Told::None;
                self.queue.clear();
                Some(Step::None(NoPolicies {}))
            }
            Published::Set(set) if matches!(&self.told, Told::Set(told) if Arc::ptr_eq(told, &set)) => None,
            Published::Set(set) => {
                self.queue = self.plan(&set);
                self.told = Told::Set(set);
                None
            }
        }
    }

    fn plan(&self, set: &SignedSet) -> VecDeque<Next> {
        let has = self.base.has();
        let lacking = set.set.files.iter().enumerate().filter(|(_, (file, _))| !has.contains(file.sha256()));
        let files = lacking.map(|(at, _)| Next::File(at));
        std::iter::once(Next::Manifest).chain(files).chain([Next::End]).collect()
    }

    fn proceed(&mut self) -> Option<Step> {
        let Told::Set(set) = &self.told else { return None };
        match self.queue.pop_front()? {
            Next::Manifest => Some(Step::Manifest(signed_to_wire(&set.signed))),
            Next::File(at) => {
                let (_, file) = set.set.files.get(at)?;
                Some(Step::File(PolicyFile {
                    name: file.name.clone(),
                    content: file.text.clone().into_bytes(),
                }))
            }
            Next::End => {
                let number = set.set.seen.number;
                self.base = Base::Set(set.clone());
                Some(Step::End(EndOfSet { number }))
            }
        }
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let policies = &mut self.policies;
        let news = async move {
            // Without policies in the configuration nobody publishes, and nothing ever changes.
            if policies.changed().await.is_err() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = news => {}
            changed = self.lasting.changed() => changed?,
        }
        tokio::time::sleep(GATHER).await;
        self.lasting.check()
    }
}
