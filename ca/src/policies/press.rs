//! Signs the set in force and shows it: when it is new, and again with every new certificate of the signer.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{Numbered, Published, SignSetError, SignedSet, Signer};
use crate::{authority::Authority, store::PolicySetRecord};

/// The one that shows sets of one kind.
pub(crate) struct Press {
    signer: Signer,
    set: Option<Arc<Numbered>>,
    published: watch::Sender<Published>,
}

impl Press {
    /// Shows `first` until a set is signed; begins with the set that is stored.
    pub(crate) fn new(
        signer: Signer,
        first: Published,
        stored: Option<PolicySetRecord>,
    ) -> (Self, watch::Receiver<Published>) {
        let (published, receiver) = watch::channel(first);
        let set = stored.map(|record| Arc::new(Numbered::of(record)));
        (Self { signer, set, published }, receiver)
    }

    /// The set in force.
    pub(crate) fn set(&self) -> Option<&Arc<Numbered>> {
        self.set.as_ref()
    }

    /// Takes what may become a set. One that cannot be signed must not get a number.
    pub(crate) fn trial(&self, record: PolicySetRecord, now: SystemTime) -> Result<Numbered, SignSetError> {
        let trial = Numbered::of(record);
        self.signer.sign(&trial, now)?;
        Ok(trial)
    }

    /// Puts a set in force, which is not shown yet.
    pub(crate) fn put(&mut self, set: Numbered) {
        self.set = Some(Arc::new(set));
    }

    /// Signs the set in force where it is new, or the signer's certificate is.
    pub(crate) fn publish(&mut self, authority: &Authority, now: SystemTime) -> Result<(), SignSetError> {
        let Some(set) = &self.set else { return Ok(()) };
        let renewed = self.signer.certify(authority, now)?;
        let current =
            matches!(&*self.published.borrow(), Published::Set(held) if Arc::ptr_eq(&held.set, set));
        if !current || renewed {
            let signed = self.signer.sign(set, now)?;
            self.published.send_replace(Published::Set(Arc::new(SignedSet { set: set.clone(), signed })));
        }
        Ok(())
    }

    /// Waits until the signer needs a new certificate.
    pub(crate) fn renewal(&self, authority: &Authority) -> impl Future<Output = ()> + use<> {
        let due = self.signer.renewal(authority);
        let wait =
            due.map(|due| due.duration_since(SystemTime::now()).unwrap_or_default().max(SHORTEST_WAIT));
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => pending().await,
            }
        }
    }
}

/// A certificate whose renewal is overdue is not asked for more often.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
