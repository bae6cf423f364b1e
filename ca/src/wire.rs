//! Between SPIRE's wire types and ours: everything that arrives is checked here, everything that leaves is made here.

use std::time::SystemTime;

use identity::{SpiffeId, TrustBundle, TrustDomain};
use prost::Message;
use proto::spire::api::types::{self, permission_denied_details::Reason};
use tonic::{Code, Status};

use crate::{
    issue::Issued,
    model::{Entry, EntryId, EntrySpec, Node, Origin, Selector, Standing},
    registry::Match,
    store::EntryPatch,
};

pub(crate) mod catalogue;
mod lists;
pub(crate) mod policies;

pub(crate) use lists::{entry_filter, filter_to_wire, node_filter, page_size};

/// Takes a SPIFFE ID of `trust_domain` from the wire.
pub(crate) fn member_id(
    id: Option<types::Spiffeid>,
    field: &str,
    trust_domain: &TrustDomain,
) -> Result<SpiffeId, Status> {
    let id = id.ok_or_else(|| Status::invalid_argument(format!("{field} is missing")))?;
    let parsed = any_id(&id).map_err(|why| Status::invalid_argument(format!("{field}: {why}")))?;
    if !parsed.is_member_of(trust_domain) {
        return Err(Status::invalid_argument(format!(
            "{field}: {parsed} is not in the trust domain {trust_domain}"
        )));
    }
    Ok(parsed)
}

fn any_id(id: &types::Spiffeid) -> Result<SpiffeId, identity::ParseIdError> {
    SpiffeId::new(&TrustDomain::parse(&id.trust_domain)?, &id.path)
}

/// Puts a SPIFFE ID on the wire.
pub(crate) fn id_to_wire(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid { trust_domain: id.trust_domain_name().into(), path: id.path().into() }
}

/// Takes a SPIFFE ID of any trust domain from an answer.
pub(crate) fn id_from_wire(id: Option<types::Spiffeid>) -> Option<SpiffeId> {
    any_id(&id?).ok()
}

/// Takes an entry from an answer.
pub(crate) fn entry_from_wire(wire: types::Entry) -> Option<Entry> {
    let id = EntryId::parse(&wire.id)?;
    let (revision, created_at) = (wire.revision_number, wire.created_at);
    let trust_domain = id_from_wire(wire.spiffe_id.clone())?.trust_domain();
    let (_, spec) = entry_spec(wire, &trust_domain).ok()?;
    Some(Entry { id, spec, revision, created_at, origin: Origin::Api })
}

/// Puts what somebody wants registered on the wire; `id` names the entry to change.
pub(crate) fn spec_to_wire(id: Option<&EntryId>, spec: &EntrySpec) -> types::Entry {
    let more = types::entry::AdditionalAttributes { disable_x509_svid_prefetch: true };
    types::Entry {
        id: id.map(ToString::to_string).unwrap_or_default(),
        spiffe_id: Some(id_to_wire(&spec.spiffe_id)),
        parent_id: Some(id_to_wire(&spec.parent_id)),
        selectors: selectors_to_wire(&spec.selectors),
        x509_svid_ttl: spec.x509_svid_ttl,
        federates_with: spec.federates_with.iter().map(ToString::to_string).collect(),
        admin: spec.admin,
        downstream: spec.downstream,
        expires_at: spec.expires_at,
        dns_names: spec.dns_names.clone(),
        revision_number: 0,
        store_svid: spec.store_svid,
        jwt_svid_ttl: spec.jwt_svid_ttl,
        hint: spec.hint.clone(),
        created_at: 0,
        additional_attributes: spec.on_demand.then_some(more),
    }
}

/// Takes an entry id from the wire.
pub(crate) fn entry_id(text: &str) -> Result<EntryId, Status> {
    EntryId::parse(text).ok_or_else(|| Status::invalid_argument("entry id is missing or malformed"))
}

