//! Services beside policies: the two kinds of central sets that the agent follows, each with a number, a sealed file and
//! sidecars of its own.

use std::convert::Infallible;
use std::sync::Arc;

use identity::TrustDomain;
use identity::manifest::Kind;
use tokio::sync::watch;

use crate::health::Figures;
use crate::policies::Follower;
use crate::state::State;
use crate::store::Store;
use crate::upstream::Upstream;

/// Who follows what the CA hands out, kind by kind: what is wrong with the sets of one kind holds up none of the other.
pub(crate) struct Followers {
    policies: Arc<Follower>,
    services: Arc<Follower>,
}

impl Followers {
    /// Begins with what was kept on disk.
    pub(crate) fn open(
        trust_domain: &TrustDomain,
        store: &Arc<Store>,
        state: &watch::Receiver<Arc<State>>,
        figures: &Figures,
    ) -> Self {
        let follower = |kind| {
            let (domain, figures) = (trust_domain.clone(), figures.clone());
            Arc::new(Follower::of(kind, domain, store.clone(), state.clone(), figures))
        };
        Self { policies: follower(Kind::Policies), services: follower(Kind::Services) }
    }

    /// Each of them.
    pub(crate) fn all(&self) -> [Arc<Follower>; 2] {
        [self.policies.clone(), self.services.clone()]
    }

    /// Forgets how new sets have to be: an administrator let this node in afresh.
    pub(crate) async fn begin_anew(&self) {
        for follower in self.all() {
            follower.begin_anew().await;
        }
    }

    /// Forgets everything: the node was banned.
    pub(crate) fn forget(&self) {
        for follower in self.all() {
            follower.forget();
        }
    }

    /// Follows the CA at the other end of `upstream`, and never returns.
    pub(crate) async fn follow(&self, upstream: &Upstream) -> Infallible {
        tokio::select! {
            never = self.policies.follow(upstream) => never,
            never = self.services.follow(upstream) => never,
        }
    }
}

#[cfg(test)]
mod tests;
