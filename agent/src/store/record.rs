//! What the sealed files hold, and how it becomes state again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use identity::rotation::renew_at;
use identity::{
    BundleError, BundleSet, KeyError, ParseIdError, PrivateKey, SpiffeId, SvidError, TrustBundle,
    TrustDomain, X509Svid,
};
use prost::Message;
use proto::spire::api::types;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::entry::Entries;
use crate::node::Node;
use crate::state::{Held, Phase, State};
use crate::wire;

/// The node's own identity. There is a key before there is an SVID, for the key has to outlive a lost answer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRecord {
    ca: String,
    key: SecretBytes,
    chain: Option<PublicBytes>,
    /// The SHA-256 of the token that `key` is or was let in with.
    token_hash: PublicBytes,
    bundle: Option<String>,
}

/// What the agent served.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheRecord {
    agent_id: Option<SpiffeId>,
    entries: Vec<PublicBytes>,
    svids: Vec<SvidRecord>,
    bundles: Vec<BundleRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SvidRecord {
    entry: String,
    revision: i64,
    chain: PublicBytes,
    key: SecretBytes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleRecord {
    trust_domain: TrustDomain,
    jwks: String,
}

impl NodeRecord {
    /// Writes down `node`.
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            ca: node.ca.clone(),
            key: SecretBytes::of(node.key.pkcs8_der()),
            chain: node.svid.as_ref().map(|svid| PublicBytes(svid.chain_der())),
            token_hash: PublicBytes(node.token_hash.to_vec()),
            bundle: node.bundle.as_ref().map(|bundle| bundle.to_jwks()),
        }
    }

    /// Reads the node of `trust_domain` back.
    pub(crate) fn node(self, trust_domain: &TrustDomain) -> Result<Node, RecordError> {
        let key = Arc::new(PrivateKey::from_pkcs8_der(&self.key.0)?);
        let svid = self.chain.map(|chain| X509Svid::from_der(&chain.0, key.clone(), None)).transpose()?;
        if let Some(svid) = &svid
            && !svid.id().is_member_of(trust_domain)
        {
            return Err(RecordError::Foreign { id: svid.id().clone() });
        }
        let bundle = self.bundle.map(|jwks| TrustBundle::from_jwks(trust_domain.clone(), jwks.as_bytes()));
        Ok(Node {
            ca: self.ca,
            key,
            svid: svid.map(Arc::new),
            token_hash: self.token_hash.0.try_into().map_err(|_| RecordError::TokenHash)?,
            bundle: bundle.transpose()?.map(Arc::new),
        })
    }
}

impl CacheRecord {
    /// Writes down `state`.
    pub(crate) fn of(state: &State) -> Self {
        let svid = |(entry, held): (&String, &Held)| SvidRecord {
            entry: entry.clone(),
            revision: held.revision,
            chain: PublicBytes(held.svid.chain_der()),
            key: SecretBytes::of(held.svid.key().pkcs8_der()),
        };
        let bundle = |(trust_domain, bundle): (&TrustDomain, &Arc<TrustBundle>)| BundleRecord {
            trust_domain: trust_domain.clone(),
            jwks: bundle.to_jwks(),
        };
        Self {
            agent_id: state.agent_id.clone(),
            entries: state
                .entries
                .iter()
                .map(|entry| PublicBytes(wire::to_entry(entry).encode_to_vec()))
                .collect(),
            svids: state.svids.iter().map(svid).collect(),
            bundles: state.bundles.iter().map(bundle).collect(),
        }
    }

    /// Reads the state of `trust_domain` back, without SVIDs that expired before `now`.
    pub(crate) fn state(
        self,
        trust_domain: TrustDomain,
        jitter: f64,
        now: SystemTime,
    ) -> Result<State, RecordError> {
        let mut entries = Vec::new();
        for bytes in self.entries {
            let entry = types::Entry::decode(bytes.0.as_slice())?;
            entries.push(Arc::new(wire::entry(entry, &trust_domain)?));
        }
        let mut svids = BTreeMap::new();
        for record in self.svids {
            let svid = X509Svid::from_der(&record.chain.0, PrivateKey::from_pkcs8_der(&record.key.0)?, None)?;
            if now < svid.not_after() {
                let renew_at = renew_at(svid.not_before(), svid.not_after(), jitter);
                svids
                    .insert(record.entry, Held { svid: Arc::new(svid), renew_at, revision: record.revision });
            }
        }
        let mut bundles = BundleSet::new();
        for record in self.bundles {
            bundles.insert(TrustBundle::from_jwks(record.trust_domain, record.jwks.as_bytes())?);
        }
        let entries: Entries = entries.into_iter().collect();
        Ok(State { phase: Phase::Starting, trust_domain, agent_id: self.agent_id, entries, svids, bundles })
    }
}

/// Bytes in base64.
pub(crate) struct PublicBytes(pub(crate) Vec<u8>);

/// Bytes in base64 that are wiped.
struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    fn of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl Serialize for PublicBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for PublicBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = BASE64_STANDARD
            .decode(text.as_bytes())
            .map_err(|_| serde::de::Error::custom("malformed secret"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

/// Why a record is not state.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A key cannot be read.
    #[error("malformed key")]
    Key(#[from] KeyError),
    /// An SVID cannot be read.
    #[error("malformed SVID")]
    Svid(#[from] SvidError),
    /// A bundle cannot be read.
    #[error("malformed trust bundle")]
    Bundle(#[from] BundleError),
    /// A SPIFFE ID cannot be read.
    #[error("malformed SPIFFE ID")]
    SpiffeId(#[from] ParseIdError),
    /// An entry is no protobuf message.
    #[error("malformed entry")]
    Message(#[from] prost::DecodeError),
    /// An entry cannot be served.
    #[error("unusable entry")]
    Entry(#[from] wire::EntryError),
    /// The hash of the token has a wrong length.
    #[error("malformed hash of the token")]
    TokenHash,
    /// The node is one of another trust domain.
    #[error("the node's SVID is for {id}, which is in another trust domain")]
    Foreign {
        /// The identity.
        id: SpiffeId,
    },
}
