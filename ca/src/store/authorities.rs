//! Authorities and the number of the bundle they make. Keys are not here: see `authority::keys`.

use rusqlite::{Connection, params};

use super::{Store, StoreError};
use crate::schedule::State;

/// An authority as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRecord {
    /// Hexadecimal subject key identifier.
    pub id: String,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// What it is doing.
    pub state: State,
    /// When the certificate begins.
    pub not_before: i64,
    /// When it ends.
    pub not_after: i64,
}

/// Every authority, and the number of the bundle they make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// In the order in which they were made.
    pub records: Vec<AuthorityRecord>,
    /// Grows with each change.
    pub sequence: u64,
}

impl Store {
    /// Adds an authority; an active one retires every other. Returns what there is then.
    pub async fn add_authority(&self, record: AuthorityRecord) -> Result<Authorities, StoreError> {
        self.submit(move |db, _| {
            if record.state == State::Active {
                retire_all(db)?;
            }
            db.execute(
                "INSERT INTO authorities (id, certificate, state, not_before, not_after) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![record.id, record.certificate, word(record.state), record.not_before, record.not_after],
            )?;
            count_change(db)
        })
        .await
    }

    /// Lets the authority `id` sign and retires every other. Returns what there is then.
    pub async fn activate_authority(&self, id: String) -> Result<Authorities, StoreError> {
        self.submit(move |db, _| {
            retire_all(db)?;
            db.execute("UPDATE authorities SET state = 'active' WHERE id = ?1", [&id])?;
            count_change(db)
        })
        .await
    }

    /// Takes the authority `id` out of the bundle. Returns what there is then.
    pub async fn remove_authority(&self, id: String) -> Result<Authorities, StoreError> {
        self.submit(move |db, _| {
            db.execute("DELETE FROM authorities WHERE id = ?1", [&id])?;
            count_change(db)
        })
        .await
    }
}

pub(super) fn all(db: &Connection) -> Result<Authorities, StoreError> {
    let mut statement = db.prepare(
        "SELECT id, certificate, state, not_before, not_after FROM authorities ORDER BY not_before, id",
    )?;
    let rows = statement.query_map([], |row| {
        let state: String = row.get(2)?;
        Ok(AuthorityRecord {
            id: row.get(0)?,
            certificate: row.get(1)?,
            state: state_of(&state),
            not_before: row.get(3)?,
            not_after: row.get(4)?,
        })
    })?;
    Ok(Authorities { records: rows.collect::<Result<_, _>>()?, sequence: sequence(db)? })
}

fn sequence(db: &Connection) -> Result<u64, StoreError> {
    let text: String =
        db.query_row("SELECT value FROM meta WHERE key = 'bundle_sequence'", [], |row| row.get(0))?;
    text.parse().map_err(|_| StoreError::Malformed { what: "bundle sequence", detail: text })
}

fn count_change(db: &Connection) -> Result<Authorities, StoreError> {
    let next = sequence(db)?.saturating_add(1);
    db.execute("UPDATE meta SET value = ?1 WHERE key = 'bundle_sequence'", [next.to_string()])?;
    all(db)
}

fn retire_all(db: &Connection) -> rusqlite::Result<usize> {
    db.execute("UPDATE authorities SET state = 'retired'", [])
}

fn word(state: State) -> &'static str {
    match state {
        State::Prepared => "prepared",
        State::Active => "active",
        State::Retired => "retired",
    }
}

// The table's CHECK admits these three words only.
fn state_of(word: &str) -> State {
    match word {
        "prepared" => State::Prepared,
        "active" => State::Active,
        _ => State::Retired,
    }
}
