//! Registration entries: through the API one by one, from the entries directory as one whole.

use std::{collections::BTreeMap, sync::Arc};

use identity::{SpiffeId, TrustDomain, crypto::CryptoError};
use rusqlite::{Connection, Row, params, params_from_iter};

use super::{EntryPatch, Store, StoreError};
use crate::model::{Change, Entry, EntryId, EntrySpec, InvalidEntry, Origin, Selector};

/// What became of an entry that was to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New(Arc<Entry>),
    /// This one has the same identity, parent and selectors.
    Exists(Arc<Entry>),
}

/// Why one entry was not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no entry of that name.
    #[error("there is no entry {0}")]
    NotFound(EntryId),
    /// The name is taken by another registration.
    #[error("the entry id {0} is taken")]
    IdTaken(EntryId),
    /// Another entry has the same identity, parent and selectors.
    #[error("entry {0} has the same SPIFFE ID, parent and selectors")]
    Similar(EntryId),
    /// The entry comes from the entries directory.
    #[error("entry {0} comes from the entries directory: change its file")]
    OwnedByFiles(EntryId),
    /// The change would make it unacceptable.
    #[error(transparent)]
    Invalid(#[from] InvalidEntry),
    /// No randomness for a name.
    #[error("cannot name the entry")]
    Random(#[from] CryptoError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// How the entries of the files changed the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Entries made.
    pub created: usize,
    /// Entries changed.
    pub updated: usize,
    /// Entries removed.
    pub deleted: usize,
    /// Entries as they were.
    pub unchanged: usize,
}

/// Why the files changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A hand-made entry stands where a file wants one.
    #[error(
        "{spiffe_id} with the same parent and selectors was registered by hand as entry {id}: delete that entry or the one in the file"
    )]
    MadeByHand {
        /// Which one.
        id: EntryId,
        /// The identity.
        spiffe_id: SpiffeId,
    },
    /// No randomness for a name.
    #[error("cannot name an entry")]
    Random(#[from] CryptoError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for ReconcileError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Registers each specification, all in one transaction, each with an outcome of its own.
    ///
    /// The specifications must have been checked. `now` is when they were made.
    pub async fn create_entries(
        &self,
        entries: Vec<(Option<EntryId>, EntrySpec)>,
        now: i64,
    ) -> Result<Vec<Result<Created, WriteError>>, StoreError> {
        self.submit(move |db, changes| {
            entries.into_iter().map(|(id, spec)| settle(create(db, id, spec, now, changes))).collect()
        })
        .await
    }

    /// Changes each named entry; the result must be acceptable to `trust_domain`.
    pub async fn update_entries(
        &self,
        patches: Vec<(EntryId, EntryPatch)>,
        trust_domain: TrustDomain,
    ) -> Result<Vec<Result<Arc<Entry>, WriteError>>, StoreError> {
        self.submit(move |db, changes| {
            patches
                .into_iter()
                .map(|(id, patch)| settle(update(db, id, patch, &trust_domain, changes)))
                .collect()
        })
        .await
    }

    /// Removes each named entry.
    pub async fn delete_entries(&self, ids: Vec<EntryId>) -> Result<Vec<Result<(), WriteError>>, StoreError> {
        self.submit(move |db, changes| ids.into_iter().map(|id| settle(delete(db, id, changes))).collect())
            .await
    }

    /// Makes the entries of the files exactly `wanted`, or changes nothing. Entries made by hand stay as they are.
    pub async fn reconcile_files(
        &self,
        wanted: Vec<EntrySpec>,
        now: i64,
    ) -> Result<Reconciled, ReconcileError> {
        self.submit(move |db, changes| reconcile(db, wanted, now, changes)).await
    }

    /// Gives the entries of the files to the API, for a CA that has no entries directory any more. Returns how many.
    pub async fn release_files(&self) -> Result<usize, StoreError> {
        self.submit(move |db, changes| {
            let released = of_files(db)?;
            db.execute("UPDATE entries SET origin = 'api' WHERE origin = 'files'", [])?;
            let count = released.len();
            let released = released.into_iter().map(|entry| Entry { origin: Origin::Api, ..entry });
            changes.extend(released.map(|entry| Change::EntryPut(Arc::new(entry))));
            Ok(count)
        })
        .await
    }

    /// Removes entries and join tokens whose time is over. Returns how many entries went.
    pub async fn prune(&self, now: i64) -> Result<usize, StoreError> {
        self.submit(move |db, changes| {
            db.execute("DELETE FROM join_tokens WHERE expires_at <= ?1", [now])?;
            let mut statement = db.prepare_cached(
                "DELETE FROM entries WHERE expires_at > 0 AND expires_at <= ?1 RETURNING id",
            )?;
            let gone: Vec<String> =
                statement.query_map([now], |row| row.get(0))?.collect::<Result<_, _>>()?;
            changes.extend(gone.iter().filter_map(|id| EntryId::parse(id)).map(Change::EntryGone));
            Ok(gone.len())
        })
        .await
    }
}

