//! One stream to a sidecar: deliveries one after the other, each whole, each the newest there is.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::vouchsafe::v1::delivery::Step;
use proto::vouchsafe::v1::{
    DeliveredWorkload, DeliveryBegin, EndOfSet, NoPolicies, PolicyFile, WaitingForPolicies,
};
use tokio::sync::watch;
use tonic::Status;

use super::parcel::{Contents, Parcel, Workload};
use crate::attested::{Attested, Open, check_phase, no_identity, stopping};
use crate::policies::{Known, Presence};
use crate::state::State;
use crate::wire::policies;

/// The longest sleep. The wall clock may be set, which timers do not notice.
const MAX_SLEEP: Duration = Duration::from_secs(300);

/// One stream.
pub(super) struct Handout {
    attested: Attested,
    state: watch::Receiver<Arc<State>>,
    known: watch::Receiver<Arc<Known>>,
    base: Base,
    told: Option<Parcel>,
    queue: VecDeque<Next>,
    _open: (Open, Presence),
}

/// The files that the sidecar has for sure.
enum Base {
    /// Those that it said to hold.
    Held(HashSet<String>),
    /// Those of the delivery that ended last.
    Delivered(Contents),
}

/// A message that is made when its turn comes.
enum Next {
    Waiting,
    None,
    Begin,
    File(usize),
    End,
}

impl Handout {
    /// A stream on which nothing was sent.
    pub(super) fn new(
        attested: Attested,
        (state, known): (watch::Receiver<Arc<State>>, watch::Receiver<Arc<Known>>),
        held: &HashSet<String>,
        open: (Open, Presence),
    ) -> Self {
        let base = Base::Held(remembered(&attested, (&state.borrow(), &known.borrow()), held));
        Self { attested, state, known, base, told: None, queue: VecDeque::new(), _open: open }
    }

    /// Waits for the next message, or for the reason why there is none.
    pub(super) async fn next(&mut self) -> Result<Step, Status> {
        loop {
            let state = self.state.borrow_and_update().clone();
            let known = self.known.borrow_and_update().clone();
            check_phase(&state)?;
            if self.has_news(&state, &known) {
                self.attested.attest(&state).await?;
                let parcel = self.outline(&state, &known).ok_or_else(no_identity)?;
                if self.told.as_ref().is_none_or(|told| !parcel.says_the_same_as(told)) {
                    let parcel = parcel.packed();
                    self.queue = self.plan(&parcel);
                    self.told = Some(parcel);
                }
            }
            if let Some(step) = self.proceed() {
                return Ok(step);
            }
            tokio::select! {
                changed = self.state.changed() => changed.map_err(|_| stopping())?,
                changed = self.known.changed() => changed.map_err(|_| stopping())?,
                () = tokio::time::sleep(MAX_SLEEP) => {}
            }
        }
    }

    /// Tells whether the process has to be looked at again: what is known of it may give it something else.
    fn has_news(&self, state: &State, known: &Known) -> bool {
        let Some(told) = &self.told else { return true };
        if !self.attested.covers(state) {
            return true;
        }
        self.outline(state, known).is_none_or(|parcel| !parcel.says_the_same_as(told))
    }

    fn outline(&self, state: &State, known: &Known) -> Option<Parcel> {
        Parcel::outline(state, &known.policies, self.attested.seen(), SystemTime::now())
    }

    fn plan(&self, parcel: &Parcel) -> VecDeque<Next> {
        let contents = match parcel {
            Parcel::Waiting => return VecDeque::from([Next::Waiting]),
            Parcel::None => return VecDeque::from([Next::None]),
            Parcel::Set(contents) => contents,
        };
        let has: HashSet<&str> = match &self.base {
            Base::Held(held) => held.iter().map(String::as_str).collect(),
            Base::Delivered(before) => before.hashes().collect(),
        };
        let lacks = |at: &&usize| {
            contents.set.files.get(**at).is_some_and(|file| !has.contains(file.sha256.as_str()))
        };
        let files = contents.files.iter().filter(lacks).map(|at| Next::File(*at));
        std::iter::once(Next::Begin).chain(files).chain([Next::End]).collect()
    }

    fn proceed(&mut self) -> Option<Step> {
        let next = self.queue.pop_front()?;
        let contents = match (&self.told, &next) {
            (_, Next::Waiting) => return Some(Step::Waiting(WaitingForPolicies {})),
            (_, Next::None) => return Some(Step::None(NoPolicies {})),
            (Some(Parcel::Set(contents)), _) => contents,
            (Some(Parcel::Waiting | Parcel::None) | None, _) => return None,
        };
        match next {
            Next::Waiting | Next::None => None,
            Next::Begin => Some(Step::Begin(contents.begin())),
            Next::File(at) => {
                let file = contents.set.files.get(at)?;
                let (name, content) = (file.source.name.clone(), file.source.text.clone().into_bytes());
                Some(Step::File(PolicyFile { name, content }))
            }
            Next::End => {
                let number = contents.set.manifest.number();
                self.base = Base::Delivered(contents.clone());
                Some(Step::End(EndOfSet { number }))
            }
        }
    }
}

/// What a process says to hold, as far as it would be handed that: else anybody could fill the memory with hashes.
fn remembered(
    attested: &Attested,
    (state, known): (&State, &Known),
    held: &HashSet<String>,
) -> HashSet<String> {
    let parcel = Parcel::outline(state, &known.policies, attested.seen(), SystemTime::now());
    match parcel.map(Parcel::packed) {
        Some(Parcel::Set(contents)) => {
            contents.hashes().filter(|hash| held.contains(*hash)).map(ToOwned::to_owned).collect()
        }
        Some(Parcel::Waiting | Parcel::None) | None => HashSet::new(),
    }
}

impl Contents {
    fn hashes(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|at| self.set.files.get(*at)).map(|file| file.sha256.as_str())
    }

    fn begin(&self) -> DeliveryBegin {
        let names = self.files.iter().filter_map(|at| self.set.files.get(*at));
        DeliveryBegin {
            manifest: Some(policies::to_signed(&self.set.signed)),
            files: names.map(|file| file.source.name.clone()).collect(),
            workloads: self.workloads.iter().map(to_workload).collect(),
        }
    }
}

fn to_workload(workload: &Workload) -> DeliveredWorkload {
    DeliveredWorkload {
        spiffe_id: workload.id.to_string(),
        namespace: workload.namespace.clone(),
        labels: workload.labels.clone().into_iter().collect(),
    }
}
