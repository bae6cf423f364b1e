//! One stream of a caller's tunnel: where it wants to go, and the door it is served by.

use std::sync::Arc;

use audit::{Reason, Stage};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{
    Method, Request,
    header::{CONTENT_LENGTH, HOST},
    request::Parts,
};

use super::{answer::Answer, entrance::Caller, listener::Inbound, stream::TunnelStream};
use crate::{
    inbound::{Door, Known},
    listener::Place,
    live::Entry,
    record::{Refusal, Trace},
    stream::{Declined, Stream},
};

/// Serves a stream to its end.
pub(super) async fn serve(
    caller: Arc<Caller>,
    inbound: Arc<Inbound>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let Some((door, known, place)) = admit(&caller, &inbound, request, respond) else { return };
    drop(caller);
    inbound.shared.metrics.live.inc();
    door.serve(known).await;
    inbound.shared.metrics.live.dec();
    drop(place);
}

fn admit(
    caller: &Caller,
    inbound: &Inbound,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Option<(Arc<Door>, Known, Place)> {
    let (head, receive) = request.into_parts();
    let (trace, answer) = (caller.trace.within(), Answer::owed(respond));
    let door = match find(caller, inbound, &head) {
        Ok(door) => door,
        Err(reason) => {
            trace.denied(Refusal::plain(Stage::Connect, reason));
            answer.refuse();
            return None;
        }
    };
    let place = match inbound.places.take() {
        Ok(place) => place,
        Err(limit) => {
            trace.denied(Refusal::plain(Stage::Connect, Reason::LimitExceeded(limit)));
            answer.decline(Declined::Unreachable);
            return None;
        }
    };
    let known = known(caller, inbound, &door, trace, TunnelStream::asked(receive, answer))?;
    Some((door, known, place))
}

/// Finds out where a stream wants to go.
fn find(caller: &Caller, inbound: &Inbound, head: &Parts) -> Result<Arc<Door>, Reason> {
    if head.method != Method::CONNECT || head.uri.scheme().is_some() || head.uri.path_and_query().is_some() {
        return Err(Reason::MalformedRequest("tunnel_method"));
    }
    let authority = head.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let same = |host: &http::HeaderValue| host.as_bytes() == authority.as_bytes();
    if !head.headers.get_all(HOST).iter().all(same) || head.headers.contains_key(CONTENT_LENGTH) {
        return Err(Reason::MalformedRequest("tunnel_header"));
    }
    let found = inbound.destinations.find(authority, caller.called, caller.from);
    found.map_err(|astray| Reason::MalformedRequest(astray.code()))
}

/// Registers a stream as a connection of its own.
fn known(
    caller: &Caller,
    inbound: &Inbound,
    door: &Door,
    trace: Trace,
    stream: TunnelStream,
) -> Option<Known> {
    let trace = trace.to(&door.name, Some((caller.called, door.port).into()));
    let (role, waiting) = door.registration();
    let entry = Entry { key: caller.key(role, door.port), proof: None, opened: trace.opened_at(), waiting };
    let registered = inbound.shared.registry.register_of(entry, caller.live().proof.clone());
    // A tunnel that is cut takes the streams along that came too late for the cut to find them.
    if caller.live().is_cut() {
        trace.denied(Refusal::plain(Stage::Connect, Reason::TrustWithdrawn));
        return None;
    }
    let stream = Stream::Other(Box::new(stream));
    Some(Known { peer: Some(caller.peer.clone()), stream, registered, trace })
}