/// Lets a refusal of one item stand beside the others; only a failing database ends the batch.
fn settle<T>(outcome: Result<T, WriteError>) -> Result<Result<T, WriteError>, StoreError> {
    match outcome {
        Err(WriteError::Store(error)) => Err(error),
        settled => Ok(settled),
    }
}

pub(super) fn create(
    db: &Connection,
    id: Option<EntryId>,
    spec: EntrySpec,
    now: i64,
    changes: &mut Vec<Change>,
) -> Result<Created, WriteError> {
    if let Some(existing) = similar(db, &spec)? {
        return Ok(Created::Exists(Arc::new(existing)));
    }
    if let Some(id) = &id
        && by_id(db, id)?.is_some()
    {
        return Err(WriteError::IdTaken(id.clone()));
    }
    let id = id.map_or_else(EntryId::random, Ok)?;
    let entry = Arc::new(Entry { id, spec, revision: 0, created_at: now, origin: Origin::Api });
    write(db, &entry)?;
    changes.push(Change::EntryPut(entry.clone()));
    Ok(Created::New(entry))
}

fn update(
    db: &Connection,
    id: EntryId,
    patch: EntryPatch,
    trust_domain: &TrustDomain,
    changes: &mut Vec<Change>,
) -> Result<Arc<Entry>, WriteError> {
    let mut entry = by_hand(db, id)?;
    patch.apply(&mut entry.spec);
    entry.spec.check(trust_domain)?;
    if let Some(other) = similar(db, &entry.spec)?
        && other.id != entry.id
    {
        return Err(WriteError::Similar(other.id));
    }
    entry.revision += 1;
    let entry = Arc::new(entry);
    write(db, &entry)?;
    changes.push(Change::EntryPut(entry.clone()));
    Ok(entry)
}

fn delete(db: &Connection, id: EntryId, changes: &mut Vec<Change>) -> Result<(), WriteError> {
    let entry = by_hand(db, id)?;
    remove(db, entry.id, changes)?;
    Ok(())
}

fn by_hand(db: &Connection, id: EntryId) -> Result<Entry, WriteError> {
    let entry = by_id(db, &id)?.ok_or(WriteError::NotFound(id))?;
    match entry.origin {
        Origin::Api => Ok(entry),
        Origin::Files => Err(WriteError::OwnedByFiles(entry.id)),
    }
}

fn reconcile(
    db: &Connection,
    wanted: Vec<EntrySpec>,
    now: i64,
    changes: &mut Vec<Change>,
) -> Result<Reconciled, ReconcileError> {
    let mut present: BTreeMap<EntryId, Entry> =
        of_files(db)?.into_iter().map(|e| (e.id.clone(), e)).collect();
    let mut done = Reconciled::default();
    let mut missing = Vec::new();
    for spec in wanted {
        match similar(db, &spec)? {
            Some(entry) if entry.origin == Origin::Api => {
                return Err(ReconcileError::MadeByHand { id: entry.id, spiffe_id: spec.spiffe_id });
            }
            Some(entry) => {
                present.remove(&entry.id);
                if entry.spec == spec {
                    done.unchanged += 1;
                } else {
                    done.updated += 1;
                    put(db, Entry { spec, revision: entry.revision + 1, ..entry }, changes)?;
                }
            }
            None => missing.push(spec),
        }
    }
    for id in present.into_keys() {
        remove(db, id, changes)?;
        done.deleted += 1;
    }
    for spec in missing {
        let id = EntryId::random()?;
        put(db, Entry { id, spec, revision: 0, created_at: now, origin: Origin::Files }, changes)?;
        done.created += 1;
    }
    Ok(done)
}

