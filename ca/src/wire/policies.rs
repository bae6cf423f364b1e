//! Central policies on the wire: manifests, files, and what is told about them.

use identity::{
    SpiffeId,
    crypto::from_hex,
    manifest::{Seen, SignedManifest},
};
use proto::vouchsafe::v1 as wire;
use tonic::Status as Refusal;

use crate::policies::status::{AgentRow, HandedOut, MAX_REASON_BYTES, Sidecar, State, Status, Told};

/// Puts a signed manifest on the wire.
pub(crate) fn signed_to_wire(signed: &SignedManifest) -> wire::SignedManifest {
    wire::SignedManifest {
        manifest: signed.manifest.clone(),
        signature: signed.signature.clone(),
        signer_chain: signed.chain.iter().map(|certificate| certificate.to_vec()).collect(),
    }
}

/// Takes what an agent tells. Nothing in it is believed beyond its form.
pub(crate) fn told(report: wire::ReportStatusRequest) -> Result<Told, Refusal> {
    let agent = report.agent.ok_or_else(|| malformed("no status of the agent"))?;
    let sidecars = report.sidecars.into_iter().map(sidecar).collect::<Result<_, _>>()?;
    Ok(Told { agent: status(agent)?, sidecars })
}

fn sidecar(told: wire::SidecarStatus) -> Result<Sidecar, Refusal> {
    Ok(Sidecar {
        id: SpiffeId::parse(&told.spiffe_id).map_err(|error| malformed(&error.to_string()))?,
        pid: told.pid,
        status: status(told.status.ok_or_else(|| malformed("no status of a sidecar"))?)?,
    })
}

fn status(told: wire::PolicyStatus) -> Result<Status, Refusal> {
    let state = match told.state() {
        wire::PolicyState::Unspecified => State::Silent,
        wire::PolicyState::InForce => State::InForce,
        wire::PolicyState::Refused => State::Refused,
        wire::PolicyState::None => State::None,
    };
    if told.reason.len() > MAX_REASON_BYTES {
        return Err(malformed("the reason is too long"));
    }
    let in_force = seen(told.number_in_force, told.generation_in_force)?;
    Ok(Status {
        state,
        set: seen(told.number, told.generation)?,
        since: told.since,
        reason: told.reason,
        in_force: (in_force.number > 0).then_some(in_force),
    })
}

fn seen(number: u64, generation: String) -> Result<Seen, Refusal> {
    if !generation.is_empty() && from_hex::<32>(&generation).is_none() {
        return Err(malformed("the generation is no SHA-256"));
    }
    Ok(Seen { number, generation })
}

fn malformed(what: &str) -> Refusal {
    Refusal::invalid_argument(format!("policy status: {what}"))
}

/// Puts what is handed out on the wire.
pub(crate) fn summary_to_wire(handed_out: &HandedOut, flaw: String) -> wire::StatusSummary {
    let (distributes, set, since) = match handed_out {
        HandedOut::Nothing => (false, None, 0),
        HandedOut::Pending => (true, None, 0),
        HandedOut::Set { set, since } => (true, Some(set), *since),
    };
    wire::StatusSummary {
        distributes,
        number: set.map_or(0, |set| set.number),
        generation: set.map(|set| set.generation.clone()).unwrap_or_default(),
        since,
        flaw,
    }
}

/// Takes what is handed out from the wire.
pub(crate) fn summary(summary: wire::StatusSummary) -> (HandedOut, String) {
    let handed_out = match (summary.distributes, summary.number) {
        (false, _) => HandedOut::Nothing,
        (true, 0) => HandedOut::Pending,
        (true, number) => {
            HandedOut::Set { set: Seen { number, generation: summary.generation }, since: summary.since }
        }
    };
    (handed_out, summary.flaw)
}

/// Puts an agent on the wire.
pub(crate) fn row_to_wire(row: AgentRow) -> wire::AgentPolicyStatus {
    let (agent, sidecars) = match row.told {
        Some(told) => (Some(told.agent), told.sidecars),
        None => (None, Vec::new()),
    };
    let sidecar = |told: Sidecar| wire::SidecarStatus {
        spiffe_id: told.id.to_string(),
        pid: told.pid,
        status: Some(status_to_wire(told.status)),
    };
    wire::AgentPolicyStatus {
        agent_id: row.id.to_string(),
        connected: row.connected,
        agent: agent.map(status_to_wire),
        sidecars: sidecars.into_iter().map(sidecar).collect(),
    }
}

/// Takes an agent from the wire.
pub(crate) fn row(row: wire::AgentPolicyStatus) -> Option<AgentRow> {
    let told = match row.agent {
        Some(agent) => {
            Some(told(wire::ReportStatusRequest { agent: Some(agent), sidecars: row.sidecars }).ok()?)
        }
        None => None,
    };
    Some(AgentRow { id: SpiffeId::parse(&row.agent_id).ok()?, connected: row.connected, told })
}

fn status_to_wire(status: Status) -> wire::PolicyStatus {
    let state = match status.state {
        State::Silent => wire::PolicyState::Unspecified,
        State::InForce => wire::PolicyState::InForce,
        State::Refused => wire::PolicyState::Refused,
        State::None => wire::PolicyState::None,
    };
    let in_force = status.in_force.unwrap_or(Seen { number: 0, generation: String::new() });
    wire::PolicyStatus {
        state: state.into(),
        number: status.set.number,
        generation: status.set.generation,
        since: status.since,
        reason: status.reason,
        number_in_force: in_force.number,
        generation_in_force: in_force.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_survives_the_wire() {
        let refused = Status {
            state: State::Refused,
            set: Seen { number: 5, generation: "0".repeat(64) },
            since: 7,
            reason: "bad".into(),
            in_force: Some(Seen { number: 4, generation: "1".repeat(64) }),
        };
        let id = SpiffeId::parse("spiffe://prod.test/web").unwrap();
        let sidecars = vec![Sidecar { id: id.clone(), pid: 12, status: refused.clone() }];
        let told = AgentRow { id, connected: true, told: Some(Told { agent: refused, sidecars }) };

        assert_eq!(row(row_to_wire(told.clone())), Some(told));
    }

    #[test]
    fn each_flaw_of_a_report_is_refused() {
        let sound =
            wire::PolicyStatus { state: 1, number: 1, generation: "0".repeat(64), ..Default::default() };
        let report = |agent, sidecars| wire::ReportStatusRequest { agent, sidecars };
        let of =
            |spiffe_id: &str, status| wire::SidecarStatus { spiffe_id: spiffe_id.into(), pid: 1, status };
        assert!(super::told(report(Some(sound.clone()), Vec::new())).is_ok());

        let long = wire::PolicyStatus { reason: "x".repeat(MAX_REASON_BYTES + 1), ..sound.clone() };
        let odd = wire::PolicyStatus { generation: "abc".into(), ..sound.clone() };
        let web = "spiffe://prod.test/web";

        for flawed in [
            report(None, Vec::new()),
            report(Some(long), Vec::new()),
            report(Some(odd), Vec::new()),
            report(Some(sound.clone()), vec![of("web", Some(sound.clone()))]),
            report(Some(sound.clone()), vec![of(web, None)]),
        ] {
            assert!(super::told(flawed).is_err());
        }
    }
}
