//! The identity from a Workload API stream, kept open for as long as the proxy runs.

use std::{sync::Arc, time::Duration};

use identity::{Credentials, SpiffeId, X509Svid, crypto, rotation::Backoff};
use tokio::sync::mpsc;

use super::{SourceError, Update};
use crate::workload_api::{ChooseError, Client, Endpoint, WorkloadApiError, X509Update};

pub(super) async fn watch(endpoint: &Endpoint, wanted: Option<&SpiffeId>, updates: &mpsc::Sender<Update>) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut held = None;
    loop {
        let error = tokio::select! {
            error = follow(endpoint, wanted, updates, &mut held, &mut backoff) => error,
            () = updates.closed() => return,
        };
        let update = if error.withdraws() {
            held = None;
            Update::Withdrawn(error.into())
        } else {
            Update::Failed(error.into())
        };
        if updates.send(update).await.is_err() {
            return;
        }
        // Without randomness the longest wait is the safe one: nobody is hurried.
        tokio::time::sleep(backoff.next(crypto::random_fraction().unwrap_or(1.0))).await;
    }
}

/// Follows one stream to its end and says why it ended.
async fn follow(
    endpoint: &Endpoint,
    wanted: Option<&SpiffeId>,
    updates: &mpsc::Sender<Update>,
    held: &mut Option<Arc<Credentials>>,
    backoff: &mut Backoff,
) -> WorkloadApiError {
    let mut stream = match open(endpoint).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    loop {
        let update = match stream.next().await {
            Ok(update) => update,
            Err(error) => return error,
        };
        backoff.reset();
        let update = match credentials(&update, wanted, held.as_deref()) {
            Ok((credentials, crowd)) => {
                let credentials = Arc::new(credentials);
                *held = Some(Arc::clone(&credentials));
                match crowd {
                    None => Update::Credentials(credentials),
                    Some(offered) => Update::Crowded { credentials, offered: offered.into() },
                }
            }
            // The answer is complete: an identity that is not in it is withdrawn.
            Err(error) => {
                *held = None;
                Update::Withdrawn(error)
            }
        };
        if updates.send(update).await.is_err() {
            return WorkloadApiError::Ended;
        }
    }
}

async fn open(endpoint: &Endpoint) -> Result<crate::workload_api::X509Updates, WorkloadApiError> {
    Client::connect(endpoint).await?.watch_x509().await
}

fn credentials(
    update: &X509Update,
    wanted: Option<&SpiffeId>,
    held: Option<&Credentials>,
) -> Result<(Credentials, Option<ChooseError>), SourceError> {
    let (svid, crowd) = choose(update, wanted, held)?;
    let bundles = update.bundles.clone();
    let credentials = match held {
        Some(held) => held.renew(svid, bundles),
        None => Credentials::new(svid, bundles),
    };
    Ok((credentials?, crowd))
}

/// Stays with the identity in use where others come beside it: a new entry elsewhere stops no running workload.
fn choose(
    update: &X509Update,
    wanted: Option<&SpiffeId>,
    held: Option<&Credentials>,
) -> Result<(Arc<X509Svid>, Option<ChooseError>), ChooseError> {
    match update.choose(wanted) {
        Ok(svid) => Ok((Arc::clone(svid), None)),
        Err(ambiguous @ ChooseError::Ambiguous { .. }) => {
            let used = held.map(|held| held.svid().id());
            match update.svids.iter().find(|svid| Some(svid.id()) == used) {
                Some(svid) => Ok((Arc::clone(svid), Some(ambiguous))),
                None => Err(ambiguous),
            }
        }
        Err(missing @ ChooseError::Missing { .. }) => Err(missing),
    }
}

/// After the first failure.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// After many: an agent that comes back is noticed within this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