fn put(db: &Connection, entry: Entry, changes: &mut Vec<Change>) -> Result<(), StoreError> {
    write(db, &entry)?;
    changes.push(Change::EntryPut(Arc::new(entry)));
    Ok(())
}

/// Removes the entries with this parent and exactly these selectors.
pub(super) fn remove_where(
    db: &Connection,
    parent: &SpiffeId,
    selectors: &[Selector],
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let selectors = json("selectors", &selectors)?;
    let found = select(db, "WHERE parent_id = ?1 AND selectors = ?2", &[parent.as_str(), &selectors])?;
    found.into_iter().try_for_each(|entry| remove(db, entry.id, changes))
}

fn remove(db: &Connection, id: EntryId, changes: &mut Vec<Change>) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM entries WHERE id = ?1")?.execute([id.as_str()])?;
    changes.push(Change::EntryGone(id));
    Ok(())
}

fn write(db: &Connection, entry: &Entry) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(
        "INSERT INTO entries (id, spiffe_id, parent_id, selectors, spec, revision, created_at, expires_at, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (id) DO UPDATE SET spiffe_id = excluded.spiffe_id, parent_id = excluded.parent_id,
             selectors = excluded.selectors, spec = excluded.spec, revision = excluded.revision,
             expires_at = excluded.expires_at",
    )?;
    statement.execute(params![
        entry.id.as_str(),
        entry.spec.spiffe_id.as_str(),
        entry.spec.parent_id.as_str(),
        json("selectors", &entry.spec.selectors)?,
        json("entry", &entry.spec)?,
        entry.revision,
        entry.created_at,
        entry.spec.expires_at,
        match entry.origin {
            Origin::Api => "api",
            Origin::Files => "files",
        },
    ])?;
    Ok(())
}

pub(super) fn all(db: &Connection) -> Result<Vec<Entry>, StoreError> {
    select(db, "", &[])
}

fn of_files(db: &Connection) -> Result<Vec<Entry>, StoreError> {
    select(db, "WHERE origin = 'files'", &[])
}

fn by_id(db: &Connection, id: &EntryId) -> Result<Option<Entry>, StoreError> {
    Ok(select(db, "WHERE id = ?1", &[id.as_str()])?.pop())
}

/// The entry with the same identity, parent and selectors.
fn similar(db: &Connection, spec: &EntrySpec) -> Result<Option<Entry>, StoreError> {
    let selectors = json("selectors", &spec.selectors)?;
    let key = [spec.parent_id.as_str(), spec.spiffe_id.as_str(), &selectors];
    Ok(select(db, "WHERE parent_id = ?1 AND spiffe_id = ?2 AND selectors = ?3", &key)?.pop())
}

fn select(db: &Connection, condition: &str, key: &[&str]) -> Result<Vec<Entry>, StoreError> {
    let sql = format!("SELECT id, spec, revision, created_at, origin FROM entries {condition}");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(key))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Entry, StoreError> {
    let id: String = row.get(0)?;
    let spec: String = row.get(1)?;
    let origin: String = row.get(4)?;
    Ok(Entry {
        spec: from_json("entry", &spec)?,
        id: EntryId::parse(&id).ok_or(StoreError::Malformed { what: "entry id", detail: id })?,
        revision: row.get(2)?,
        created_at: row.get(3)?,
        origin: if origin == "files" { Origin::Files } else { Origin::Api },
    })
}

pub(super) fn json(what: &'static str, value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Malformed { what, detail: error.to_string() })
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Malformed { what, detail: error.to_string() })
}
