//! From the head of an HTTP/2 request to what policy sees and what goes on.

use http::{
    HeaderValue, Method, Request, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};

use policy::CanonicalHost;

use crate::http1::{Flaw, HeadLimits, RequestLine};

/// Reads the line of a request, and leaves only the fields that are forwarded.
pub(super) fn read(parts: &mut Parts, limits: HeadLimits) -> Result<RequestLine, Flaw> {
    check_fields(parts, limits)?;
    // The library keeps the scheme only beside an authority. Without either there is a `Host`, or nothing.
    let known = |scheme: &Scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
    if parts.uri.scheme().is_some_and(|scheme| !known(scheme)) {
        return Err(Flaw::Scheme);
    }
    check_host(parts)?;
    let protocol = parts.extensions.get::<h2::ext::Protocol>().cloned();
    let line = match protocol {
        Some(protocol) => RequestLine::read_extended(parts, protocol.as_str())?,
        None => RequestLine::read(parts)?,
    };
    parts.headers.remove(HOST);
    Ok(line)
}

/// `:authority` and `Host` may both be there, and name the same (RFC 9113 8.3.1).
fn check_host(parts: &Parts) -> Result<(), Flaw> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return if parts.headers.contains_key(HOST) { Err(Flaw::HostRepeated) } else { Ok(()) };
    };
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    let same = host.as_bytes() == authority.as_str().as_bytes() || {
        let host = host.to_str().ok().and_then(|host| CanonicalHost::parse(host).ok());
        host.is_some() && host == CanonicalHost::parse(authority.as_str()).ok()
    };
    if same { Ok(()) } else { Err(Flaw::HostConflict) }
}

fn check_fields(parts: &Parts, limits: HeadLimits) -> Result<(), Flaw> {
    if parts.headers.len() > limits.count {
        return Err(Flaw::TooManyHeaders);
    }
    let mut size = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    let mut lengths = 0;
    for (name, value) in &parts.headers {
        // RFC 9113 6.5.2: what a field counts for.
        size += name.as_str().len() + value.len() + FIELD_OVERHEAD;
        lengths += usize::from(*name == CONTENT_LENGTH);
        if is_padded(value) {
            return Err(Flaw::Padded);
        }
    }
    if lengths > 1 {
        return Err(Flaw::LengthRepeated);
    }
    if size > limits.bytes { Err(Flaw::HeadTooLarge) } else { Ok(()) }
}

/// RFC 9113 8.2.1: a value neither begins nor ends with a blank.
fn is_padded(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

/// Makes the request that goes out, from the structure that was decided about. None where it has no form to be sent in.
pub(super) fn forwarded(mut parts: Parts, line: &RequestLine) -> Result<Request<()>, Flaw> {
    let authority = Authority::try_from(line.authority()).map_err(|_| Flaw::HostInvalid)?;
    let mut target = http::uri::Parts::default();
    target.authority = Some(authority);
    if parts.method != Method::CONNECT || parts.extensions.get::<h2::ext::Protocol>().is_some() {
        // Plaintext is spoken at both ends.
        target.scheme = Some(Scheme::HTTP);
        target.path_and_query = Some(path(line)?);
    }
    parts.uri = Uri::from_parts(target).map_err(|_| Flaw::Target)?;
    Ok(Request::from_parts(parts, ()))
}

fn path(line: &RequestLine) -> Result<PathAndQuery, Flaw> {
    line.forwarded()?.into_parts().path_and_query.ok_or(Flaw::Target)
}

/// Says whether a request expects its answer as gRPC.
pub(super) fn is_grpc(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = kind.get(..GRPC.len()).filter(|start| start.eq_ignore_ascii_case(GRPC));
    rest.is_some() && matches!(kind.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
}

const GRPC: &[u8] = b"application/grpc";
const FIELD_OVERHEAD: usize = 32;
