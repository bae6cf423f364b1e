//! Join tokens: kept as hashes, spent once, in the transaction that records the agent.
//!
//! A broken connection must not burn a token, so the key that spent it may come back with it
//! until it expires; any other key is refused. The alias of a token becomes an entry only when
//! the token is spent: an unspent token stands in no entry and so in no listing.

use identity::{SpiffeId, crypto};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, entries, nodes};
use crate::model::{Change, EntryId, EntrySpec, JOIN_TOKEN_PATH, Node, Standing, SvidRecord};

/// A token to be remembered.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// When it stops to count.
    pub expires_at: i64,
    /// A second identity for the agent that spends it.
    pub alias: Option<SpiffeId>,
}

/// Why a token was not remembered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// The same token exists or was spent by an agent that is still known.
    #[error("the join token exists already")]
    Exists,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for TokenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// An agent that shows a token.
#[derive(Clone, Debug)]
pub struct Attestation {
    /// SHA-256 of the token.
    pub token: [u8; 32],
    /// SHA-256 of the public key the certificate is for.
    pub key: [u8; 32],
    /// The agent's identity.
    pub agent: SpiffeId,
    /// The certificate made for it.
    pub svid: SvidRecord,
    /// The time.
    pub now: i64,
}

/// Why an agent is not admitted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AttestError {
    /// No such token, or one whose time is over.
    #[error("the join token does not exist, has expired or was spent with another key")]
    NoSuchToken,
    /// The agent of this token is shut out.
    #[error("agent {0} is banned")]
    Banned(SpiffeId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AttestError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Remembers a token.
    pub async fn create_token(&self, token: NewToken, agent: SpiffeId) -> Result<(), TokenError> {
        self.submit(move |db, _| {
            if nodes::by_id(db, &agent)?.is_some() || find(db, &token.hash)?.is_some() {
                return Err(TokenError::Exists);
            }
            db.execute(
                "INSERT INTO join_tokens (hash, expires_at, alias) VALUES (?1, ?2, ?3)",
                params![token.hash, token.expires_at, token.alias.as_ref().map(SpiffeId::as_str)],
            )?;
            Ok(())
        })
        .await
    }

    /// Tells whether `attestation` would be accepted, so that no certificate is signed for a wrong token.
    pub async fn check_token(&self, token: [u8; 32], key: [u8; 32], now: i64) -> Result<(), AttestError> {
        self.submit(move |db, _| usable(db, &token, &key, now).map(|_| ())).await
    }

    /// Spends the token and records the agent, or does neither.
    pub async fn attest(&self, attestation: Attestation) -> Result<(), AttestError> {
        self.submit(move |db, changes| attest(db, attestation, changes)).await
    }
}

fn attest(db: &Connection, attestation: Attestation, changes: &mut Vec<Change>) -> Result<(), AttestError> {
    let Attestation { token, key, agent, svid, now } = attestation;
    let alias = usable(db, &token, &key, now)?;
    let known = nodes::by_id(db, &agent)?;
    if known.is_some_and(|node| node.standing == Standing::Banned) {
        return Err(AttestError::Banned(agent));
    }
    db.execute("UPDATE join_tokens SET spent_by = ?2 WHERE hash = ?1", params![token, key])?;
    let node = Node {
        id: agent.clone(),
        attestor: JOIN_TOKEN.into(),
        svid,
        renewed: None,
        standing: Standing::Active,
        selectors: Vec::new(),
        version: String::new(),
    };
    nodes::put(db, node, changes)?;
    if let Some(alias) = alias {
        give_alias(db, alias, agent, now, changes)?;
    }
    Ok(())
}

/// SPIRE's alias for a join token: an entry below the agent, selected by the agent's own identity.
fn give_alias(
    db: &Connection,
    alias: SpiffeId,
    agent: SpiffeId,
    now: i64,
    changes: &mut Vec<Change>,
) -> Result<(), AttestError> {
    let selectors = EntrySpec::alias_selectors(&agent);
    let spec = EntrySpec::new(alias, agent, selectors);
    match entries::create(db, None::<EntryId>, spec, now, changes) {
        Ok(_) => Ok(()),
        Err(entries::WriteError::Store(error)) => Err(error.into()),
        Err(refused) => Err(StoreError::Malformed { what: "alias", detail: refused.to_string() }.into()),
    }
}

/// Removes the alias that `agent` got with its token: the agent's identity never comes back.
pub(super) fn forget_alias(
    db: &Connection,
    agent: &SpiffeId,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    entries::remove_where(db, agent, &EntrySpec::alias_selectors(agent), changes)
}

/// Returns the alias of a token that is good for `key`.
fn usable(
    db: &Connection,
    token: &[u8; 32],
    key: &[u8; 32],
    now: i64,
) -> Result<Option<SpiffeId>, AttestError> {
    let stored = find(db, token)?.ok_or(AttestError::NoSuchToken)?;
    let same_key = stored.spent_by.is_none_or(|by| by.as_slice() == key.as_slice());
    if now >= stored.expires_at || !same_key {
        return Err(AttestError::NoSuchToken);
    }
    let alias = stored.alias.map(|text| {
        SpiffeId::parse(&text).map_err(|_| StoreError::Malformed { what: "alias", detail: text })
    });
    Ok(alias.transpose()?)
}

struct Stored {
    expires_at: i64,
    alias: Option<String>,
    spent_by: Option<Vec<u8>>,
}

fn find(db: &Connection, token: &[u8; 32]) -> Result<Option<Stored>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT expires_at, alias, spent_by FROM join_tokens WHERE hash = ?1")?;
    let row = statement.query_row([token], |row| {
        Ok(Stored { expires_at: row.get(0)?, alias: row.get(1)?, spent_by: row.get(2)? })
    });
    Ok(row.optional()?)
}

/// Removes the token that `agent` was attested with.
pub(super) fn forget(db: &Connection, agent: &SpiffeId) -> Result<(), StoreError> {
    if let Some(token) = agent.path().strip_prefix(JOIN_TOKEN_PATH) {
        db.execute("DELETE FROM join_tokens WHERE hash = ?1", [crypto::sha256(token.as_bytes())])?;
    }
    Ok(())
}

/// SPIRE's name of this way of attestation.
pub(crate) const JOIN_TOKEN: &str = "join_token";