/// Takes an entry from the wire, with the name that the caller wants for it.
pub(crate) fn entry_spec(
    entry: types::Entry,
    trust_domain: &TrustDomain,
) -> Result<(Option<EntryId>, EntrySpec), Status> {
    let id = if entry.id.is_empty() { None } else { Some(entry_id(&entry.id)?) };
    let mut spec = EntrySpec::new(
        member_id(entry.spiffe_id, "spiffe_id", trust_domain)?,
        member_id(entry.parent_id, "parent_id", trust_domain)?,
        selectors(entry.selectors)?,
    );
    spec.x509_svid_ttl = entry.x509_svid_ttl;
    spec.jwt_svid_ttl = entry.jwt_svid_ttl;
    spec.dns_names = entry.dns_names;
    spec.federates_with = trust_domains(&entry.federates_with)?;
    spec.hint = entry.hint;
    spec.admin = entry.admin;
    spec.downstream = entry.downstream;
    spec.store_svid = entry.store_svid;
    spec.on_demand = entry.additional_attributes.is_some_and(|more| more.disable_x509_svid_prefetch);
    spec.expires_at = entry.expires_at;
    spec.check(trust_domain).map_err(|flaw| Status::invalid_argument(flaw.to_string()))?;
    Ok((id, spec))
}

/// Takes the fields of an entry that `mask` names; without a mask all of them.
pub(crate) fn entry_patch(
    entry: types::Entry,
    mask: Option<types::EntryMask>,
    trust_domain: &TrustDomain,
) -> Result<(EntryId, EntryPatch), Status> {
    let mask = mask.unwrap_or(WHOLE_ENTRY);
    let id = entry_id(&entry.id)?;
    let on_demand = entry.additional_attributes.is_some_and(|more| more.disable_x509_svid_prefetch);
    let patch = EntryPatch {
        spiffe_id: mask
            .spiffe_id
            .then(|| member_id(entry.spiffe_id, "spiffe_id", trust_domain))
            .transpose()?,
        parent_id: mask
            .parent_id
            .then(|| member_id(entry.parent_id, "parent_id", trust_domain))
            .transpose()?,
        selectors: mask.selectors.then(|| selectors(entry.selectors)).transpose()?,
        x509_svid_ttl: mask.x509_svid_ttl.then_some(entry.x509_svid_ttl),
        jwt_svid_ttl: mask.jwt_svid_ttl.then_some(entry.jwt_svid_ttl),
        dns_names: mask.dns_names.then_some(entry.dns_names),
        federates_with: mask.federates_with.then(|| trust_domains(&entry.federates_with)).transpose()?,
        hint: mask.hint.then_some(entry.hint),
        admin: mask.admin.then_some(entry.admin),
        downstream: mask.downstream.then_some(entry.downstream),
        store_svid: mask.store_svid.then_some(entry.store_svid),
        on_demand: mask.additional_attributes.then_some(on_demand),
        expires_at: mask.expires_at.then_some(entry.expires_at),
    };
    Ok((id, patch))
}

/// Puts an entry on the wire, with the fields that `mask` names; without a mask all of them.
pub(crate) fn entry_to_wire(entry: &Entry, mask: Option<&types::EntryMask>) -> types::Entry {
    let whole = types::Entry {
        revision_number: entry.revision,
        created_at: entry.created_at,
        ..spec_to_wire(Some(&entry.id), &entry.spec)
    };
    let Some(mask) = mask else { return whole };
    types::Entry {
        id: whole.id,
        spiffe_id: whole.spiffe_id.filter(|_| mask.spiffe_id),
        parent_id: whole.parent_id.filter(|_| mask.parent_id),
        selectors: when(mask.selectors, || whole.selectors),
        x509_svid_ttl: when(mask.x509_svid_ttl, || whole.x509_svid_ttl),
        federates_with: when(mask.federates_with, || whole.federates_with),
        admin: mask.admin && whole.admin,
        downstream: mask.downstream && whole.downstream,
        expires_at: when(mask.expires_at, || whole.expires_at),
        dns_names: when(mask.dns_names, || whole.dns_names),
        revision_number: when(mask.revision_number, || whole.revision_number),
        store_svid: mask.store_svid && whole.store_svid,
        jwt_svid_ttl: when(mask.jwt_svid_ttl, || whole.jwt_svid_ttl),
        hint: when(mask.hint, || whole.hint),
        created_at: when(mask.created_at, || whole.created_at),
        additional_attributes: whole.additional_attributes.filter(|_| mask.additional_attributes),
    }
}

