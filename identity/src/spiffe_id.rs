//! SPIFFE IDs and trust domains, read strictly.
//!
//! A value of either type is valid and canonical: SPIFFE-ID 2 lets a reader fold the case of scheme and trust domain, but
//! folding would turn an ID that no authority of ours issues into one that a rule matches, so upper case is refused.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest SPIFFE ID in bytes. SPIFFE-ID 2.3: longer ones should be neither made nor expected.
pub const MAX_ID_BYTES: usize = 2048;

/// The longest trust domain name in bytes.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// The name of a trust domain, such as `prod.example`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a bare trust domain name: no scheme, no path.
    pub fn parse(name: &str) -> Result<Self, ParseIdError> {
        check_trust_domain(name)?;
        Ok(Self(name.into()))
    }

    /// Parses the SPIFFE ID of a trust domain: `spiffe://` and the name, without a path.
    pub fn parse_id(id: &str) -> Result<Self, ParseIdError> {
        let id = SpiffeId::parse(id)?;
        if !id.path().is_empty() {
            return Err(ParseIdError::UnexpectedPath);
        }
        Ok(id.trust_domain())
    }

    /// Returns the bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the SPIFFE ID of the trust domain, which has no path.
    pub fn id(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl AsRef<str> for TrustDomain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = ParseIdError;

    fn from_str(name: &str) -> Result<Self, ParseIdError> {
        Self::parse(name)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A SPIFFE ID, such as `spiffe://prod.example/web`. Cloning is cheap: the text is shared.
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    path_at: usize,
}

impl SpiffeId {
    /// Parses a whole SPIFFE ID. Nothing is normalised.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        if text.is_empty() {
            return Err(ParseIdError::Empty);
        }
        if text.len() > MAX_ID_BYTES {
            return Err(ParseIdError::TooLong { bytes: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(ParseIdError::Scheme)?;
        let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(name)?;
        check_path(path)?;
        Ok(Self { text: text.into(), path_at: SCHEME.len() + name.len() })
    }

    /// Makes an ID of `trust_domain` with `path`, which is empty or begins with a slash.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, ParseIdError> {
        let text = format!("{SCHEME}{}{path}", trust_domain.0);
        if text.len() > MAX_ID_BYTES {
            return Err(ParseIdError::TooLong { bytes: text.len() });
        }
        check_path(path)?;
        Ok(Self { path_at: SCHEME.len() + trust_domain.0.len(), text: text.into() })
    }

    /// Returns the whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the trust domain. Look up by [`SpiffeId::trust_domain_name`] where a value is not needed: that allocates nothing.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_name().into())
    }

    /// Returns the name of the trust domain.
    pub fn trust_domain_name(&self) -> &str {
        self.text.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }

    /// Returns the path: empty, or a slash before each segment.
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }

    /// Returns the segments of the path.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path().split('/').skip(1)
    }

    /// Says whether the ID belongs to `trust_domain`.
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain_name() == trust_domain.as_str()
    }
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SpiffeId {}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for SpiffeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl AsRef<str> for SpiffeId {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Borrow<str> for SpiffeId {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Self::parse(text)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Why a text is not a SPIFFE ID or not a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// There is no text.
    #[error("SPIFFE ID is empty")]
    Empty,
    /// The ID is longer than [`MAX_ID_BYTES`].
    #[error("SPIFFE ID has {bytes} bytes, at most {MAX_ID_BYTES} are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The ID does not begin with `spiffe://` in lower case.
    #[error("SPIFFE ID must begin with \"spiffe://\"")]
    Scheme,
    /// There is no trust domain.
    #[error("trust domain is empty")]
    EmptyTrustDomain,
    /// The trust domain is longer than [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("trust domain has {bytes} bytes, at most {MAX_TRUST_DOMAIN_BYTES} are allowed")]
    TrustDomainTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The trust domain has a character outside `a-z 0-9 . - _`.
    #[error("trust domain has the character {found:?}, only a-z, 0-9, '.', '-' and '_' are allowed")]
    TrustDomainCharacter {
        /// The first such character.
        found: char,
    },
    /// The path does not begin with a slash.
    #[error("path must begin with '/'")]
    NoLeadingSlash,
    /// The path ends with a slash.
    #[error("path must not end with '/'")]
    TrailingSlash,
    /// Two slashes follow each other.
    #[error("path has an empty segment")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("path has a \".\" or \"..\" segment")]
    DotSegment,
    /// The path has a character outside `a-z A-Z 0-9 . - _ /`.
    #[error("path has the character {found:?}, only a-z, A-Z, 0-9, '.', '-', '_' and '/' are allowed")]
    PathCharacter {
        /// The first such character.
        found: char,
    },
    /// The ID of a trust domain has a path.
    #[error("SPIFFE ID of a trust domain must not have a path")]
    UnexpectedPath,
}

fn check_trust_domain(name: &str) -> Result<(), ParseIdError> {
    if name.is_empty() {
        return Err(ParseIdError::EmptyTrustDomain);
    }
    if let Some(found) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_')) {
        return Err(ParseIdError::TrustDomainCharacter { found });
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(ParseIdError::TrustDomainTooLong { bytes: name.len() });
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), ParseIdError> {
    if path.is_empty() {
        return Ok(());
    }
    let segments = path.strip_prefix('/').ok_or(ParseIdError::NoLeadingSlash)?;
    if path.ends_with('/') {
        return Err(ParseIdError::TrailingSlash);
    }
    segments.split('/').try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), ParseIdError> {
    match segment {
        "" => Err(ParseIdError::EmptySegment),
        "." | ".." => Err(ParseIdError::DotSegment),
        _ => {
            match segment.chars().find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_'))
            {
                Some(found) => Err(ParseIdError::PathCharacter { found }),
                None => Ok(()),
            }
        }
    }
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests;
