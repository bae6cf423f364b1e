//! The catalogue of services, with the number that its last state got.

use rusqlite::{Connection, params};

use super::{
    Store, StoreError,
    policies::{head, malformed, put_head},
};

/// An entry of the catalogue as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Its name in sets, which tells nothing of it.
    pub id: String,
    /// What kind of entry it is.
    pub kind: String,
    /// What it is called.
    pub name: String,
    /// The entry in its canonical form.
    pub document: String,
    /// When it last changed, in Unix seconds.
    pub changed_at: i64,
}

/// The catalogue as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogueRecord {
    /// Number, content hash and time, once anything was applied.
    pub head: Option<(u64, String, i64)>,
    /// Every entry, by kind and name.
    pub entries: Vec<ServiceRecord>,
}

/// What changes in the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogueChange {
    /// Entries that are new, or different.
    pub put: Vec<ServiceRecord>,
    /// The ids of entries that go.
    pub gone: Vec<String>,
}

impl Store {
    /// Changes the catalogue, all of it or nothing, and returns the number that its new state gets.
    pub async fn change_services(
        &self,
        change: CatalogueChange,
        generation: String,
        now: i64,
    ) -> Result<u64, StoreError> {
        self.submit(move |db, _| {
            let last = head(db, SERVICES)?.map_or(0, |held| held.0);
            let number = last.checked_add(1).ok_or_else(|| malformed(last.to_string()))?;
            put_head(db, SERVICES, number, (&generation, now))?;
            let mut delete = db.prepare("DELETE FROM services WHERE id = ?1")?;
            for id in &change.gone {
                delete.execute([id])?;
            }
            let mut insert = db.prepare(
                "INSERT INTO services (id, kind, name, document, changed_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET document = ?4, changed_at = ?5",
            )?;
            for entry in &change.put {
                let ServiceRecord { id, kind, name, document, changed_at } = entry;
                insert.execute(params![id, kind, name, document, changed_at])?;
            }
            Ok(number)
        })
        .await
    }
}

pub(super) fn load(db: &Connection) -> Result<CatalogueRecord, StoreError> {
    let mut statement =
        db.prepare("SELECT id, kind, name, document, changed_at FROM services ORDER BY kind, name")?;
    let rows = statement.query_map([], |row| {
        Ok(ServiceRecord {
            id: row.get(0)?,
            kind: row.get(1)?,
            name: row.get(2)?,
            document: row.get(3)?,
            changed_at: row.get(4)?,
        })
    })?;
    let entries = rows.collect::<Result<_, _>>()?;
    Ok(CatalogueRecord { head: head(db, SERVICES)?, entries })
}

/// The table of the set of services.
const SERVICES: &str = "service_set";
