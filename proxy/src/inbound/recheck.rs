//! Decides live inbound connections again under a new snapshot: once for each peer, source, port and server name.

use std::sync::Arc;

use policy::{Decision, Denial, RuleRef, Traffic};

use super::{explained, unavailable};
use crate::{
    clock,
    live::{Cut, Key, Live, Registry, Role, Verdict},
    state::Effective,
};

/// Returns the inbound connections that `effective` forbids, or whose request in flight it forbids, with the reason.
/// They are ended by whoever asks; who only wants to know leaves it at that.
pub(crate) fn judge(registry: &Registry, effective: &Effective) -> Vec<(Arc<Live>, Cut)> {
    registry.judge(|key| group(key, effective))
}

/// Returns the rule by which a connection lives under `effective`: that of the request in flight, where there is one.
pub(crate) fn rule_of(live: &Live, effective: &Effective) -> Option<RuleRef> {
    let connection = live.key.as_policy(clock::decided_at());
    let decision = match live.key.role {
        Role::Outbound => return None,
        Role::InboundTcp => super::decide_tcp(effective, &connection),
        Role::InboundHttp => decide_request(effective, live, &connection)?,
    };
    match decision {
        Decision::Allow(allowed) => allowed.rule,
        Decision::Deny(_) => None,
    }
}

/// What a snapshot says about the connections of one peer, source and port.
enum Group<'e> {
    /// All of them are refused.
    Refused { denial: Arc<Denial>, effective: &'e Effective },
    /// It depends on the request that each is answering.
    ByRequest { effective: &'e Effective },
}

impl Verdict for Group<'_> {
    fn of(&self, live: &Live) -> Option<Cut> {
        if live.is_refused() {
            // Its only answer is the refusal, under any policy.
            return None;
        }
        match self {
            Self::Refused { denial, effective } => Some(cut(Arc::clone(denial), effective)),
            Self::ByRequest { effective } => {
                let denial = deny_request(effective, live)?;
                Some(cut(Arc::new(denial), effective))
            }
        }
    }
}

fn group<'e>(key: &Key, effective: &'e Effective) -> Option<Group<'e>> {
    let connection = key.as_policy(clock::decided_at());
    let (denial, traffic) = match key.role {
        Role::Outbound => return None,
        Role::InboundTcp => (deny_tcp(effective, &connection)?, Traffic::Tcp),
        Role::InboundHttp => match super::at_connect(effective, &connection) {
            Ok(()) => return Some(Group::ByRequest { effective }),
            Err(denial) => (denial, Traffic::HttpConnection),
        },
    };
    let denial = Arc::new(explained(effective, &connection, traffic, denial));
    Some(Group::Refused { denial, effective })
}

fn deny_tcp(effective: &Effective, connection: &policy::Connection<'_>) -> Option<Denial> {
    match super::decide_tcp(effective, connection) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some(denial),
    }
}

/// The request that a connection is answering may have lost its right where the connection has not.
fn deny_request(effective: &Effective, live: &Live) -> Option<Denial> {
    let connection = live.key.as_policy(clock::decided_at());
    let line = live.request()?;
    let Some(policies) = &effective.policies else { return Some(unavailable()) };
    let presented = effective.tokens.judge_again(&line, connection.now);
    let request = line.as_policy(&presented);
    match policies.decide_http(&connection, &request) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => {
            Some(explained(effective, &connection, Traffic::HttpRequest(request), denial))
        }
    }
}

fn decide_request(
    effective: &Effective,
    live: &Live,
    connection: &policy::Connection<'_>,
) -> Option<Decision> {
    let line = live.request()?;
    let presented = effective.tokens.judge_again(&line, connection.now);
    Some(effective.policies.as_ref()?.decide_http(connection, &line.as_policy(&presented)))
}

fn cut(denial: Arc<Denial>, effective: &Effective) -> Cut {
    Cut::Policy { denial, generation: Arc::clone(&effective.generation) }
}
