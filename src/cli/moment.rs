//! Points in time on the command line: `now`, RFC 3339, or how long ago (`1h`).

use std::str::FromStr;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::duration;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) SystemTime);

/// Why a text is not a point in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `now`, a time like 2026-11-23T15:00:00Z, or how long ago, like 90s, 15m, 1h or 7d")]
pub(crate) struct MomentError;

impl Moment {
    /// Parses a text; what is told as "ago" is reckoned from `now`.
    fn parse(text: &str, now: SystemTime) -> Result<Self, MomentError> {
        if text == "now" {
            return Ok(Self(now));
        }
        if let Ok(ago) = duration::parse(text) {
            return now.checked_sub(ago).map(Self).ok_or(MomentError);
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| MomentError)?;
        Ok(Self(at.into()))
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn each_spelling_is_read() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        let read = ["now", "1h", "1970-01-01T01:00:00+01:00", "1970-01-01T00:00:05Z"]
            .map(|text| Moment::parse(text, now).unwrap().0.duration_since(UNIX_EPOCH).unwrap().as_secs());

        assert_eq!(read, [10_000, 6_400, 0, 5]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "yesterday", "2026-11-23", "1h ago", "12:00", "5"] {
            assert_eq!(text.parse::<Moment>(), Err(MomentError), "{text:?}");
        }
    }
}
