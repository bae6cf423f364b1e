//! Asking for SVIDs: keys are made here and never leave but to the process they are for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use identity::{KeyError, PrivateKey};
use proto::spire::api::server::svid::v1::{NewX509svidParams, batch_new_x509svid_response};

use super::{Synchroniser, fraction, jitter};
use crate::entry::Entry;
use crate::health::chain;
use crate::renewal::{plan, renewal_at};
use crate::state::Held;
use crate::upstream::{CallError, Upstream};
use crate::wire;

impl Synchroniser {
    /// Asks for one batch of SVIDs that are due, and returns when to come again.
    pub(super) async fn issue(&mut self, upstream: &Upstream) -> Result<Option<SystemTime>, CallError> {
        let now = SystemTime::now();
        let plan = plan(&self.state.borrow(), &self.refusals, now);
        if plan.due.is_empty() {
            return Ok(plan.next);
        }
        let due = plan.due.clone();
        let made = tokio::task::spawn_blocking(move || requests(&due)).await;
        let (keys, requests) =
            made.map_err(|_| CallError::Unexpected { what: "nothing: the agent is going down" })??;
        let results = upstream.issue(requests).await?;
        let mut issued = BTreeMap::new();
        for ((entry, key), result) in plan.due.iter().zip(keys).zip(results) {
            match held(entry, key, result, SystemTime::now()) {
                Ok(held) => {
                    self.refusals.forget(&entry.id);
                    issued.insert(entry.id.clone(), held);
                }
                Err(error) => {
                    let wait = self.refusals.note(entry, fraction(), now);
                    self.health.figures.issue_refused.inc();
                    tracing::warn!(entry = %entry.id, id = %entry.spiffe_id, ?wait, error = %chain(&error), "no SVID for an entry");
                }
            }
        }
        self.health.figures.issued.inc_by(issued.len() as u64);
        tracing::debug!(issued = issued.len(), asked = plan.due.len(), "SVIDs issued");
        if !issued.is_empty() {
            self.modify(|state| state.svids.extend(issued));
        }
        Ok(Some(now))
    }
}

fn held(
    entry: &Entry,
    key: Arc<PrivateKey>,
    result: batch_new_x509svid_response::Result,
    now: SystemTime,
) -> Result<Held, IssueError> {
    let status = result.status.unwrap_or_default();
    if status.code != 0 {
        return Err(IssueError::Refused { code: status.code, message: status.message });
    }
    let svid = wire::svid(result.svid.ok_or(IssueError::Nothing)?, key)?;
    if *svid.id() != entry.spiffe_id {
        return Err(IssueError::OtherId);
    }
    if svid.not_after() <= now {
        return Err(IssueError::Expired);
    }
    let renew_at = renewal_at(&svid, jitter(), now);
    Ok(Held { svid: Arc::new(svid), renew_at, revision: entry.revision })
}

fn requests(due: &[Arc<Entry>]) -> Result<(Vec<Arc<PrivateKey>>, Vec<NewX509svidParams>), KeyError> {
    let (mut keys, mut requests) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
    for entry in due {
        let key = PrivateKey::generate()?;
        requests
            .push(NewX509svidParams { entry_id: entry.id.clone(), csr: key.csr(Some(&entry.spiffe_id))? });
        keys.push(Arc::new(key));
    }
    Ok((keys, requests))
}

/// Why there is no SVID for an entry.
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error("the CA refused with code {code}: {message}")]
    Refused { code: i32, message: String },
    #[error("the CA sent no SVID")]
    Nothing,
    #[error("the SVID is for another identity than the entry")]
    OtherId,
    #[error("the SVID is expired by this node's clock; compare the clocks of node and CA")]
    Expired,
    #[error("the SVID cannot be used")]
    Svid(#[from] wire::ReceiveSvidError),
}
