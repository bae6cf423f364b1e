//! Patterns over canonical hosts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::host::{CanonicalHost, HostError};

/// A host, or `*.` and a host for every name with exactly one label more.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    text: Arc<str>,
    kind: HostKind,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum HostKind {
    /// This very host.
    Exact(Arc<str>),
    /// One label, a dot, and this host.
    Below(Arc<str>),
}

impl HostPattern {
    /// Parses a pattern, which must be written in the form that canonical hosts have, without a port.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(HostPatternError::Wildcard);
        }
        let host = CanonicalHost::parse(name)?;
        if host.port().is_some() {
            return Err(HostPatternError::Port);
        }
        if host.as_str() != name {
            return Err(HostPatternError::NotCanonical { canonical: host.as_str().to_owned() });
        }
        if below && is_address(name) {
            return Err(HostPatternError::Wildcard);
        }
        let kind = if below { HostKind::Below(name.into()) } else { HostKind::Exact(name.into()) };
        Ok(Self { text: text.into(), kind })
    }

    /// Whether `host` is among those meant. Its port is not looked at.
    pub fn matches(&self, host: &CanonicalHost) -> bool {
        match &self.kind {
            HostKind::Exact(name) => host.as_str() == &**name,
            HostKind::Below(parent) => parent_of(host).is_some_and(|found| found == &**parent),
        }
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn kind(&self) -> &HostKind {
        &self.kind
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        Self::parse(text)
    }
}

/// The host without its first label; an address has no parent.
pub(crate) fn parent_of(host: &CanonicalHost) -> Option<&str> {
    if is_address(host.as_str()) {
        return None;
    }
    host.as_str().split_once('.').map(|(_, parent)| parent)
}

fn is_address(name: &str) -> bool {
    // A canonical name whose last label is a number is an address.
    name.starts_with('[')
        || name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Why a text is not a pattern of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// The text is no acceptable host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// There is a port, which is matched by `port`.
    #[error("a host in a rule has no port")]
    Port,
    /// Requests never have this spelling: they are brought to another one first.
    #[error("requests for it arrive as \"{canonical}\"")]
    NotCanonical {
        /// The spelling to use.
        canonical: String,
    },
    /// A wildcard is misplaced.
    #[error("\"*\" can only be the whole first label of a name")]
    Wildcard,
}
