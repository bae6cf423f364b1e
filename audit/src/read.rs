//! Reading logs back: records out of lines, whoever wrote them.

use crate::record::{MAX_LINE, Record};

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The line is longer than any record.
    #[error("line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The line is not one of our records.
    #[error("not an audit record")]
    NotARecord(#[source] serde_json::Error),
}

/// Reads one line, without its line feed.
///
/// # Errors
/// When the line is no record of ours.
pub fn parse(line: &[u8]) -> Result<Record, ParseError> {
    if line.len() > MAX_LINE {
        return Err(ParseError::TooLong);
    }
    serde_json::from_slice(line).map_err(ParseError::NotARecord)
}
