//! Decides live inbound connections again under a new snapshot: once for each peer, source, port and server name.

use std::sync::Arc;

use policy::{Decision, Denial, RuleRef, Traffic};

use super::{explained, unavailable};
use crate::{
    clock,
    http1::RequestLine,
    live::{Cut, Key, Live, Registry, Role, Sentence, Verdict},
    state::Effective,
};

/// Returns the inbound connections and the requests in flight that `effective` forbids, with the reason.
/// They are ended by whoever asks; who only wants to know leaves it at that.
pub(crate) fn judge(registry: &Registry, effective: &Effective) -> Vec<Sentence> {
    registry.judge(|key| group(key, effective))
}

/// Returns the rule by which what was judged lives under `effective`: that of the request in flight, where there is one.
pub(crate) fn rule_of(sentence: &Sentence, effective: &Effective) -> Option<RuleRef> {
    let live = &sentence.live;
    let connection = live.key.as_policy(clock::decided_at());
    let decision = match live.key.role {
        Role::Outbound | Role::Tunnel => return None,
        Role::InboundTcp => super::decide_tcp(effective, &connection),
        Role::InboundHttp => {
            let request = sentence.request.clone().or_else(|| live.requests().into_iter().next())?;
            decide_request(effective, request.line(), &connection)?
        }
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
    fn of(&self, live: &Arc<Live>, ends: &mut Vec<Sentence>) {
        if live.is_refused() {
            // Its only answer is the refusal, under any policy.
            return;
        }
        match self {
            Self::Refused { denial, effective } => {
                let cut = cut(Arc::clone(denial), effective);
                ends.push(Sentence { live: Arc::clone(live), request: None, cut });
            }
            Self::ByRequest { effective } => {
                let requests = live.requests().into_iter().filter(|request| !request.is_cut());
                ends.extend(requests.filter_map(|request| {
                    let denial = deny_request(effective, live, request.line())?;
                    let cut = cut(Arc::new(denial), effective);
                    Some(Sentence { live: Arc::clone(live), request: Some(request), cut })
                }));
            }
        }
    }
}

fn group<'e>(key: &Key, effective: &'e Effective) -> Option<Group<'e>> {
    let connection = key.as_policy(clock::decided_at());
    let (denial, traffic) = match key.role {
        Role::Outbound | Role::Tunnel => return None,
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
fn deny_request(effective: &Effective, live: &Live, line: &RequestLine) -> Option<Denial> {
    let connection = live.key.as_policy(clock::decided_at());
    let Some(policies) = &effective.policies else { return Some(unavailable()) };
    let presented = effective.tokens.judge_again(line, connection.now);
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
    line: &RequestLine,
    connection: &policy::Connection<'_>,
) -> Option<Decision> {
    let presented = effective.tokens.judge_again(line, connection.now);
    Some(effective.policies.as_ref()?.decide_http(connection, &line.as_policy(&presented)))
}

fn cut(denial: Arc<Denial>, effective: &Effective) -> Cut {
    Cut::Policy { denial, generation: Arc::clone(&effective.generation) }
}
