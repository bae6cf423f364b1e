//! Carries out the schedule: makes, publishes, activates and drops authorities, and keeps the CA's own certificate fresh.
//!
//! What signs and what is trusted change together, as one snapshot. An authority enters the bundle
//! in one step and signs in a later one; only the very first signs at once.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{
    BundleError, BundleSet, Credentials, CredentialsError, KeyError, PrivateKey, SpiffeId, SvidError,
    TrustBundle, TrustDomain, X509Svid, rotation::renew_at,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Authority, AuthorityError,
    keys::{KeyFileError, KeyStore},
};
use crate::{
    health::{Health, Part},
    issue::{CsrError, IssueError, RequestedKey, Subject},
    model::{from_unix_seconds, unix_seconds},
    schedule::{State, Step, Term, schedule},
    store::{Authorities, AuthorityRecord, Store, StoreError},
};

/// What signs and what is trusted, at one moment.
pub struct Signing {
    /// The authority that signs.
    pub active: Arc<Authority>,
    /// Every published authority, the active one first.
    pub bundle: Arc<TrustBundle>,
    /// The CA's own certificate, for its TLS listener.
    pub credentials: Arc<Credentials>,
}

/// Why the authorities cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The clock is before the active authority.
    #[error("the clock is before the certificate of the signing authority begins ({}): set the clock", crate::when(*not_before))]
    ClockBehind {
        /// When it begins.
        not_before: SystemTime,
    },
    /// A key file is missing or unusable.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// No key could be made.
    #[error("cannot make a key")]
    Generate(#[from] KeyError),
    /// The certificate and the key do not make an authority.
    #[error("authority {id} cannot be used: restore its key file and the database from the same backup")]
    Authority {
        /// Which one.
        id: String,
        /// The cause.
        source: AuthorityError,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authorities do not make a bundle.
    #[error("the authorities make no trust bundle")]
    Bundle(#[from] BundleError),
    /// The CA has no certificate of its own.
    #[error("cannot issue the CA's own certificate")]
    OwnCertificate(#[from] OwnCertificateError),
    /// The schedule did not come to rest.
    #[error("the authorities do not settle: check the clock and ca_ttl")]
    Unsettled,
}

/// Why the CA has no certificate for its listener.
#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The pair.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// The snapshot.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// What rotation needs to know.
pub struct Settings {
    /// Whose authorities these are.
    pub trust_domain: TrustDomain,
    /// The CA's own identity.
    pub server_id: SpiffeId,
    /// How long an authority lasts.
    pub ca_ttl: Duration,
    /// How long the CA's own certificate lasts.
    pub server_ttl: Duration,
    /// When agents and peers should look for a new bundle.
    pub refresh_hint: Duration,
}

/// The one that changes authorities.
pub struct Rotation {
    store: Store,
    keys: KeyStore,
    settings: Settings,
    authorities: Authorities,
    signing: watch::Sender<Arc<Signing>>,
    next: SystemTime,
}

impl Rotation {
    /// Brings the authorities to where they should be at `now`, making the first one if there is none.
    pub async fn start(
        store: Store,
        keys: KeyStore,
        settings: Settings,
        mut authorities: Authorities,
        now: SystemTime,
    ) -> Result<(Self, watch::Receiver<Arc<Signing>>), RotationError> {
        keys.warn_of_strangers(&authorities.records);
        let next = settle(&store, &keys, &settings, &mut authorities, now).await?;
        let first = snapshot(&keys, &settings, &authorities, None, now)?;
        let (signing, receiver) = watch::channel(Arc::new(first));
        Ok((Self { store, keys, settings, authorities, signing, next }, receiver))
    }

    /// Keeps to the schedule until `stop`.
    pub(crate) async fn run(mut self, health: &Health, stop: &CancellationToken) {
        loop {
            let now = SystemTime::now();
            let due = self.next.min(self.renewal()).duration_since(now).unwrap_or_default();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(due.clamp(SHORTEST_WAIT, LONGEST_WAIT)) => {}
            }
            match self.advance(SystemTime::now()).await {
                Ok(()) => health.mend(Part::Authorities),
                Err(error) => {
                    let error = crate::chain(&error);
                    tracing::error!(%error, "authority rotation failed");
                    health.flaw(Part::Authorities, error);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Does what is due at `now`.
    pub async fn advance(&mut self, now: SystemTime) -> Result<(), RotationError> {
        let settled = settle(&self.store, &self.keys, &self.settings, &mut self.authorities, now).await;
        // Even where a later step failed, what the earlier ones changed is published.
        if self.published() != self.authorities.sequence || now >= self.renewal() {
            let held = self.signing.borrow().clone();
            let fresh = snapshot(&self.keys, &self.settings, &self.authorities, Some(&held), now)?;
            self.signing.send_replace(Arc::new(fresh));
        }
        self.next = settled?;
        Ok(())
    }

    /// The number of the bundle that is published. It lags behind where publishing failed after the database took a step.
    fn published(&self) -> u64 {
        self.signing.borrow().bundle.sequence().unwrap_or_default()
    }

    fn renewal(&self) -> SystemTime {
        let signing = self.signing.borrow();
        let svid = signing.credentials.svid();
        renew_at(svid.not_before(), svid.not_after(), 0.0)
    }
}

async fn settle(
    store: &Store,
    keys: &KeyStore,
    settings: &Settings,
    authorities: &mut Authorities,
    now: SystemTime,
) -> Result<SystemTime, RotationError> {
    for _ in 0..MAX_STEPS {
        match schedule(now, &terms(authorities)) {
            Step::WaitUntil(next) => return Ok(next),
            Step::ClockBehind { not_before } => return Err(RotationError::ClockBehind { not_before }),
            Step::Create => *authorities = add(store, keys, settings, State::Active, now).await?,
            Step::Prepare => *authorities = add(store, keys, settings, State::Prepared, now).await?,
            Step::Activate(id) => {
                // A key that cannot be read must not be the one that signs.
                load(keys, settings, authorities, &id)?;
                *authorities = store.activate_authority(id.clone()).await?;
                tracing::info!(authority = %id, "authority activated");
            }
            Step::Prune(id) => {
                *authorities = store.remove_authority(id.clone()).await?;
                keys.remove(&id);
                tracing::info!(authority = %id, "authority removed from the bundle");
            }
        }
    }
    Err(RotationError::Unsettled)
}

async fn add(
    store: &Store,
    keys: &KeyStore,
    settings: &Settings,
    state: State,
    now: SystemTime,
) -> Result<Authorities, RotationError> {
    let key = PrivateKey::generate()?;
    let made = Authority::make(&settings.trust_domain, &key, settings.ca_ttl, now)
        .map_err(|source| RotationError::Authority { id: "(new)".into(), source })?;
    // The key first: an authority in the database always has its key on disk.
    keys.save(made.id(), &key)?;
    let record = AuthorityRecord {
        id: made.id().into(),
        certificate: made.certificate().to_vec(),
        state,
        not_before: unix_seconds(made.not_before()),
        not_after: unix_seconds(made.not_after()),
    };
    let authorities = store.add_authority(record).await?;
    tracing::info!(authority = %made.id(), state = ?state, expires = %crate::when(made.not_after()), "authority made");
    Ok(authorities)
}

fn load(
    keys: &KeyStore,
    settings: &Settings,
    authorities: &Authorities,
    id: &str,
) -> Result<Authority, RotationError> {
    let broken = |source| RotationError::Authority { id: id.into(), source };
    let record = authorities.records.iter().find(|record| record.id == id);
    let record = record.ok_or_else(|| broken(AuthorityError::Certificate))?;
    Authority::load(&settings.trust_domain, &record.certificate, &keys.load(id)?).map_err(broken)
}

fn snapshot(
    keys: &KeyStore,
    settings: &Settings,
    authorities: &Authorities,
    held: Option<&Signing>,
    now: SystemTime,
) -> Result<Signing, RotationError> {
    let active = authorities.records.iter().find(|record| record.state == State::Active);
    let id = active.map(|record| record.id.as_str()).unwrap_or_default();
    let active = match held.filter(|held| held.active.id() == id) {
        Some(held) => held.active.clone(),
        None => Arc::new(load(keys, settings, authorities, id)?),
    };
    let bundle = Arc::new(bundle(settings, authorities)?);
    let credentials = Arc::new(own_certificate(settings, &active, &bundle, now)?);
    Ok(Signing { active, bundle, credentials })
}

/// The active authority stands first: whoever pins a root for a new agent takes that one.
fn bundle(settings: &Settings, authorities: &Authorities) -> Result<TrustBundle, BundleError> {
    let mut records: Vec<_> = authorities.records.iter().collect();
    records.sort_by_key(|record| record.state != State::Active);
    let certificates =
        records.iter().map(|record| CertificateDer::from(record.certificate.clone())).collect();
    let bundle = TrustBundle::new(settings.trust_domain.clone(), certificates)?;
    Ok(bundle.with_sequence(authorities.sequence).with_refresh_hint(settings.refresh_hint))
}

fn own_certificate(
    settings: &Settings,
    active: &Authority,
    bundle: &Arc<TrustBundle>,
    now: SystemTime,
) -> Result<Credentials, OwnCertificateError> {
    let key = PrivateKey::generate()?;
    let requested = RequestedKey::from_csr(&key.csr(None)?)?;
    let subject = Subject { id: settings.server_id.clone(), dns_names: Vec::new(), ttl: settings.server_ttl };
    let issued = active.issue(&requested, &subject, now)?;
    let svid = X509Svid::from_chain(issued.chain.into_iter().map(CertificateDer::from).collect(), key, None)?;
    Ok(Credentials::new(Arc::new(svid), BundleSet::from_iter([bundle.clone()]))?)
}

fn terms(authorities: &Authorities) -> Vec<Term> {
    let term = |record: &AuthorityRecord| Term {
        id: record.id.clone(),
        state: record.state,
        not_before: from_unix_seconds(record.not_before),
        not_after: from_unix_seconds(record.not_after),
    };
    authorities.records.iter().map(term).collect()
}

/// Steps that may follow each other at once: prune a few, create, prepare.
const MAX_STEPS: usize = 64;
/// The schedule is looked at this often, whatever it said: clocks jump.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// And not more often than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
/// Rest after a failure.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
