//! Decides live inbound connections again under a new snapshot: once for each peer, source and port.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use identity::SpiffeId;
use policy::{Decision, Denial, WorkloadPolicies};

use super::unavailable;
use crate::{
    live::{Cut, Key, Live, Registry, Role, Verdict},
    state::Effective,
};

/// Cuts the inbound connections and requests in flight that `effective` forbids; returns how many.
pub(crate) fn recheck(registry: &Registry, effective: &Effective) -> usize {
    registry.recheck(|key| verdict(key, effective))
}

fn verdict<'e>(key: &Key, effective: &'e Effective) -> Option<Verdict<'e>> {
    let (peer, source) = (key.peer.clone()?, key.source?);
    match key.role {
        Role::Outbound => None,
        Role::InboundTcp => {
            let denial = deny_tcp(effective, &connection(&peer, source, key.port))?;
            Some(cut(denial, effective))
        }
        Role::InboundHttp => http(effective, peer, source, key.port),
    }
}

fn http(effective: &Effective, peer: SpiffeId, source: IpAddr, port: u16) -> Option<Verdict<'_>> {
    if let Err(denial) = super::at_connect(effective, &connection(&peer, source, port)) {
        return Some(cut(denial, effective));
    }
    let policies = effective.policies.as_ref()?;
    Some(Box::new(move |live| {
        let denial = deny_request(policies, live, &connection(&peer, source, port))?;
        Some(reason(denial, effective))
    }))
}

fn deny_tcp(effective: &Effective, connection: &policy::Connection<'_>) -> Option<Denial> {
    match super::decide_tcp(effective, connection) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some(denial),
    }
}

/// The request that a connection is answering may have lost its right where the connection has not.
fn deny_request(
    policies: &WorkloadPolicies,
    live: &Live,
    connection: &policy::Connection<'_>,
) -> Option<Denial> {
    let line = live.request()?;
    let Some(request) = line.as_policy() else { return Some(unavailable()) };
    match policies.decide_http(connection, &request) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some(denial),
    }
}

fn cut(denial: Denial, effective: &Effective) -> Verdict<'_> {
    Box::new(move |_| Some(reason(denial.clone(), effective)))
}

fn reason(denial: Denial, effective: &Effective) -> Cut {
    Cut::Policy { denial: Box::new(denial), generation: Arc::clone(&effective.generation) }
}

fn connection(peer: &SpiffeId, source: IpAddr, port: u16) -> policy::Connection<'_> {
    let peer = policy::PeerIdentity::Authenticated(peer);
    policy::Connection { peer, source, port, now: SystemTime::now() }
}
