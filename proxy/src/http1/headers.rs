//! Which header fields pass a proxy, and which it alone may set.
//!
//! Fields of the connection are removed first, those that `Connection` names included; ours are added last, so
//! nothing a client sends can remove or double them. Names are compared with `_` read as `-`: gateways behind
//! us (CGI, WSGI) read them so.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use identity::{Peer, SpiffeId};

use super::names::{Class, class_of, may_trail};

/// What we tell our own workload about the verified caller.
pub(crate) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// What a refused client can quote.
pub(crate) const DENIAL_ID: HeaderName = HeaderName::from_static("x-vouchsafe-denial-id");

/// Removes from a request what must not pass, before anything of ours is added.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    let trailers = accepts_trailers(headers);
    remove_connection_fields(headers);
    remove_named(headers, |name| {
        matches!(class_of(name.as_bytes()), Class::Identity | Class::Override | Class::Misspelt)
    });
    headers.remove(EXPECT);
    headers.remove(PROXY_AUTHORIZATION);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes from a response what must not pass.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove_connection_fields(headers);
    headers.remove(PROXY_AUTHENTICATE);
    // Only this proxy speaks of denials.
    headers.remove(DENIAL_ID);
}

/// Removes from trailers what frames, routes, authenticates or identifies (RFC 9110 6.5.1).
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_connection_fields(trailers);
    remove_named(trailers, |name| !may_trail(name));
}

/// Says to our workload who called: Envoy's form, one element, never appended to what came. None where it cannot be
/// said: a SPIFFE ID holds neither separators nor controls, so nothing needs quoting.
pub(crate) fn client_cert(own: &SpiffeId, peer: &Peer) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(format!("By={own};Hash={};URI={}", peer.fingerprint(), peer.id()));
    value.ok().map(|value| (CLIENT_CERT, value))
}

/// Returns the protocol that the request asks to go on with, in lower case; of several the whole list, which no rule
/// names. `h2c` alone is not asked for, only offered.
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<String> {
    wanted(headers.get_all(UPGRADE).iter().map(HeaderValue::as_bytes))
}

/// The same of the values of a head's `Upgrade` fields.
pub(super) fn wanted<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut wanted: Vec<String> = Vec::new();
    for value in values {
        let text = String::from_utf8_lossy(value).to_ascii_lowercase();
        let named =
            text.split(',').map(str::trim).filter(|protocol| !protocol.is_empty() && *protocol != "h2c");
        wanted.extend(named.map(str::to_owned));
    }
    (!wanted.is_empty()).then(|| wanted.join(", "))
}

/// Sets the one host that policy saw.
pub(crate) fn set_host(headers: &mut HeaderMap, host: &str) {
    if let Ok(value) = HeaderValue::try_from(host) {
        headers.insert(HOST, value);
    }
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| names_trailers(value.as_bytes()))
}

/// Says whether the value of a `TE` field welcomes trailers.
pub(super) fn names_trailers(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

fn remove_connection_fields(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
            .filter_map(|name| HeaderName::try_from(name.trim()).ok())
            // The framing and the host are not the client's to remove.
            .filter(|name| ![CONTENT_LENGTH, HOST, TRANSFER_ENCODING, TRAILER].contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in [CONNECTION, TE, UPGRADE] {
        headers.remove(name);
    }
    remove_named(headers, |name| class_of(name.as_bytes()) == Class::Hop);
}

fn remove_named(headers: &mut HeaderMap, forbidden: impl Fn(&str) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| forbidden(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
