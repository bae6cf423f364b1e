//! The durable state: what is acknowledged here survives `kill -9` at any moment.
//!
//! One SQLite file, one writer thread. Requests that wait together share a transaction, each in a
//! savepoint of its own, so a burst costs one disk flush; a request is answered only after the
//! commit, and the registry learns of it before the asker does. The methods below are the seam:
//! nobody else knows that SQL lies under them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use identity::TrustDomain;
use rusqlite::{Connection, Savepoint};
use tokio::sync::{mpsc, oneshot};

use crate::model::Change;

mod authorities;
mod entries;
mod nodes;
mod patch;
mod policies;
mod schema;
mod services;
mod tokens;
mod writer;

pub use authorities::{Authorities, AuthorityRecord};
pub use entries::{Created, ReconcileError, Reconciled, WriteError};
pub use nodes::NodeError;
pub use patch::EntryPatch;
pub use policies::PolicySetRecord;
pub use services::{CatalogueChange, CatalogueRecord, ServiceRecord};
pub(crate) use tokens::JOIN_TOKEN;
pub use tokens::{AttestError, Attestation, NewToken, TokenError};

/// Why the state could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused: a full disk, a broken file, a lost mount.
    #[error("the database refused")]
    Database(#[source] Arc<rusqlite::Error>),
    /// A stored value is not what this program wrote.
    #[error("the database holds a malformed {what}: {detail}")]
    Malformed {
        /// What kind of value.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// SQLite gave up a transaction, of which this was a part.
    #[error("the database gave up the transaction")]
    GivenUp,
    /// The writer has stopped.
    #[error("the store is shut down")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// Why the database file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made or opened.
    #[error("cannot open {}: check that the directory exists, has room and belongs to this user", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// SQLite cannot read it.
    #[error("cannot read {}: restore it from a backup, or move it away to begin anew", path.display())]
    Database {
        /// Which file or directory.
        path: PathBuf,
        /// The cause.
        source: StoreError,
    },
    /// A later version of the program has changed the file.
    #[error("{} has format {found}, this program knows up to {known}: run the newer version", path.display())]
    Newer {
        /// Which file or directory.
        path: PathBuf,
        /// What was found.
        found: i64,
        /// What is known.
        known: i64,
    },
    /// The file belongs to another trust domain.
    #[error("{} belongs to the trust domain {found}, the configuration says {wanted}", path.display())]
    TrustDomain {
        /// Which file or directory.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What was expected.
        wanted: TrustDomain,
    },
    /// No thread could be started.
    #[error("cannot start the store's writer thread")]
    Thread(#[source] std::io::Error),
}

/// A handle on the store. Clones share one writer.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Box<dyn writer::Job>>,
}

/// What the store held when it was opened.
pub struct Loaded {
    /// Every entry and agent, as changes for an empty registry.
    pub changes: Vec<Change>,
    /// Every authority.
    pub authorities: Authorities,
    /// The set of policies that was in force last.
    pub policies: Option<PolicySetRecord>,
    /// The catalogue of services.
    pub services: CatalogueRecord,
}

/// The writer thread; it ends when the last [`Store`] is dropped.
pub struct Writer(JoinHandle<()>);

impl Writer {
    /// Waits until everything submitted is on disk and the file is closed.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the store's writer thread died");
        }
    }
}

impl Store {
    /// Opens or makes the file at `path` for `trust_domain` and starts the writer.
    ///
    /// `published` gets the committed changes, in the order of their commits, on the writer's thread.
    pub fn open(
        path: &Path,
        trust_domain: &TrustDomain,
        published: impl FnMut(Vec<Change>) + Send + 'static,
    ) -> Result<(Self, Writer, Loaded), OpenError> {
        let connection = schema::open(path, trust_domain)?;
        let loaded =
            load(&connection).map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
        let (jobs, queue) = mpsc::channel(MAX_WAITING_JOBS);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer::run(connection, queue, published))
            .map_err(OpenError::Thread)?;
        Ok((Self { jobs }, Writer(thread), loaded))
    }

    /// Runs `work` in the next transaction and returns its outcome once that is durable.
    async fn submit<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Savepoint<'_>, &mut Vec<Change>) -> Result<T, E> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let job = Box::new(writer::Task::new(work, reply));
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

fn load(connection: &Connection) -> Result<Loaded, StoreError> {
    let entries = entries::all(connection)?;
    let nodes = nodes::all(connection)?;
    let changes = entries.into_iter().map(|entry| Change::EntryPut(Arc::new(entry)));
    let nodes = nodes.into_iter().map(|node| Change::NodePut(Arc::new(node)));
    Ok(Loaded {
        changes: changes.chain(nodes).collect(),
        authorities: authorities::all(connection)?,
        policies: policies::load(connection)?,
        services: services::load(connection)?,
    })
}

/// Requests that may wait for the writer; more wait for a place.
const MAX_WAITING_JOBS: usize = 1024;

#[cfg(test)]
mod tests;
