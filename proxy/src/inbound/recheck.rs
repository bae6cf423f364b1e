//! Decides live inbound connections again under a new snapshot: once for each peer, source and port.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use identity::SpiffeId;
use policy::{Decision, Denial, Traffic};

use super::{explained, unavailable};
use crate::{
    live::{Cut, Key, Live, Registry, Role, Verdict},
    state::Effective,
};

/// Cuts the inbound connections and requests in flight that `effective` forbids; returns how many.
pub(crate) fn recheck(registry: &Registry, effective: &Effective) -> usize {
    registry.recheck(|key| group(key, effective))
}

/// What a snapshot says about the connections of one peer, source and port.
enum Group<'e> {
    /// All of them are refused.
    Refused { denial: Denial, effective: &'e Effective },
    /// It depends on the request that each is answering.
    ByRequest { peer: SpiffeId, source: IpAddr, port: u16, effective: &'e Effective },
}

impl Verdict for Group<'_> {
    fn of(&self, live: &Live) -> Option<Cut> {
        if live.is_refused() {
            // Its only answer is the refusal, under any policy.
            return None;
        }
        match self {
            Self::Refused { denial, effective } => Some(cut(denial.clone(), effective)),
            Self::ByRequest { peer, source, port, effective } => {
                let denial = deny_request(effective, live, &connection(peer, *source, *port))?;
                Some(cut(denial, effective))
            }
        }
    }
}

fn group<'e>(key: &Key, effective: &'e Effective) -> Option<Group<'e>> {
    let (peer, source, port) = (key.peer.clone()?, key.source?, key.port);
    let connection = connection(&peer, source, port);
    let (denial, traffic) = match key.role {
        Role::Outbound => return None,
        Role::InboundTcp => (deny_tcp(effective, &connection)?, Traffic::Tcp),
        Role::InboundHttp => match super::at_connect(effective, &connection) {
            Ok(()) => return Some(Group::ByRequest { peer, source, port, effective }),
            Err(denial) => (denial, Traffic::HttpConnection),
        },
    };
    Some(Group::Refused { denial: explained(effective, &connection, traffic, denial), effective })
}

fn deny_tcp(effective: &Effective, connection: &policy::Connection<'_>) -> Option<Denial> {
    match super::decide_tcp(effective, connection) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some(denial),
    }
}

/// The request that a connection is answering may have lost its right where the connection has not.
fn deny_request(effective: &Effective, live: &Live, connection: &policy::Connection<'_>) -> Option<Denial> {
    let line = live.request()?;
    let (Some(policies), Some(request)) = (&effective.policies, line.as_policy()) else {
        return Some(unavailable());
    };
    match policies.decide_http(connection, &request) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => {
            Some(explained(effective, connection, Traffic::HttpRequest(request), denial))
        }
    }
}

fn cut(denial: Denial, effective: &Effective) -> Cut {
    Cut::Policy { denial: Box::new(denial), generation: Arc::clone(&effective.generation) }
}

fn connection(peer: &SpiffeId, source: IpAddr, port: u16) -> policy::Connection<'_> {
    let peer = policy::PeerIdentity::Authenticated(peer);
    policy::Connection::new(peer, source, port, SystemTime::now())
}
