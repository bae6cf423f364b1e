//! `vouchsafe svid`: fetches the identity of the process that runs it, and keeps it in files.
//!
//! The private key goes to a file of mode 0600 and nowhere else.

use std::time::{Duration, Instant, SystemTime};

use identity::rotation::Backoff;
use identity::{SpiffeId, X509Svid, crypto};
use proxy::workload_api::{Client, WorkloadApiError, X509Update, X509Updates};
use serde::Serialize;
use tracing::{error, info, warn};

pub(crate) mod notice;
mod set;

use self::notice::Notice;
use crate::cli::svid::{Identity, SvidCommand, SvidFetch, SvidWatch};
use crate::commands::block_on;
use crate::daemon;
use crate::exit::{Exit, Failure, OrExit as _, describe};
use crate::output::{self, Format, Row};

/// Runs what the command line asks for.
pub(crate) fn run(command: SvidCommand) -> Result<Exit, Failure> {
    daemon::without_core_dumps()?;
    match command {
        SvidCommand::Fetch(args) => block_on(fetch(args)),
        SvidCommand::Watch(args) => block_on(watch(args)),
    }
}

async fn fetch(args: SvidFetch) -> Result<Exit, Failure> {
    let deadline = Instant::now() + args.timeout;
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let update = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let attempt = tokio::time::timeout(left.max(FIRST_PAUSE), ask(&args.identity));
        let cause = match attempt.await {
            Ok(Ok(update)) => break update,
            Ok(Err(cause)) => failure(cause),
            Err(_) => Failure::because(Exit::Unreachable, format!("no answer from {}", args.identity.socket)),
        };
        let pause = backoff.next(crypto::random_fraction().or_exit(Exit::Failed)?);
        if Instant::now() + pause >= deadline {
            return Err(cause);
        }
        tokio::time::sleep(pause).await;
    };
    deliver(&args.identity, args.output.format, &update)?;
    Ok(Exit::Done)
}

async fn ask(identity: &Identity) -> Result<X509Update, WorkloadApiError> {
    Client::connect(&identity.socket).await?.fetch_x509().await
}

/// Follows the identity for ever, through restarts of the agent.
async fn watch(args: SvidWatch) -> Result<Exit, Failure> {
    let notice = Notice::new(args.exec, args.signal, args.pid_file);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut held = Held::Nothing;
    let mut told = String::new();
    loop {
        let ended = match open(&args.identity).await {
            Ok(mut updates) => {
                follow(&args.identity, args.output.format, &notice, &mut updates, &mut held).await?
            }
            Err(cause) => Ended { updates: 0, cause },
        };
        if ended.updates > 0 {
            backoff.reset();
            told.clear();
        }
        if ended.cause.withdraws() {
            held.withdraw(&args.identity)?;
        }
        let cause = describe(&ended.cause);
        if cause != told {
            warn!(cause, socket = %args.identity.socket, "no identity at present, trying until there is one");
        }
        told = cause;
        tokio::time::sleep(backoff.next(crypto::random_fraction().or_exit(Exit::Failed)?)).await;
    }
}

/// How a stream of updates ended.
struct Ended {
    /// How many updates there were.
    updates: u64,
    /// Why there are no more.
    cause: WorkloadApiError,
}

async fn open(identity: &Identity) -> Result<X509Updates, WorkloadApiError> {
    Client::connect(&identity.socket).await?.watch_x509().await
}

/// Delivers each update that brings something new, until the stream ends.
async fn follow(
    identity: &Identity,
    format: Format,
    notice: &Notice,
    updates: &mut X509Updates,
    held: &mut Held,
) -> Result<Ended, Failure> {
    let mut count = 0;
    loop {
        let update = match updates.next().await {
            Ok(update) => update,
            Err(cause) => return Ok(Ended { updates: count, cause }),
        };
        count += 1;
        let arrived = Held::of(&update);
        if arrived == *held {
            continue;
        }
        match deliver(identity, format, &update) {
            Ok(()) => {
                *held = arrived;
                info!(svids = update.svids.len(), "identity delivered");
                notice.give().await;
            }
            // A full disk may be mended; the files that are there stay whole.
            Err(cause) if !cause.is_closed_output() => {
                error!(cause = cause.describe(), "identity cannot be delivered")
            }
            Err(cause) => return Err(cause),
        }
    }
}

