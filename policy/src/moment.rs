//! Moments as policies write them: a day, or a date and time with its offset.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment read from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub SystemTime);

impl Moment {
    /// How it is described to those who wrote something else.
    pub const WANTED: &str = "a date such as 2027-01-31 or 2027-01-31T18:00:00Z";
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let whole = if text.len() == DAY.len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let moment = OffsetDateTime::parse(&whole, &Rfc3339).map_err(|_| MomentError::Syntax)?;
        let seconds =
            u64::try_from(moment.unix_timestamp()).ok().filter(|seconds| *seconds <= LAST.as_secs());
        seconds.map(|_| Self(moment.into())).ok_or(MomentError::Range)
    }
}

/// Shows a moment in the way it is written in files.
pub(crate) fn shown(moment: SystemTime) -> String {
    OffsetDateTime::from(moment).format(&Rfc3339).unwrap_or_else(|_| "an unwritable moment".to_owned())
}

/// Why a text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// It is written otherwise.
    #[error("not a day, nor a date and time with an offset")]
    Syntax,
    /// It is out of range.
    #[error("not between 1970 and 9999")]
    Range,
}

/// The last moment that can be written: 9999-12-31T23:59:59Z.
pub(crate) const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A moment that no policy can write and no decision is later than.
pub(crate) fn never() -> SystemTime {
    SystemTime::UNIX_EPOCH + LAST + Duration::from_secs(1)
}

const DAY: &str = "2027-01-31";
