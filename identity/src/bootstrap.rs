//! The join string: all that a new node needs to find its CA, trust it and be let in, in one line.
//!
//! `vs1:<host:port>:<token>:<SHA-256 of the root certificate>`. It holds a secret: it comes from a file, standard input or a
//! credential, never from the command line.

use zeroize::Zeroizing;

use crate::crypto;

/// The longest join string in bytes.
pub const MAX_JOIN_STRING_BYTES: usize = 1024;

/// The longest token in bytes.
pub const MAX_TOKEN_BYTES: usize = 256;

/// A text that is not shown and is wiped on drop.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text that is secret from here on.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What a join string says.
pub struct JoinString {
    ca: String,
    token: Secret,
    root_hash: [u8; 32],
}

impl JoinString {
    /// Puts together the address of a CA (`host:port`), a join token and the SHA-256 of the CA's root certificate.
    pub fn new(ca: &str, token: Secret, root_hash: [u8; 32]) -> Result<Self, JoinStringError> {
        check_address(ca)?;
        check_token(token.expose())?;
        Ok(Self { ca: ca.to_owned(), token, root_hash })
    }

    /// Parses one line. White space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, JoinStringError> {
        let text = text.trim_ascii();
        if text.len() > MAX_JOIN_STRING_BYTES {
            return Err(JoinStringError::TooLong);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(JoinStringError::Version)?;
        // From the right: an IPv6 address has colons of its own.
        let mut parts = rest.rsplitn(3, ':');
        let (Some(hash), Some(token), Some(ca)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(JoinStringError::Parts);
        };
        Self::new(ca, Secret::new(token), crypto::from_hex(hash).ok_or(JoinStringError::RootHash)?)
    }

    /// Returns the address of the CA: `host:port`.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// Returns the join token.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// Returns the SHA-256 of the CA's root certificate (DER).
    pub fn root_hash(&self) -> &[u8; 32] {
        &self.root_hash
    }

    /// Returns the line that [`JoinString::parse`] reads.
    pub fn to_secret(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}:{}:{}", self.ca, self.token.expose(), crypto::hex(&self.root_hash)))
    }
}

/// Why a text is not a join string. The text is secret and is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinStringError {
    /// The text is longer than [`MAX_JOIN_STRING_BYTES`].
    #[error("join string is longer than {MAX_JOIN_STRING_BYTES} bytes")]
    TooLong,
    /// The text does not begin with `vs1:`.
    #[error("join string must begin with \"vs1:\"")]
    Version,
    /// There are too few parts.
    #[error("join string must be vs1:<host:port>:<token>:<sha256 of the root>")]
    Parts,
    /// The address is not `host:port`.
    #[error("address of the CA in the join string must be host:port")]
    Address,
    /// The token is empty, too long or has other characters.
    #[error(
        "token in the join string must be 1 to {MAX_TOKEN_BYTES} of the characters a-z, A-Z, 0-9, '-', '_' and '.'"
    )]
    Token,
    /// The hash is not 64 lower-case hexadecimal digits.
    #[error("root hash in the join string must be 64 lower-case hexadecimal digits")]
    RootHash,
}

fn check_address(address: &str) -> Result<(), JoinStringError> {
    let (host, port) = address.rsplit_once(':').ok_or(JoinStringError::Address)?;
    let port_is_good =
        port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let host_is_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'))
        }
    };
    if port_is_good && host_is_good { Ok(()) } else { Err(JoinStringError::Address) }
}

fn check_token(token: &str) -> Result<(), JoinStringError> {
    let is_good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(is_good) {
        Ok(())
    } else {
        Err(JoinStringError::Token)
    }
}

const PREFIX: &str = "vs1:";

#[cfg(test)]
mod tests;
