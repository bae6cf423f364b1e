//! What each header field is to a proxy: one table for both versions of HTTP and both directions.

use std::sync::LazyLock;

/// What a field is to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It goes on as it came.
    Plain,
    Host,
    ContentLength,
    TransferEncoding,
    Trailer,
    Connection,
    Te,
    Upgrade,
    Expect,
    Date,
    GrpcStatus,
    /// It speaks of one connection only.
    Hop,
    /// It proves something to a proxy before us, or asks for such a proof.
    ProxyAuth,
    /// It says who calls, or names a refusal: only this proxy may.
    Identity,
    /// It names another method, path or host than the request.
    Override,
    /// One server behind us reads it as framing, another does not read it.
    Misspelt,
}

/// Returns what the field with this name, in lower case, is. `_` is read as `-` where that makes it dangerous.
pub(super) fn class_of(name: &[u8]) -> Class {
    let class = exact(name);
    if class == Class::Plain && name.contains(&b'_') {
        let dashed: Vec<u8> = name.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect();
        return match exact(&dashed) {
            Class::Identity => Class::Identity,
            Class::Override => Class::Override,
            Class::ContentLength | Class::TransferEncoding => Class::Misspelt,
            Class::Plain
            | Class::Host
            | Class::Trailer
            | Class::Connection
            | Class::Te
            | Class::Upgrade
            | Class::Expect
            | Class::Date
            | Class::GrpcStatus
            | Class::Hop
            | Class::ProxyAuth
            | Class::Misspelt => Class::Plain,
        };
    }
    class
}

fn exact(name: &[u8]) -> Class {
    let known = BY_LENGTH.get(name.len()).into_iter().flatten().find(|(known, _)| known.as_bytes() == name);
    match known {
        Some((_, class)) => *class,
        None if name.starts_with(b"x-")
            && IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) =>
        {
            Class::Identity
        }
        None => Class::Plain,
    }
}

/// Says whether a field may stand after a body: what decides about a message before its body is read may not
/// (RFC 9110 6.5.1).
pub(super) fn may_trail(name: &str) -> bool {
    match class_of(name.as_bytes()) {
        Class::Plain | Class::GrpcStatus => !FRONT_ONLY.contains(&name),
        Class::Date => true,
        Class::Host
        | Class::ContentLength
        | Class::TransferEncoding
        | Class::Trailer
        | Class::Connection
        | Class::Te
        | Class::Upgrade
        | Class::Expect
        | Class::Hop
        | Class::ProxyAuth
        | Class::Identity
        | Class::Override
        | Class::Misspelt => false,
    }
}

type Row = Vec<(&'static str, Class)>;

/// The names of each length.
static BY_LENGTH: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let longest = NAMES.iter().flat_map(|(_, names)| names.iter()).map(|name| name.len()).max().unwrap_or(0);
    let row = |length: usize| -> Row {
        let all = NAMES.iter().flat_map(|(class, names)| names.iter().map(|name| (*name, *class)));
        all.filter(|(name, _)| name.len() == length).collect()
    };
    (0..=longest).map(row).collect()
});

const NAMES: &[(Class, &[&str])] = &[
    (Class::Host, &["host"]),
    (Class::ContentLength, &["content-length"]),
    (Class::TransferEncoding, &["transfer-encoding"]),
    (Class::Trailer, &["trailer"]),
    (Class::Connection, &["connection"]),
    (Class::Te, &["te"]),
    (Class::Upgrade, &["upgrade"]),
    (Class::Expect, &["expect"]),
    (Class::Date, &["date"]),
    (Class::GrpcStatus, &["grpc-status"]),
    (Class::Hop, &["keep-alive", "proxy-connection", "proxy-authentication-info", "http2-settings"]),
    (Class::ProxyAuth, &["proxy-authenticate", "proxy-authorization"]),
    (Class::Identity, IDENTITY),
    (Class::Override, OVERRIDES),
];

/// What sidecars and gateways use to say who calls. `x-forwarded-for` goes too: nobody before us is trusted to
/// say whose call this is, and the socket's address is in the audit record.
const IDENTITY: &[&str] = &[
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
const IDENTITY_PREFIXES: &[&[u8]] = &[b"x-spiffe-", b"x-vouchsafe-", b"x-ssl-client-"];
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
/// Beside what has a class of its own.
const FRONT_ONLY: &[&str] = &[
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "if-match",
    "if-none-match",
    "max-forwards",
    "range",
    "set-cookie",
    "www-authenticate",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_class_in_every_spelling_that_is_read_as_it() {
        for (name, class) in [
            ("connection", Class::Connection),
            ("x-forwarded-client-cert", Class::Identity),
            ("x_forwarded-client_cert", Class::Identity),
            ("x-spiffe-anything", Class::Identity),
            ("x_vouchsafe_peer", Class::Identity),
            ("x_rewrite_url", Class::Override),
            ("content_length", Class::Misspelt),
            ("transfer_encoding", Class::Misspelt),
            ("keep-alive", Class::Hop),
            ("keep_alive", Class::Plain),
            ("x-role", Class::Plain),
            ("", Class::Plain),
        ] {
            assert_eq!(class_of(name.as_bytes()), class, "{name}");
        }
        assert_eq!(class_of(&[b'a'; 4096]), Class::Plain);
    }
}
