//! Who puts in force what was verified: the loader of policies, or the table of services.

use std::{future::pending, sync::Arc};

use identity::{SpiffeId, manifest::Kind};
use tokio::sync::{mpsc, oneshot};

use crate::{
    policies::{Central, Delivered},
    services::central,
    shared::Shared,
    state::Part,
};

/// Who takes sets of one kind.
#[derive(Clone)]
pub(super) enum Taker {
    /// The loader of policies.
    Policies(mpsc::Sender<Delivered>),
    /// The table of services.
    Services,
}

impl Taker {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Policies(_) => Kind::Policies,
            Self::Services => Kind::Services,
        }
    }

    /// What is unwell while no good set comes.
    pub(super) fn part(&self) -> Part {
        match self {
            Self::Policies(_) => Part::PolicyDelivery,
            Self::Services => Part::ServiceDelivery,
        }
    }

    /// Waits until nobody takes sets any more.
    pub(super) async fn closed(&self) {
        match self {
            Self::Policies(deliveries) => deliveries.closed().await,
            Self::Services => pending().await,
        }
    }

    /// Puts a set in force for the sidecar of `own`, whole, or says why not.
    pub(super) async fn take(
        &self,
        central: &Arc<Central>,
        own: &SpiffeId,
        shared: &Shared,
    ) -> Result<(), String> {
        match self {
            Self::Policies(deliveries) => load(deliveries, central).await,
            Self::Services => central::put(central, own, shared).map_err(|flaw| flaw.to_string()),
        }
    }
}

async fn load(deliveries: &mpsc::Sender<Delivered>, central: &Arc<Central>) -> Result<(), String> {
    let (reply, told) = oneshot::channel();
    let stopping = || "the sidecar is stopping".to_owned();
    deliveries.send(Delivered { central: Arc::clone(central), reply }).await.map_err(|_| stopping())?;
    let outcome = told.await.map_err(|_| stopping())?;
    outcome.refusal.map_or(Ok(()), Err)
}
