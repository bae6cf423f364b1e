//! Attested agents and the two-phase renewal of their certificates.

use std::sync::Arc;

use identity::SpiffeId;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::{
    Store, StoreError,
    entries::{from_json, json},
    tokens,
};
use crate::model::{Change, Node, Standing, SvidRecord};

/// Why an agent was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NotFound(SpiffeId),
    /// The agent is shut out.
    #[error("agent {0} is banned")]
    Banned(SpiffeId),
    /// Neither of the agent's valid certificates has that serial.
    #[error("agent {0} renews with a certificate that does not count")]
    NotCurrent(SpiffeId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for NodeError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Records the certificate of a renewal. The one in use, `shown`, stays valid until the new one is shown.
    pub async fn renew_node(
        &self,
        id: SpiffeId,
        shown: String,
        renewed: SvidRecord,
    ) -> Result<(), NodeError> {
        self.change(id, move |node| {
            if node.svid.serial != shown {
                return Err(NodeError::NotCurrent(node.id.clone()));
            }
            node.renewed = Some(renewed);
            Ok(())
        })
        .await
    }

    /// Makes the renewed certificate the only one, once the agent has shown `serial`.
    pub async fn settle_renewal(&self, id: SpiffeId, serial: String) -> Result<(), NodeError> {
        self.change(id, move |node| match node.renewed.take() {
            Some(renewed) if renewed.serial == serial => {
                node.svid = renewed;
                Ok(())
            }
            // Two requests arrived with it at once: the other was first.
            pending if node.svid.serial == serial => {
                node.renewed = pending;
                Ok(())
            }
            _ => Err(NodeError::NotCurrent(node.id.clone())),
        })
        .await
    }

    /// Shuts an agent out: neither its certificates nor its join token are good for anything.
    pub async fn ban_node(&self, id: SpiffeId) -> Result<(), NodeError> {
        self.submit(move |db, changes| {
            let mut node = by_id(db, &id)?.ok_or(NodeError::NotFound(id))?;
            node.standing = Standing::Banned;
            tokens::forget(db, &node.id)?;
            put(db, node, changes)?;
            Ok(())
        })
        .await
    }

    /// Forgets an agent, its join token and the alias that came with it; it must attest anew.
    pub async fn delete_node(&self, id: SpiffeId) -> Result<(), NodeError> {
        self.submit(move |db, changes| {
            if db.execute("DELETE FROM nodes WHERE id = ?1", [id.as_str()])? == 0 {
                return Err(NodeError::NotFound(id));
            }
            tokens::forget(db, &id)?;
            tokens::forget_alias(db, &id, changes)?;
            changes.push(Change::NodeGone(id));
            Ok(())
        })
        .await
    }

    /// Notes what the agent says it runs.
    pub async fn note_version(&self, id: SpiffeId, version: String) -> Result<(), NodeError> {
        self.change(id, move |node| {
            node.version = version;
            Ok(())
        })
        .await
    }

    async fn change(
        &self,
        id: SpiffeId,
        change: impl FnOnce(&mut Node) -> Result<(), NodeError> + Send + 'static,
    ) -> Result<(), NodeError> {
        self.submit(move |db, changes| {
            let mut node = by_id(db, &id)?.ok_or(NodeError::NotFound(id))?;
            match node.standing {
                Standing::Active => change(&mut node)?,
                Standing::Banned => return Err(NodeError::Banned(node.id)),
            }
            put(db, node, changes)?;
            Ok(())
        })
        .await
    }
}

pub(super) fn put(db: &Connection, node: Node, changes: &mut Vec<Change>) -> Result<(), StoreError> {
    let (renewed_serial, renewed_expires_at) =
        node.renewed.as_ref().map(|renewed| (&renewed.serial, renewed.expires_at)).unzip();
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO nodes
         (id, attestor, serial, expires_at, renewed_serial, renewed_expires_at, banned, selectors, version)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        node.id.as_str(),
        node.attestor,
        node.svid.serial,
        node.svid.expires_at,
        renewed_serial,
        renewed_expires_at,
        node.standing == Standing::Banned,
        json("selectors", &node.selectors)?,
        node.version,
    ])?;
    changes.push(Change::NodePut(Arc::new(node)));
    Ok(())
}

pub(super) fn by_id(db: &Connection, id: &SpiffeId) -> Result<Option<Node>, StoreError> {
    Ok(select(db, "WHERE id = ?1", &[id.as_str()])?.pop())
}

pub(super) fn all(db: &Connection) -> Result<Vec<Node>, StoreError> {
    select(db, "", &[])
}

fn select(db: &Connection, condition: &str, key: &[&str]) -> Result<Vec<Node>, StoreError> {
    let sql = format!(
        "SELECT id, attestor, serial, expires_at, renewed_serial, renewed_expires_at, banned, selectors, version
         FROM nodes {condition}"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(key))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Node, StoreError> {
    let id: String = row.get(0)?;
    let renewed: (Option<String>, Option<i64>) = (row.get(4)?, row.get(5)?);
    let selectors: String = row.get(7)?;
    Ok(Node {
        id: SpiffeId::parse(&id).map_err(|_| StoreError::Malformed { what: "agent id", detail: id })?,
        attestor: row.get(1)?,
        svid: SvidRecord { serial: row.get(2)?, expires_at: row.get(3)? },
        renewed: renewed.0.zip(renewed.1).map(|(serial, expires_at)| SvidRecord { serial, expires_at }),
        standing: if row.get(6)? { Standing::Banned } else { Standing::Active },
        selectors: from_json("selectors", &selectors)?,
        version: row.get(8)?,
    })
}
