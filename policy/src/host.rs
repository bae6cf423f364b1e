//! The one form of a host: what policy matches and what is forwarded.
//!
//! Lower case, without a trailing dot, its port kept apart. User information, escapes, empty labels and numbers that
//! only some readers take for an address are refused.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A host name or address in the one accepted form, and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CanonicalHost {
    name: String,
    port: Option<u16>,
}

impl CanonicalHost {
    /// Parses the value of a `Host` header or the authority of a target.
    pub fn parse(authority: &str) -> Result<Self, HostError> {
        if authority.len() > MAX_HOST_BYTES {
            return Err(HostError::TooLong { bytes: authority.len() });
        }
        if authority.contains('@') {
            return Err(HostError::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let name = if host.starts_with('[') { canonical_v6(host)? } else { canonical_name(host)? };
        Ok(Self { name, port })
    }

    /// Returns the name or address without a port; an IPv6 address in brackets.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns the port, if one was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for CanonicalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Why a host is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// There is no host.
    #[error("host is empty")]
    Empty,
    /// The text is longer than [`MAX_HOST_BYTES`].
    #[error("host has {bytes} bytes, more than {MAX_HOST_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// There is a user before an `@`.
    #[error("host contains user information")]
    UserInfo,
    /// The port is not a number from 1 to 65535 in decimal.
    #[error("port of the host is not a number from 1 to 65535")]
    Port,
    /// A label is empty or longer than 63 bytes.
    #[error("host has an empty or over-long label")]
    Label,
    /// A character outside `a-z 0-9 - _ .`.
    #[error("host contains the character {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
    /// The last label is a number, but the whole is not four decimal numbers.
    #[error("host looks like an address and is not one")]
    Address,
}

impl HostError {
    /// A short code for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "host_empty",
            Self::TooLong { .. } => "host_too_long",
            Self::UserInfo => "host_user_info",
            Self::Port => "host_port",
            Self::Label => "host_label",
            Self::Character { .. } => "host_character",
            Self::Address => "host_address",
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), HostError> {
    let (host, port) = match (authority.starts_with('['), authority.rsplit_once(':')) {
        (true, Some((host, port))) if host.ends_with(']') => (host, Some(port)),
        (true, _) | (false, None) => (authority, None),
        (false, Some((host, port))) => (host, Some(port)),
    };
    match port {
        Some(port) => Ok((host, Some(parse_port(port)?))),
        None => Ok((host, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, HostError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if !plain {
        return Err(HostError::Port);
    }
    text.parse().map_err(|_| HostError::Port)
}

fn canonical_v6(host: &str) -> Result<String, HostError> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(HostError::Address)?;
    let address: Ipv6Addr = inner.parse().map_err(|_| HostError::Address)?;
    Ok(format!("[{address}]"))
}

fn canonical_name(host: &str) -> Result<String, HostError> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if let Some(found) =
        name.chars().find(|letter| !matches!(letter, 'a'..='z' | '0'..='9' | '-' | '_' | '.'))
    {
        return Err(HostError::Character { found });
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > MAX_LABEL_BYTES) {
        return Err(HostError::Label);
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    // WHATWG URL 3.5: a name whose last label is a number is an address; only one spelling of it is accepted.
    if is_number(last) && name.parse::<Ipv4Addr>().is_err() {
        return Err(HostError::Address);
    }
    Ok(name)
}

fn is_number(label: &str) -> bool {
    let hex =
        label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || label.bytes().all(|byte| byte.is_ascii_digit())
}

/// Longest accepted host with its port: 253 bytes of name (RFC 1035 2.3.4), a dot, a colon and five digits.
pub const MAX_HOST_BYTES: usize = 260;

const MAX_LABEL_BYTES: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CanonicalHost, HostError, MAX_HOST_BYTES};

    fn host(text: &str) -> Result<(String, Option<u16>), HostError> {
        CanonicalHost::parse(text).map(|host| (host.as_str().to_owned(), host.port()))
    }

    #[test]
    fn equal_spellings_become_one_host() {
        for (raw, name, port) in [
            ("Example.COM", "example.com", None),
            ("example.com.", "example.com", None),
            ("example.com:8443", "example.com", Some(8443)),
            ("EXAMPLE.com.:80", "example.com", Some(80)),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[0:0::1]", "[::1]", None),
            ("my_host", "my_host", None),
            ("1.example", "1.example", None),
        ] {
            assert_eq!(host(raw), Ok((name.to_owned(), port)), "{raw}");
        }
    }

    #[test]
    fn an_ambiguous_host_is_refused_with_its_reason() {
        for (raw, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            (":80", HostError::Empty),
            ("a@b", HostError::UserInfo),
            ("a:b@c:80", HostError::UserInfo),
            ("a:", HostError::Port),
            ("a:0", HostError::Port),
            ("a:080", HostError::Port),
            ("a:65536", HostError::Port),
            ("a:+80", HostError::Port),
            ("a:x", HostError::Port),
            ("a..b", HostError::Label),
            (".a", HostError::Label),
            ("a..", HostError::Label),
            ("a b", HostError::Character { found: ' ' }),
            ("a/b", HostError::Character { found: '/' }),
            ("a%2eb", HostError::Character { found: '%' }),
            ("a\0", HostError::Character { found: '\0' }),
            ("é.example", HostError::Character { found: 'é' }),
            ("a,b", HostError::Character { found: ',' }),
            ("127.1", HostError::Address),
            ("2130706433", HostError::Address),
            ("0x7f.0.0.0x1", HostError::Address),
            ("010.0.0.1", HostError::Address),
            ("1.2.3.4.5", HostError::Address),
            ("[::1", HostError::Address),
            ("[fe80::1%25eth0]", HostError::Address),
            ("[]", HostError::Address),
        ] {
            assert_eq!(host(raw), Err(error), "{raw:?}");
        }
    }

    #[test]
    fn an_over_long_host_or_label_is_refused() {
        assert_eq!(host(&"a".repeat(63)), Ok(("a".repeat(63), None)));
        assert_eq!(host(&"a".repeat(64)), Err(HostError::Label));
        assert_eq!(
            host(&"a".repeat(MAX_HOST_BYTES + 1)),
            Err(HostError::TooLong { bytes: MAX_HOST_BYTES + 1 })
        );
    }

    proptest! {
        #[test]
        fn a_canonical_host_is_its_own_canonical_host(raw in "[A-Za-z0-9._:\\[\\]-]{0,20}") {
            if let Ok(first) = CanonicalHost::parse(&raw) {
                prop_assert_eq!(CanonicalHost::parse(&first.to_string()), Ok(first));
            }
        }

        #[test]
        fn no_text_makes_it_panic(raw in "\\PC*") {
            let _ = CanonicalHost::parse(&raw);
        }
    }
}
