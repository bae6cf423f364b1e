//! What fuzz targets reach of this module: the scanner, and the line that policy sees.

use http::{Uri, request::Parts};

use super::{
    HeadLimits, RequestLine,
    scanner::{Asked, Passage, Side},
};

/// A scanner of one direction of one connection.
#[derive(Debug)]
pub struct Scanner {
    scanner: Passage,
    side: Side,
}

impl Scanner {
    /// Scans requests whose heads have at most so many bytes and fields.
    pub fn of_requests(bytes: usize, count: usize) -> Self {
        Self { scanner: Passage::new(HeadLimits { bytes, count }), side: Side::Request }
    }

    /// Scans responses to requests that were no HEAD.
    pub fn of_responses(bytes: usize, count: usize) -> Self {
        let scanner = Passage::new(HeadLimits { bytes, count });
        Self { scanner, side: Side::Response(Asked::Plain) }
    }

    /// Returns how many of `bytes` may go on, or the code of the flaw.
    ///
    /// # Errors
    /// The flaw's code, as the audit record carries it.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        self.scanner.scan(bytes, self.side).map_err(super::Flaw::code)
    }

    /// Says whether a message ended with the last byte that may go on.
    pub fn is_between_messages(&self) -> bool {
        self.scanner.is_between_messages()
    }
}

/// What policy and the upstream see of a request.
#[derive(Debug)]
pub struct Line {
    /// The host.
    pub host: String,
    /// The path; empty for a tunnel.
    pub path: String,
    /// The target that is forwarded; none for a tunnel.
    pub forwarded: Option<Uri>,
}

/// Reads the line of a head that the scanner let through.
///
/// # Errors
/// The flaw's code, as the audit record carries it.
pub fn line(parts: &mut Parts) -> Result<Line, &'static str> {
    let line = RequestLine::read(parts).map_err(super::Flaw::code)?;
    let tunnel = line.beyond() == Some("connect");
    let forwarded = if tunnel { None } else { Some(line.forwarded().map_err(super::Flaw::code)?) };
    Ok(Line { host: line.host.to_string(), path: line.path().to_owned(), forwarded })
}