/// What was delivered last.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    /// Nothing, or it was withdrawn.
    Nothing,
    /// SVIDs with these serials, and authorities with this hash.
    Set { serials: Vec<String>, authorities: Vec<Vec<u8>> },
}

impl Held {
    fn of(update: &X509Update) -> Self {
        Self::Set {
            serials: update.svids.iter().map(|svid| svid.serial().to_owned()).collect(),
            authorities: update.bundles.iter().map(|(_, bundle)| bundle.authorities_der()).collect(),
        }
    }

    /// Workload API 5: a client stops using an identity that is denied to it.
    fn withdraw(&mut self, identity: &Identity) -> Result<(), Failure> {
        if let (Self::Set { .. }, Some(out)) = (&self, &identity.out) {
            set::remove(out)?;
            error!(dir = %out.display(), "identity withdrawn, its files are removed");
        }
        *self = Self::Nothing;
        Ok(())
    }
}

/// Writes the identity into its files, or prints all identities.
fn deliver(identity: &Identity, format: Format, update: &X509Update) -> Result<(), Failure> {
    let Some(out) = &identity.out else {
        return Ok(output::list(&mut output::stdout(), format, &rows(update, identity.id.as_ref()))?);
    };
    let svid = update.choose(identity.id.as_ref()).or_exit(Exit::Unacceptable)?;
    let bundle = update.bundles.get(svid.id().trust_domain());
    let bundle = bundle.ok_or_else(|| {
        Failure::because(Exit::Failed, format!("no trust bundle of {} was sent", svid.id().trust_domain()))
    })?;
    set::write(out, svid, bundle)?;
    Ok(output::list(&mut output::stdout(), format, &[SvidRow::new(svid, update)])?)
}

fn rows(update: &X509Update, wanted: Option<&SpiffeId>) -> Vec<SvidRow> {
    let chosen = update.svids.iter().filter(|svid| wanted.is_none_or(|wanted| svid.id() == wanted));
    chosen.map(|svid| SvidRow::new(svid, update)).collect()
}

/// Says what a failed request means for the exit code.
fn failure(cause: WorkloadApiError) -> Failure {
    match &cause {
        WorkloadApiError::Unreachable { .. } => Failure::new(Exit::Unreachable, cause),
        WorkloadApiError::NoIdentity { .. } => {
            let advice = "no entry matches this process: `vouchsafe whoami` shows what the agent sees";
            Failure::new(Exit::Denied, anyhow::Error::new(cause).context(advice))
        }
        _ => Failure::new(Exit::Failed, cause),
    }
}

/// An identity as it is printed: everything but the key.
#[derive(Debug, Serialize)]
struct SvidRow {
    id: SpiffeId,
    serial: String,
    not_before: String,
    not_after: String,
    seconds_left: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// How many certificates of its trust domain are trusted.
    authorities: usize,
}

impl SvidRow {
    fn new(svid: &X509Svid, update: &X509Update) -> Self {
        let left = svid.not_after().duration_since(SystemTime::now()).unwrap_or_default();
        let bundle = update.bundles.get(svid.id().trust_domain());
        Self {
            id: svid.id().clone(),
            serial: svid.serial().to_owned(),
            not_before: output::time(svid.not_before()),
            not_after: output::time(svid.not_after()),
            seconds_left: left.as_secs(),
            hint: svid.hint().map(str::to_owned),
            authorities: bundle.map_or(0, |bundle| bundle.x509_authorities().len()),
        }
    }
}

impl Row for SvidRow {
    const SCHEMA: &'static str = "vouchsafe/svid/v1";
    const HEADINGS: &'static [&'static str] = &["SPIFFE ID", "SERIAL", "EXPIRES", "LEFT", "HINT"];
    fn cells(&self) -> Vec<String> {
        let left = crate::cli::duration::spell(Duration::from_secs(self.seconds_left));
        let hint = self.hint.as_deref().map_or_else(|| "-".to_owned(), audit::shown);
        vec![self.id.to_string(), self.serial.clone(), self.not_after.clone(), left, hint]
    }
}

/// The first pause between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
