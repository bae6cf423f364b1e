//! What the registry holds: entries, nodes, authorities and the small values they are made of.
//!
//! Plain data. Times are whole seconds since the Unix epoch, as in SPIRE's wire types and the
//! database; 0 stands for "never" only where SPIRE says so (`expires_at` of an entry).

use std::{fmt, sync::Arc, time::SystemTime};

use identity::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

mod doubts;
mod validate;

pub use doubts::UNIX_KEYS;
pub(crate) use validate::check_dns_name;
pub use validate::{
    InvalidEntry, MAX_DNS_NAMES, MAX_FEDERATES_WITH, MAX_HINT_BYTES, MAX_SELECTORS, MAX_TTL_SECONDS,
};

/// Name of a registration entry: 1 to 255 bytes of letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(Arc<str>);

impl EntryId {
    /// Checks `text`; returns nothing when it cannot name an entry.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_ENTRY_ID_BYTES).contains(&text.len());
        let clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        (fits && clean).then(|| Self(text.into()))
    }

    /// Makes a random one, in the form of a version 4 UUID as SPIRE does.
    pub fn random() -> Result<Self, identity::crypto::CryptoError> {
        Ok(Self(random_uuid()?.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One property of a process or node, `type:value`, for example `unix:uid:1000`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// What made the claim: the name of an attestor.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is claimed.
    pub value: String,
}

impl Selector {
    /// Splits `type:value` at the first colon; returns nothing when either side is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        (!kind.is_empty() && !value.is_empty()).then(|| Self { kind: kind.into(), value: value.into() })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

/// What somebody asks to be registered: an identity for whatever matches the selectors below a parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntrySpec {
    /// The identity handed out.
    pub spiffe_id: SpiffeId,
    /// The agent, or the alias of agents, that may hand it out.
    pub parent_id: SpiffeId,
    /// All of them must hold. Sorted, without repeats.
    pub selectors: Vec<Selector>,
    /// Lifetime of an X.509-SVID in seconds; 0 takes the CA's default.
    pub x509_svid_ttl: i32,
    /// Lifetime of a JWT-SVID in seconds; 0 takes the CA's default.
    pub jwt_svid_ttl: i32,
    /// Names written into the certificate beside the identity.
    pub dns_names: Vec<String>,
    /// Foreign trust domains whose bundles the workload gets.
    pub federates_with: Vec<TrustDomain>,
    /// A word for the workload that has several identities.
    pub hint: String,
    /// The holder may call the CA's administrative methods.
    pub admin: bool,
    /// The holder may ask for a CA certificate of its own.
    pub downstream: bool,
    /// The SVID goes to a store and is not served to workloads.
    pub store_svid: bool,
    /// The agent makes the SVID only when somebody asks.
    pub on_demand: bool,
    /// When the entry is removed; 0 is never.
    pub expires_at: i64,
}

impl EntrySpec {
    /// A specification with nothing but what every entry must say.
    pub fn new(spiffe_id: SpiffeId, parent_id: SpiffeId, selectors: Vec<Selector>) -> Self {
        let mut spec = Self {
            spiffe_id,
            parent_id,
            selectors,
            x509_svid_ttl: 0,
            jwt_svid_ttl: 0,
            dns_names: Vec::new(),
            federates_with: Vec::new(),
            hint: String::new(),
            admin: false,
            downstream: false,
            store_svid: false,
            on_demand: false,
            expires_at: 0,
        };
        spec.normalise();
        spec
    }

    /// Puts the selectors into their one order.
    pub fn normalise(&mut self) {
        self.selectors.sort();
        self.selectors.dedup();
    }

    /// The selectors of the entry that a join token's alias becomes: SPIRE's, by which the agent itself is meant.
    pub fn alias_selectors(agent: &SpiffeId) -> Vec<Selector> {
        vec![Selector { kind: "spiffe_id".into(), value: agent.as_str().into() }]
    }

    /// Whether this is the alias of one agent, made when it spent its join token.
    pub fn is_token_alias(&self) -> bool {
        self.selectors == Self::alias_selectors(&self.parent_id)
    }

    /// What makes two entries the same registration: identity, parent and selectors.
    pub fn key(&self) -> (&SpiffeId, &SpiffeId, &[Selector]) {
        (&self.spiffe_id, &self.parent_id, &self.selectors)
    }
}

/// Who an entry belongs to, and so who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made through the API.
    Api,
    /// Made from the entries directory; only the directory changes it.
    Files,
}

/// A registered entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// What it registers.
    pub spec: EntrySpec,
    /// Grows by one with each change.
    pub revision: i64,
    /// When it was made.
    pub created_at: i64,
    /// Who may change it.
    pub origin: Origin,
}

