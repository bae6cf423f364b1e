//! Tables, their migrations and the log of changes.
//!
//! `user_version` says which migrations a file has seen; each runs once, in one transaction.
//! The `events` table numbers every committed change without gaps, so that a second reader of
//! the same database can follow and notice what it missed.

use std::{os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use identity::TrustDomain;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{OpenError, StoreError};
use crate::model::Change;

/// Opens or makes the file, 0600, and brings its tables up to date.
pub(super) fn open(path: &Path, trust_domain: &TrustDomain) -> Result<Connection, OpenError> {
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    let failed = |source: StoreError| OpenError::Database { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(|error| failed(error.into()))?;
    prepare(&connection).map_err(|error| failed(error.into()))?;
    let found = migrate(&mut connection).map_err(|error| failed(error.into()))?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    let owner = owner(&connection, trust_domain).map_err(|error| failed(error.into()))?;
    if owner != trust_domain.as_str() {
        return Err(OpenError::TrustDomain {
            path: path.to_owned(),
            found: owner,
            wanted: trust_domain.clone(),
        });
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // FULL flushes the log with every commit: acknowledged is durable.
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;")?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    connection.busy_timeout(BUSY)?;
    Ok(())
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    if found < VERSION {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(found)
}

fn owner(connection: &Connection, trust_domain: &TrustDomain) -> rusqlite::Result<String> {
    let key = "trust_domain";
    connection.execute(
        "INSERT OR IGNORE INTO meta (key, value) VALUES (?1, ?2)",
        params![key, trust_domain.as_str()],
    )?;
    let owner: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?;
    Ok(owner.unwrap_or_default())
}

/// Writes `changes` into the log of changes, inside the transaction that makes them.
pub(super) fn record(transaction: &Transaction<'_>, changes: &[Change]) -> rusqlite::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut insert = transaction.prepare_cached("INSERT INTO events (kind, subject) VALUES (?1, ?2)")?;
    for change in changes {
        let (kind, subject) = match change {
            Change::EntryPut(entry) => ("entry", entry.id.as_str()),
            Change::EntryGone(id) => ("entry", id.as_str()),
            Change::NodePut(node) => ("node", node.id.as_str()),
            Change::NodeGone(id) => ("node", id.as_str()),
        };
        insert.execute(params![kind, subject])?;
    }
    transaction
        .prepare_cached("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?1")?
        .execute([MAX_EVENTS])?;
    Ok(())
}

/// One text per version of the tables. Never edited once released: only added to.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    INSERT INTO meta (key, value) VALUES ('bundle_sequence', '0');

    CREATE TABLE authorities (
        id          TEXT PRIMARY KEY,
        certificate BLOB NOT NULL,
        state       TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'retired')),
        not_before  INTEGER NOT NULL,
        not_after   INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX one_active_authority ON authorities (state) WHERE state = 'active';

    CREATE TABLE entries (
        id         TEXT PRIMARY KEY,
        spiffe_id  TEXT NOT NULL,
        parent_id  TEXT NOT NULL,
        selectors  TEXT NOT NULL,
        spec       TEXT NOT NULL,
        revision   INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        origin     TEXT NOT NULL CHECK (origin IN ('api', 'files'))
    ) STRICT;
    CREATE UNIQUE INDEX same_entry ON entries (parent_id, spiffe_id, selectors);
    CREATE INDEX expiring_entries ON entries (expires_at) WHERE expires_at > 0;
    CREATE INDEX entries_of_files ON entries (origin) WHERE origin = 'files';

    CREATE TABLE nodes (
        id                 TEXT PRIMARY KEY,
        attestor           TEXT NOT NULL,
        serial             TEXT NOT NULL,
        expires_at         INTEGER NOT NULL,
        renewed_serial     TEXT,
        renewed_expires_at INTEGER,
        banned             INTEGER NOT NULL,
        selectors          TEXT NOT NULL,
        version            TEXT NOT NULL
    ) STRICT;

    CREATE TABLE join_tokens (
        hash       BLOB PRIMARY KEY,
        expires_at INTEGER NOT NULL,
        alias      TEXT,
        spent_by   BLOB
    ) STRICT;
    CREATE INDEX expiring_tokens ON join_tokens (expires_at);

    CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, subject TEXT NOT NULL) STRICT;
",
    "
    CREATE TABLE policy_set (
        only       INTEGER PRIMARY KEY CHECK (only = 1),
        number     INTEGER NOT NULL,
        generation TEXT NOT NULL,
        since      INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE policy_files (name TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT;
",
    "
    CREATE TABLE service_set (
        only       INTEGER PRIMARY KEY CHECK (only = 1),
        number     INTEGER NOT NULL,
        generation TEXT NOT NULL,
        since      INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE services (
        id         TEXT PRIMARY KEY,
        kind       TEXT NOT NULL CHECK (kind IN ('service', 'sidecar')),
        name       TEXT NOT NULL,
        document   TEXT NOT NULL,
        changed_at INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX same_service ON services (kind, name);
",
];

/// The version that this program writes: the number of migrations.
const VERSION: i64 = MIGRATIONS.len() as i64;
/// Changes kept in the log.
const MAX_EVENTS: i64 = 100_000;
/// How long a write waits for another program that holds the file, such as a backup.
const BUSY: Duration = Duration::from_secs(1);
/// Statements kept prepared.
const STATEMENT_CACHE: usize = 64;
