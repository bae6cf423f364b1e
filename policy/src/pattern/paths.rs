//! Patterns over canonical request paths.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{SegmentError, Segments};
use crate::path::{CanonicalPath, PathError};

/// A path in which `*` stands for one whole segment and a trailing `/**` for the rest.
///
/// `/admin/**` means `/admin`, `/admin/` and everything below it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: Arc<str>,
    segments: Segments,
}

impl PathPattern {
    /// Parses a pattern, which must be written in the form that canonical paths have.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        let path = CanonicalPath::parse(text)?;
        if path.query().is_some() {
            return Err(PathPatternError::Query);
        }
        if path.as_str() != text {
            return Err(PathPatternError::NotCanonical { canonical: path.as_str().to_owned() });
        }
        if text.contains("%2A") {
            return Err(PathPatternError::EncodedWildcard);
        }
        let segments = Segments::parse(path.key().strip_prefix('/').unwrap_or_default())?;
        Ok(Self { text: text.into(), segments })
    }

    /// Whether `path` is among those meant.
    pub fn matches(&self, path: &CanonicalPath) -> bool {
        self.segments.matches(without_root(path))
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, PathPatternError> {
        Self::parse(text)
    }
}

/// A path as segments, in the form to compare.
pub(crate) fn without_root(path: &CanonicalPath) -> &str {
    path.key().strip_prefix('/').unwrap_or_default()
}

/// Why a text is not a pattern of paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// The text is no acceptable path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is a query, which rules do not see.
    #[error("a path in a rule has no query")]
    Query,
    /// Requests never have this spelling: they are brought to another one first.
    #[error("requests for it arrive as \"{canonical}\"")]
    NotCanonical {
        /// The spelling to use.
        canonical: String,
    },
    /// An encoded `*`, which would compare as a wildcard.
    #[error("a rule cannot name the character \"*\"")]
    EncodedWildcard,
    /// A wildcard is misplaced.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}
