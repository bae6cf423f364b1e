//! Central policies on the wire: what the CA and the sidecars send and get.

use std::collections::BTreeMap;
use std::sync::Arc;

use identity::SpiffeId;
use identity::crypto::from_hex;
use identity::manifest::{Seen, SignedManifest};
use proto::vouchsafe::v1 as wire;

use crate::policies::{HeldSet, Known, MAX_REASON_BYTES, Policies, Report, Sidecar};

/// Takes a signed manifest as it is, to be verified.
pub(crate) fn signed(wire: wire::SignedManifest) -> SignedManifest {
    SignedManifest {
        manifest: wire.manifest,
        signature: wire.signature,
        chain: wire.signer_chain.into_iter().map(Into::into).collect(),
    }
}

/// Hands on a signed manifest.
pub(crate) fn to_signed(signed: &SignedManifest) -> wire::SignedManifest {
    wire::SignedManifest {
        manifest: signed.manifest.clone(),
        signature: signed.signature.clone(),
        signer_chain: signed.chain.iter().map(|der| der.to_vec()).collect(),
    }
}

/// Returns the SHA-256 of every file of `set`.
pub(crate) fn hashes(set: &Arc<HeldSet>) -> Vec<Vec<u8>> {
    set.files.iter().filter_map(|file| from_hex::<32>(&file.sha256)).map(Vec::from).collect()
}

/// Tells what is held and what runs here.
pub(crate) fn report(known: &Known, sidecars: &BTreeMap<u32, Sidecar>) -> wire::ReportStatusRequest {
    let sidecar = |(pid, sidecar): (&u32, &Sidecar)| wire::SidecarStatus {
        spiffe_id: sidecar.id.to_string(),
        pid: i32::try_from(*pid).unwrap_or_default(),
        status: Some(match &sidecar.report {
            Some((report, since)) => wire::PolicyStatus { since: *since, ..status(report) },
            None => wire::PolicyStatus::default(),
        }),
    };
    wire::ReportStatusRequest {
        agent: Some(own(known)),
        sidecars: sidecars.iter().map(sidecar).take(MAX_SIDECARS).collect(),
    }
}

fn own(known: &Known) -> wire::PolicyStatus {
    let held = known.policies.set();
    if let Some(refused) = &known.refused {
        let report = Report::Refused {
            offered: refused.offered.clone().unwrap_or(Seen { number: 0, generation: String::new() }),
            reason: cut(&refused.reason),
            in_force: held.map(|set| set.manifest.seen()),
        };
        return wire::PolicyStatus { since: refused.since, ..status(&report) };
    }
    match (&known.policies, held) {
        (Policies::Set(_), Some(set)) => {
            wire::PolicyStatus { since: set.since, ..status(&Report::InForce(set.manifest.seen())) }
        }
        (Policies::None, _) => status(&Report::None),
        (Policies::Unknown | Policies::Set(_), _) => wire::PolicyStatus::default(),
    }
}

fn status(report: &Report) -> wire::PolicyStatus {
    match report {
        Report::InForce(set) => wire::PolicyStatus {
            state: wire::PolicyState::InForce.into(),
            number: set.number,
            generation: set.generation.clone(),
            ..Default::default()
        },
        Report::Refused { offered, reason, in_force } => wire::PolicyStatus {
            state: wire::PolicyState::Refused.into(),
            number: offered.number,
            generation: offered.generation.clone(),
            reason: reason.clone(),
            number_in_force: in_force.as_ref().map_or(0, |set| set.number),
            generation_in_force: in_force.as_ref().map(|set| set.generation.clone()).unwrap_or_default(),
            since: 0,
        },
        Report::None => wire::PolicyStatus { state: wire::PolicyState::None.into(), ..Default::default() },
    }
}

/// Takes what a sidecar tells.
pub(crate) fn told(report: wire::DeliveryReport) -> Result<(SpiffeId, Report), ReportError> {
    let id = SpiffeId::parse(&report.spiffe_id)?;
    let status = report.status.ok_or(ReportError::NoStatus)?;
    let state = status.state();
    let set = seen(status.number, status.generation)?;
    let in_force = seen(status.number_in_force, status.generation_in_force)?;
    let report = match state {
        wire::PolicyState::InForce => Report::InForce(set),
        wire::PolicyState::Refused => Report::Refused {
            offered: set,
            reason: cut(&status.reason),
            in_force: (in_force.number > 0).then_some(in_force),
        },
        wire::PolicyState::None => Report::None,
        wire::PolicyState::Unspecified => return Err(ReportError::NoStatus),
    };
    Ok((id, report))
}

fn seen(number: u64, generation: String) -> Result<Seen, ReportError> {
    if generation.is_empty() || from_hex::<32>(&generation).is_some() {
        Ok(Seen { number, generation })
    } else {
        Err(ReportError::Generation)
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_REASON_BYTES);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// Why a report of a sidecar makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("malformed SPIFFE ID")]
    Id(#[from] identity::ParseIdError),
    #[error("no state is told")]
    NoStatus,
    #[error("the generation is no SHA-256 in lower-case hexadecimal")]
    Generation,
}

/// The most sidecars that the CA is told of: what it keeps for one agent.
const MAX_SIDECARS: usize = 1024;
