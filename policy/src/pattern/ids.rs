//! Patterns over SPIFFE IDs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use identity::{ParseIdError, SpiffeId};

use super::{SegmentError, Segments};

/// A SPIFFE ID in which `*` stands for one whole path segment and a trailing `/**` for the rest.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdPattern {
    text: Arc<str>,
    segments: Segments,
}

impl IdPattern {
    /// Parses an ID or a pattern.
    pub fn parse(text: &str) -> Result<Self, IdPatternError> {
        let rest = text.strip_prefix(SCHEME).ok_or(IdPatternError::Scheme)?;
        if rest.split('/').next().is_some_and(|domain| domain.contains('*')) {
            return Err(IdPatternError::TrustDomain);
        }
        let segments = Segments::parse(rest)?;
        // Each wildcard stands for something an ID could hold, so the checked text is an ID of the same shape.
        SpiffeId::parse(&text.replace("**", "x").replace('*', "x"))?;
        Ok(Self { text: text.into(), segments })
    }

    /// Whether `id` is among those meant.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        self.segments.matches(without_scheme(id))
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the one ID meant, if there is no wildcard.
    pub fn literal(&self) -> Option<SpiffeId> {
        if self.segments.is_literal() { SpiffeId::parse(&self.text).ok() } else { None }
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for IdPattern {
    type Err = IdPatternError;

    fn from_str(text: &str) -> Result<Self, IdPatternError> {
        Self::parse(text)
    }
}

/// An ID as segments: the trust domain, then those of the path.
pub(crate) fn without_scheme(id: &SpiffeId) -> &str {
    id.as_str().get(SCHEME.len()..).unwrap_or_default()
}

/// Why a text is not a pattern of SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdPatternError {
    /// The text does not begin with `spiffe://`.
    #[error("a SPIFFE ID begins with \"spiffe://\"")]
    Scheme,
    /// The trust domain holds a wildcard.
    #[error("the trust domain must be spelled out, without \"*\"")]
    TrustDomain,
    /// A wildcard is misplaced.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The rest is not a SPIFFE ID.
    #[error(transparent)]
    Id(#[from] ParseIdError),
}

const SCHEME: &str = "spiffe://";
