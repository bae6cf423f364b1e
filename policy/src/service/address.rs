//! Where an endpoint is found: a host in its one form, with a port.

use std::fmt;
use std::str::FromStr;

use crate::host::{CanonicalHost, HostError};

/// A host name or address with a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The host is none.
    #[error("the host is neither a name nor an address")]
    Host,
    /// The port is none.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// There is no port.
    #[error("it has no port")]
    NoPort,
}

impl Address {
    /// The host; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let host = CanonicalHost::parse(text).map_err(|error| match error {
            HostError::Port => AddressError::Port,
            HostError::Empty
            | HostError::TooLong { .. }
            | HostError::UserInfo
            | HostError::Label
            | HostError::Character { .. }
            | HostError::Address => AddressError::Host,
        })?;
        let port = host.port().ok_or(AddressError::NoPort)?;
        Ok(Self { host: host.as_str().to_owned(), port })
    }
}
