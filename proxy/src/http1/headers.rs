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

/// What we tell our own workload about the verified caller.
pub(crate) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// What a refused client can quote.
pub(crate) const DENIAL_ID: HeaderName = HeaderName::from_static("x-vouchsafe-denial-id");

/// Removes from a request what must not pass, before anything of ours is added.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    let trailers = accepts_trailers(headers);
    remove_connection_fields(headers);
    remove_named(headers, |name| is_identity(name) || is_override(name));
    remove_misspelt_framing(headers);
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
    remove_named(trailers, |name| is_identity(name) || is_override(name) || FRONT_ONLY.contains(&name));
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
    let mut wanted: Vec<String> = Vec::new();
    for value in headers.get_all(UPGRADE) {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
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
    headers.get_all(TE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|item| item.trim().eq_ignore_ascii_case("trailers")))
    })
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
    for name in CONNECTION_FIELDS {
        headers.remove(*name);
    }
}

fn remove_named(headers: &mut HeaderMap, forbidden: impl Fn(&str) -> bool) {
    let found: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            if name.contains('_') { forbidden(&name.replace('_', "-")) } else { forbidden(name) }
        })
        .cloned()
        .collect();
    for name in found {
        headers.remove(name);
    }
}

fn is_identity(name: &str) -> bool {
    IDENTITY_FIELDS.contains(&name) || IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_override(name: &str) -> bool {
    OVERRIDES.contains(&name)
}

/// `content_length` and the like: one server behind us reads what another ignores.
fn remove_misspelt_framing(headers: &mut HeaderMap) {
    for name in MISSPELT_FRAMING {
        headers.remove(*name);
    }
}

const CONNECTION_FIELDS: &[&str] =
    &["keep-alive", "proxy-connection", "proxy-authentication-info", "http2-settings"];
/// What sidecars and gateways use to say who calls. `x-forwarded-for` goes too: nobody before us is trusted to
/// say whose call this is, and the socket's address is in the audit record.
const IDENTITY_FIELDS: &[&str] = &[
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-real-ip",
    "forwarded",
    "l5d-client-id",
    "x-client-cert",
    "x-ssl-client-cert",
    "ssl-client-cert",
    "client-cert",
    "client-cert-chain",
    "x-vouchsafe-denial-id",
];
const IDENTITY_PREFIXES: &[&str] = &["x-spiffe-", "x-vouchsafe-", "x-ssl-client-"];
/// What frameworks take for another method, path or host than those of the request, which policy has seen.
const OVERRIDES: &[&str] = &[
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-envoy-original-path",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-original-host",
    "x-host",
];
const MISSPELT_FRAMING: &[&str] = &["content_length", "transfer_encoding"];
/// What decides about a message before its body is read has no place after it.
const FRONT_ONLY: &[&str] = &[
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "if-match",
    "if-none-match",
    "max-forwards",
    "proxy-authorization",
    "range",
    "set-cookie",
    "trailer",
    "transfer-encoding",
    "www-authenticate",
];

#[cfg(test)]
mod tests;
