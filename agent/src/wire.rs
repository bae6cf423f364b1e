//! From wire types to ours and back. What the CA sends is checked here, once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{
    BundleError, ParseIdError, PrivateKey, SpiffeId, SvidError, TrustBundle, TrustDomain, X509Svid,
};
use proto::spire::api::types;
use proto::spire::api::types::permission_denied_details::Reason;
use rustls_pki_types::CertificateDer;

use crate::entry::{Delivery, Entry, Expiry};
use crate::selector::{Selector, SelectorError};

pub(crate) mod policies;

/// The longest hint (Workload API 5.2.1).
pub(crate) const MAX_HINT_BYTES: usize = 1024;

/// The most selectors of one entry.
pub(crate) const MAX_ENTRY_SELECTORS: usize = 256;

/// The longest id of an entry.
pub(crate) const MAX_ENTRY_ID_BYTES: usize = 255;

/// Reads an entry, which must give an identity of `trust_domain`.
pub(crate) fn entry(entry: types::Entry, trust_domain: &TrustDomain) -> Result<Entry, EntryError> {
    if entry.id.is_empty() || entry.id.len() > MAX_ENTRY_ID_BYTES {
        return Err(EntryError::Id);
    }
    if entry.hint.len() > MAX_HINT_BYTES {
        return Err(EntryError::Hint);
    }
    if entry.selectors.len() > MAX_ENTRY_SELECTORS {
        return Err(EntryError::Selectors { found: entry.selectors.len() });
    }
    let spiffe_id = spiffe_id(entry.spiffe_id.as_ref())?;
    if !spiffe_id.is_member_of(trust_domain) || spiffe_id.path().is_empty() {
        return Err(EntryError::Foreign { id: spiffe_id });
    }
    let selectors =
        entry.selectors.into_iter().map(|selector| Selector::new(selector.r#type, selector.value));
    Ok(Entry {
        spiffe_id,
        parent_id: self::spiffe_id(entry.parent_id.as_ref())?,
        selectors: selectors.collect::<Result<_, _>>()?,
        federates_with: entry.federates_with.iter().map(|name| domain(name)).collect::<Result<_, _>>()?,
        dns_names: entry.dns_names,
        hint: entry.hint,
        x509_svid_ttl: entry.x509_svid_ttl,
        revision: entry.revision_number,
        created_at: entry.created_at,
        expires: match entry.expires_at {
            0 => Expiry::Never,
            // Later than the epoch, which would be written as "never".
            end => Expiry::At(system_time(end.max(1))),
        },
        delivery: if entry.store_svid { Delivery::ExternalStore } else { Delivery::WorkloadApi },
        id: entry.id,
    })
}

/// Writes an entry as SPIRE writes it.
pub(crate) fn to_entry(entry: &Entry) -> types::Entry {
    types::Entry {
        id: entry.id.clone(),
        spiffe_id: Some(to_spiffe_id(&entry.spiffe_id)),
        parent_id: Some(to_spiffe_id(&entry.parent_id)),
        selectors: entry.selectors.iter().map(to_selector).collect(),
        x509_svid_ttl: entry.x509_svid_ttl,
        federates_with: entry.federates_with.iter().map(ToString::to_string).collect(),
        expires_at: match entry.expires {
            Expiry::Never => 0,
            Expiry::At(end) => unix_seconds(end),
        },
        dns_names: entry.dns_names.clone(),
        revision_number: entry.revision,
        store_svid: entry.delivery == Delivery::ExternalStore,
        hint: entry.hint.clone(),
        created_at: entry.created_at,
        ..types::Entry::default()
    }
}

/// Writes a selector.
pub(crate) fn to_selector(selector: &Selector) -> types::Selector {
    types::Selector { r#type: selector.kind().to_owned(), value: selector.value().to_owned() }
}

/// A trust bundle as the CA sent it.
pub(crate) struct Received {
    /// The bundle.
    pub bundle: TrustBundle,
    /// Authorities in it that are not to be relied on: what they signed is to be replaced at once.
    pub tainted: BTreeSet<Vec<u8>>,
}

/// Reads a trust bundle, which must be that of `trust_domain`.
pub(crate) fn bundle(
    bundle: types::Bundle,
    trust_domain: &TrustDomain,
) -> Result<Received, ReceiveBundleError> {
    let named = domain(&bundle.trust_domain)?;
    if named != *trust_domain {
        return Err(ReceiveBundleError::OtherDomain { named });
    }
    let tainted = bundle.x509_authorities.iter().filter(|authority| authority.tainted);
    let tainted = tainted.map(|authority| authority.asn1.clone()).collect();
    let authorities =
        bundle.x509_authorities.into_iter().map(|authority| CertificateDer::from(authority.asn1));
    let mut read = TrustBundle::new(named, authorities.collect())?;
    // SPIRE writes 0 for "none" in both fields.
    if bundle.sequence_number > 0 {
        read = read.with_sequence(bundle.sequence_number);
    }
    if let Some(hint) = u64::try_from(bundle.refresh_hint).ok().filter(|hint| *hint > 0) {
        read = read.with_refresh_hint(Duration::from_secs(hint));
    }
    Ok(Received { bundle: read, tainted })
}

/// Reads an SVID that was issued for `key`, and refuses one for another identity than the message says.
pub(crate) fn svid(
    svid: types::X509svid,
    key: impl Into<Arc<PrivateKey>>,
) -> Result<X509Svid, ReceiveSvidError> {
    let said = spiffe_id(svid.id.as_ref())?;
    let chain = svid.cert_chain.into_iter().map(CertificateDer::from).collect();
    let read = X509Svid::from_chain(chain, key, None)?;
    if *read.id() == said {
        Ok(read)
    } else {
        Err(ReceiveSvidError::OtherId { said, found: read.id().clone() })
    }
}

/// Reads why the CA denied permission, from the details of a status.
pub(crate) fn denial(details: &[u8]) -> Option<Reason> {
    let status: RpcStatus = prost::Message::decode(details).ok()?;
    let details = status.details.iter().find(|any| any.type_url.ends_with(DENIAL_TYPE))?;
    let denial: types::PermissionDeniedDetails = prost::Message::decode(details.value.as_slice()).ok()?;
    Reason::try_from(denial.reason).ok()
}

/// Writes the details that [`denial`] reads.
#[cfg(test)]
pub(crate) fn to_denial(reason: Reason) -> Vec<u8> {
    let denial = types::PermissionDeniedDetails { reason: reason.into() };
    let any = prost_types::Any {
        type_url: format!("type.googleapis.com/{DENIAL_TYPE}"),
        value: prost::Message::encode_to_vec(&denial),
    };
    prost::Message::encode_to_vec(&RpcStatus { code: 7, message: String::new(), details: vec![any] })
}

/// Returns the seconds since the Unix epoch, 0 for a time before it.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A time before the epoch ends an entry just as the epoch does.
fn system_time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

fn spiffe_id(id: Option<&types::Spiffeid>) -> Result<SpiffeId, ParseIdError> {
    let (domain, path) = id.map_or(("", ""), |id| (id.trust_domain.as_str(), id.path.as_str()));
    SpiffeId::new(&TrustDomain::parse(domain)?, path)
}

fn to_spiffe_id(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid { trust_domain: id.trust_domain_name().to_owned(), path: id.path().to_owned() }
}

/// SPIRE writes the names of trust domains with or without the scheme.
fn domain(name: &str) -> Result<TrustDomain, ParseIdError> {
    if name.contains("://") { TrustDomain::parse_id(name) } else { TrustDomain::parse(name) }
}

/// `google.rpc.Status`, which carries the details of an error.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

const DENIAL_TYPE: &str = "spire.api.types.PermissionDeniedDetails";

/// Why an entry cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The id is empty or too long.
    #[error("entry has no id, or one longer than {MAX_ENTRY_ID_BYTES} bytes")]
    Id,
    /// The hint is too long.
    #[error("hint is longer than {MAX_HINT_BYTES} bytes")]
    Hint,
    /// There are too many selectors.
    #[error("entry has {found} selectors, at most {MAX_ENTRY_SELECTORS} are allowed")]
    Selectors {
        /// How many.
        found: usize,
    },
    /// A selector is none.
    #[error("entry has a malformed selector")]
    Selector(#[from] SelectorError),
    /// An ID is none.
    #[error("entry has a malformed SPIFFE ID")]
    SpiffeId(#[from] ParseIdError),
    /// The identity is not one that a workload of this trust domain may have.
    #[error("{id} is not the identity of a workload of this trust domain")]
    Foreign {
        /// The identity.
        id: SpiffeId,
    },
}

/// Why a trust bundle of the CA is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveBundleError {
    /// The name of the trust domain is none.
    #[error("trust bundle names no trust domain")]
    Name(#[from] ParseIdError),
    /// It is that of another trust domain.
    #[error("trust bundle is that of {named}")]
    OtherDomain {
        /// Whose it is.
        named: TrustDomain,
    },
    /// It cannot be read.
    #[error("trust bundle is malformed")]
    Bundle(#[from] BundleError),
}

/// Why an SVID of the CA is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveSvidError {
    /// The message names no SPIFFE ID.
    #[error("SVID comes without a SPIFFE ID")]
    SpiffeId(#[from] ParseIdError),
    /// It is not an SVID for the key.
    #[error("SVID is malformed or not for the key that was sent")]
    Svid(#[from] SvidError),
    /// It is for another identity.
    #[error("SVID is for {found} and said to be for {said}")]
    OtherId {
        /// What the message says.
        said: SpiffeId,
        /// What the certificate says.
        found: SpiffeId,
    },
}

#[cfg(test)]
mod tests;