/// Whether a node may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Attested and trusted.
    Active,
    /// Shut out until it is deleted and attests anew.
    Banned,
}

/// An attested agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The agent's identity.
    pub id: SpiffeId,
    /// How it was attested: `join_token`.
    pub attestor: String,
    /// The SVID that counts.
    pub svid: SvidRecord,
    /// The SVID of a renewal that the agent has not shown yet: both are valid until it does.
    pub renewed: Option<SvidRecord>,
    /// Whether it may act.
    pub standing: Standing,
    /// Node selectors, sorted.
    pub selectors: Vec<Selector>,
    /// What the agent says it runs; empty until it says so.
    pub version: String,
}

/// What the CA remembers of an agent's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidRecord {
    /// Lower-case hexadecimal.
    pub serial: String,
    /// When it expires.
    pub expires_at: i64,
}

/// A change that the database has committed, for the registry to take over.
#[derive(Clone, Debug)]
pub enum Change {
    /// An entry is new or different.
    EntryPut(Arc<Entry>),
    /// An entry was deleted.
    EntryGone(EntryId),
    /// An agent is new or different.
    NodePut(Arc<Node>),
    /// An agent was deleted.
    NodeGone(SpiffeId),
}

/// Seconds since the Unix epoch; negative before it.
pub fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

/// The moment `seconds` after the Unix epoch; earlier moments become the epoch.
pub fn from_unix_seconds(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The reserved path at or below which `id` lies, if it does: no workload may have such an identity.
pub fn reserved(id: &SpiffeId) -> Option<&'static str> {
    RESERVED_PATHS.into_iter().find(|reserved| {
        id.path().strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The CA's own identity in `trust_domain`, reserved by SPIRE.
pub fn server_id(trust_domain: &TrustDomain) -> Result<SpiffeId, identity::ParseIdError> {
    SpiffeId::new(trust_domain, SERVER_PATH)
}

/// A random version 4 UUID.
pub(crate) fn random_uuid() -> Result<String, identity::crypto::CryptoError> {
    let mut bytes = identity::crypto::random::<16>()?;
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let mut text = identity::crypto::hex(&bytes);
    for dash in [20, 16, 12, 8] {
        text.insert(dash, '-');
    }
    Ok(text)
}

/// Path of the CA's own identity.
pub const SERVER_PATH: &str = "/spire/server";
/// Everything at and below these paths belongs to the CA and its agents: SPIRE's reservation, and ours.
pub const RESERVED_PATHS: [&str; 2] = ["/spire", identity::manifest::RESERVED_PATH];
/// Path of agents attested by join token; the token follows.
pub const JOIN_TOKEN_PATH: &str = "/spire/agent/join_token/";
/// Longest entry id.
pub const MAX_ENTRY_ID_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_id_is_short_and_clean() {
        assert!(EntryId::parse("a.b_c-9").is_some());
        for bad in ["", "a b", "a/b", "é", &"a".repeat(MAX_ENTRY_ID_BYTES + 1)] {
            assert!(EntryId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_random_id_is_a_version_4_uuid() {
        let id = EntryId::random().unwrap();

        let groups: Vec<_> = id.as_str().split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_str().as_bytes()[14], b'4');
        assert_ne!(id, EntryId::random().unwrap());
    }

    #[test]
    fn a_selector_splits_at_its_first_colon() {
        let selector = Selector::parse("unix:uid:1000").unwrap();

        assert_eq!((selector.kind.as_str(), selector.value.as_str()), ("unix", "uid:1000"));
        assert_eq!(selector.to_string(), "unix:uid:1000");
        for bad in ["", "unix", "unix:", ":uid"] {
            assert!(Selector::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn seconds_survive_the_way_there_and_back() {
        for seconds in [0, 1, 1_900_000_000] {
            assert_eq!(unix_seconds(from_unix_seconds(seconds)), seconds);
        }
        assert_eq!(from_unix_seconds(-5), SystemTime::UNIX_EPOCH);
    }
}
