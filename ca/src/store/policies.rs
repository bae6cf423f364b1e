//! The set of policies in force, with the number it got: what a CA goes on with after a restart.

use policy::strict::Source;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError};

/// A set of policies as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySetRecord {
    /// Grows with each change.
    pub number: u64,
    /// The content hash.
    pub generation: String,
    /// Since when it is in force, in Unix seconds.
    pub since: i64,
    /// The files, by name.
    pub files: Vec<Source>,
}

impl Store {
    /// Puts a set in force under the next number. The set that is in force keeps its number.
    pub async fn put_policies(
        &self,
        generation: String,
        files: Vec<Source>,
        now: i64,
    ) -> Result<PolicySetRecord, StoreError> {
        self.submit(move |db, _| {
            let held = head(db, POLICIES)?;
            if let Some((number, since)) =
                held.as_ref().filter(|held| held.1 == generation).map(|held| (held.0, held.2))
            {
                return Ok(PolicySetRecord { number, generation, since, files });
            }
            let last = held.map_or(0, |held| held.0);
            let number = last.checked_add(1).ok_or_else(|| malformed(last.to_string()))?;
            write(db, number, &generation, now, &files)?;
            Ok(PolicySetRecord { number, generation, since: now, files })
        })
        .await
    }
}

pub(super) fn load(db: &Connection) -> Result<Option<PolicySetRecord>, StoreError> {
    let Some((number, generation, since)) = head(db, POLICIES)? else { return Ok(None) };
    let mut statement = db.prepare("SELECT name, content FROM policy_files ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let mut files = Vec::new();
    for row in rows {
        let (name, content) = row?;
        let text = String::from_utf8(content).map_err(|_| malformed(name.clone()))?;
        files.push(Source { name, text });
    }
    Ok(Some(PolicySetRecord { number, generation, since, files }))
}

/// Reads the number, the content hash and the time of the set that `table` speaks of.
pub(super) fn head(db: &Connection, table: &'static str) -> Result<Option<(u64, String, i64)>, StoreError> {
    let query = format!("SELECT number, generation, since FROM {table}");
    let row =
        db.query_row(&query, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?))).optional()?;
    row.map(|(number, generation, since)| {
        let number = u64::try_from(number).map_err(|_| malformed(number.to_string()))?;
        Ok((number, generation, since))
    })
    .transpose()
}

fn write(
    db: &Connection,
    number: u64,
    generation: &str,
    now: i64,
    files: &[Source],
) -> Result<(), StoreError> {
    put_head(db, POLICIES, number, (generation, now))?;
    db.execute("DELETE FROM policy_files", [])?;
    let mut insert = db.prepare("INSERT INTO policy_files (name, content) VALUES (?1, ?2)")?;
    for file in files {
        insert.execute(params![file.name, file.text.as_bytes()])?;
    }
    Ok(())
}

/// Writes the number, the content hash and the time of a set.
pub(super) fn put_head(
    db: &Connection,
    table: &'static str,
    number: u64,
    (generation, now): (&str, i64),
) -> Result<(), StoreError> {
    let number = i64::try_from(number).map_err(|_| malformed(number.to_string()))?;
    let write = format!(
        "INSERT INTO {table} (only, number, generation, since) VALUES (1, ?1, ?2, ?3)
         ON CONFLICT (only) DO UPDATE SET number = ?1, generation = ?2, since = ?3"
    );
    db.execute(&write, params![number, generation, now])?;
    Ok(())
}

/// The table of the set of policies.
const POLICIES: &str = "policy_set";

pub(super) fn malformed(detail: String) -> StoreError {
    StoreError::Malformed { what: "set", detail }
}