fn when<T: Default>(wanted: bool, value: impl FnOnce() -> T) -> T {
    if wanted { value() } else { T::default() }
}

/// Puts an agent on the wire, with the fields that `mask` names; without a mask all of them.
pub(crate) fn node_to_wire(node: &Node, mask: Option<&types::AgentMask>) -> types::Agent {
    let mask = mask.unwrap_or(&WHOLE_AGENT);
    types::Agent {
        id: Some(id_to_wire(&node.id)),
        attestation_type: when(mask.attestation_type, || node.attestor.clone()),
        x509svid_serial_number: when(mask.x509svid_serial_number, || decimal(&node.svid.serial)),
        x509svid_expires_at: when(mask.x509svid_expires_at, || node.svid.expires_at),
        selectors: when(mask.selectors, || selectors_to_wire(&node.selectors)),
        banned: mask.banned && node.standing == Standing::Banned,
        can_reattest: false,
        agent_version: when(mask.agent_version, || node.version.clone()),
    }
}

/// SPIRE shows serial numbers in decimal.
fn decimal(hex: &str) -> String {
    u128::from_str_radix(hex, 16).map_or_else(|_| hex.to_owned(), |serial| serial.to_string())
}

/// Puts the trust bundle on the wire, with the fields that `mask` names; without a mask all of them.
pub(crate) fn bundle_to_wire(bundle: &TrustBundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let mask = mask.unwrap_or(&WHOLE_BUNDLE);
    let authority = |der: &rustls_pki_types::CertificateDer<'_>| types::X509Certificate {
        asn1: der.to_vec(),
        tainted: false,
    };
    let hint = bundle.refresh_hint().map_or(0, |hint| i64::try_from(hint.as_secs()).unwrap_or(i64::MAX));
    types::Bundle {
        trust_domain: bundle.trust_domain().to_string(),
        x509_authorities: when(mask.x509_authorities, || {
            bundle.x509_authorities().iter().map(authority).collect()
        }),
        jwt_authorities: Vec::new(),
        refresh_hint: when(mask.refresh_hint, || hint),
        sequence_number: when(mask.sequence_number, || bundle.sequence().unwrap_or(0)),
        wit_authorities: Vec::new(),
    }
}

/// Puts a certificate on the wire.
pub(crate) fn svid_to_wire(issued: Issued, hint: &str) -> types::X509svid {
    types::X509svid {
        cert_chain: issued.chain,
        id: Some(id_to_wire(&issued.id)),
        expires_at: issued.expires_at,
        hint: hint.into(),
    }
}

/// Takes selectors from the wire, sorted; whether an entry may have them is checked with the entry.
pub(crate) fn selectors(wire: Vec<types::Selector>) -> Result<Vec<Selector>, Status> {
    let read = |selector: types::Selector| {
        if selector.r#type.is_empty() || selector.value.is_empty() {
            return Err(Status::invalid_argument("a selector needs a type and a value"));
        }
        Ok(Selector { kind: selector.r#type, value: selector.value })
    };
    let mut selectors = wire.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    selectors.sort();
    selectors.dedup();
    Ok(selectors)
}

fn selectors_to_wire(selectors: &[Selector]) -> Vec<types::Selector> {
    let write = |selector: &Selector| types::Selector {
        r#type: selector.kind.clone(),
        value: selector.value.clone(),
    };
    selectors.iter().map(write).collect()
}

/// Takes trust domain names from the wire; SPIRE's tools send them with and without the scheme.
fn trust_domains(wire: &[String]) -> Result<Vec<TrustDomain>, Status> {
    let read = |text: &String| {
        let name = text.strip_prefix("spiffe://").unwrap_or(text);
        TrustDomain::parse(name)
            .map_err(|why| Status::invalid_argument(format!("federates_with: {text:?}: {why}")))
    };
    wire.iter().map(read).collect()
}

/// The outcome of one item of a batch.
pub(crate) fn item_status(status: &Status) -> types::Status {
    types::Status { code: i32::from(status.code()), message: status.message().into() }
}

/// The outcome of an item that went well.
pub(crate) fn item_ok() -> types::Status {
    types::Status { code: i32::from(Code::Ok), message: "OK".into() }
}

/// PERMISSION_DENIED with SPIRE's machine-readable reason, by which agents decide what to do next.
pub(crate) fn denied(reason: Reason, message: &str) -> Status {
    let details = types::PermissionDeniedDetails { reason: reason.into() };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/spire.api.types.PermissionDeniedDetails".into(),
        value: details.encode_to_vec(),
    };
    let code = Code::PermissionDenied;
    let rich = RichStatus { code: code.into(), message: message.into(), details: vec![any] };
    Status::with_details(code, message, rich.encode_to_vec().into())
}

/// `google.rpc.Status`, which travels in the trailer `grpc-status-details-bin`.
#[derive(Clone, PartialEq, prost::Message)]
struct RichStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

fn set_match(behaviour: i32) -> Result<Match, Status> {
    // SelectorMatch and FederatesWithMatch number their behaviours alike.
    match types::selector_match::MatchBehavior::try_from(behaviour) {
        Ok(types::selector_match::MatchBehavior::MatchExact) => Ok(Match::Exact),
        Ok(types::selector_match::MatchBehavior::MatchSubset) => Ok(Match::Subset),
        Ok(types::selector_match::MatchBehavior::MatchSuperset) => Ok(Match::Superset),
        Ok(types::selector_match::MatchBehavior::MatchAny) => Ok(Match::Any),
        Err(_) => Err(Status::invalid_argument("unknown match behaviour")),
    }
}

/// Seconds of the wire as a lifetime; 0 takes `default`.
pub(crate) fn lifetime(seconds: i32, default: std::time::Duration) -> Result<std::time::Duration, Status> {
    match u64::try_from(seconds) {
        Ok(0) => Ok(default),
        Ok(seconds) if seconds <= u64::from(crate::model::MAX_TTL_SECONDS.unsigned_abs()) => {
            Ok(std::time::Duration::from_secs(seconds))
        }
        _ => Err(Status::invalid_argument("ttl is negative or too long")),
    }
}

/// The time in Unix seconds.
pub(crate) fn now_seconds() -> i64 {
    crate::model::unix_seconds(SystemTime::now())
}

const WHOLE_ENTRY: types::EntryMask = types::EntryMask {
    spiffe_id: true,
    parent_id: true,
    selectors: true,
    x509_svid_ttl: true,
    federates_with: true,
    admin: true,
    downstream: true,
    expires_at: true,
    dns_names: true,
    revision_number: true,
    store_svid: true,
    jwt_svid_ttl: true,
    hint: true,
    created_at: true,
    additional_attributes: true,
};

const WHOLE_AGENT: types::AgentMask = types::AgentMask {
    attestation_type: true,
    x509svid_serial_number: true,
    x509svid_expires_at: true,
    selectors: true,
    banned: true,
    can_reattest: true,
    agent_version: true,
};

const WHOLE_BUNDLE: types::BundleMask = types::BundleMask {
    x509_authorities: true,
    jwt_authorities: true,
    refresh_hint: true,
    sequence_number: true,
    wit_authorities: true,
};

#[cfg(test)]
mod tests;
