//! One message head, line by line, as its bytes arrive: what framing follows from it, or what is wrong with it.

use policy::CanonicalHost;

use super::{Asked, Side, is_target, is_text, is_token};
use crate::http1::flaw::Flaw;

/// How the body after a head is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
    /// An interim response: another head follows.
    Interim,
    /// Bytes of another protocol follow.
    Switch,
}

/// The scan of one head; `line` is where the first line not looked at begins.
#[derive(Debug, Default)]
pub(super) struct Head {
    line: usize,
    searched: usize,
    first: Option<First>,
    fields: Vec<FieldSpan>,
    length: Option<u64>,
    chunked: bool,
    host: Option<CanonicalHost>,
    ended: bool,
}

/// Where a field stands in its head: its name, and its value without the blanks around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldSpan {
    name: (u32, u32),
    value: (u32, u32),
}

impl FieldSpan {
    pub(crate) fn name(self, head: &[u8]) -> &[u8] {
        part(head, self.name)
    }

    pub(crate) fn value(self, head: &[u8]) -> &[u8] {
        part(head, self.value)
    }
}

fn part(head: &[u8], (from, to): (u32, u32)) -> &[u8] {
    head.get(from as usize..to as usize).unwrap_or_default()
}

/// What the first line of a head says.
#[derive(Debug, Clone)]
pub(crate) enum First {
    /// Of a request: where its method ends and its target stands, and the authority that the target names.
    Request { old: bool, method: usize, target: std::ops::Range<usize>, authority: Option<CanonicalHost> },
    /// Of a response.
    Response { status: u16, old: bool },
}

/// A complete head.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// Its bytes, the empty line included.
    pub(crate) length: usize,
    pub(crate) first: First,
    pub(crate) fields: Vec<FieldSpan>,
    pub(crate) framing: Framing,
    /// Of a request.
    pub(crate) host: Option<CanonicalHost>,
}

/// What limits a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes of first line and header fields together.
    pub(crate) bytes: usize,
    /// Number of header fields.
    pub(crate) count: usize,
}

impl Head {
    /// Looks at lines of `bytes` not looked at before; true when the head is complete.
    pub(super) fn scan(&mut self, bytes: &[u8], side: Side, limits: HeadLimits) -> Result<bool, Flaw> {
        while !self.ended {
            let rest = bytes.get(self.searched..).unwrap_or_default();
            let Some(found) = memchr::memchr(b'\n', rest) else {
                self.searched = bytes.len();
                return if bytes.len() >= limits.bytes { Err(Flaw::HeadTooLarge) } else { Ok(false) };
            };
            let end = self.searched + found;
            if end >= limits.bytes {
                return Err(Flaw::HeadTooLarge);
            }
            let start = self.line;
            let line = bytes.get(start..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(Flaw::BareLf)?;
            (self.line, self.searched) = (end + 1, end + 1);
            match &self.first {
                None => self.first = Some(first_line(line, side)?),
                Some(_) if line.is_empty() => self.ended = true,
                Some(_) => self.field(start, line, limits)?,
            }
        }
        Ok(true)
    }

    /// Says what a complete head comes to.
    pub(super) fn finish(self, side: Side) -> Result<Scanned, Flaw> {
        let framing = self.framing(side)?;
        let (length, host, fields) = (self.line, self.host, self.fields);
        Ok(Scanned { length, first: self.first.ok_or(Flaw::StatusLine)?, fields, framing, host })
    }

    fn field(&mut self, start: usize, line: &[u8], limits: HeadLimits) -> Result<(), Flaw> {
        if self.fields.len() >= limits.count {
            return Err(Flaw::TooManyHeaders);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Flaw::Folded);
        }
        let colon = memchr::memchr(b':', line).ok_or(Flaw::HeaderName)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Flaw::HeaderName)?;
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(Flaw::HeaderName);
        }
        if name.len() > MAX_NAME {
            return Err(Flaw::HeadTooLarge);
        }
        let value = value.get(1..).unwrap_or_default();
        check_text(value)?;
        let front = value.len() - value.trim_ascii_start().len();
        let trimmed = value.trim_ascii();
        let from = start + colon + 1 + front;
        // A head is smaller than 4 GiB.
        let span = |from: usize, length: usize| (from as u32, (from + length) as u32);
        if self.fields.is_empty() {
            self.fields.reserve(USUAL_FIELDS);
        }
        self.fields.push(FieldSpan { name: span(start, colon), value: span(from, trimmed.len()) });
        self.framing_header(name, trimmed)
    }

    fn framing_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Flaw> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                let host = host(value, Flaw::HostInvalid)?;
                if self.host.replace(host).is_some() {
                    return Err(Flaw::HostRepeated);
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse_length(value)?;
                if self.length.replace(length).is_some() {
                    return Err(Flaw::LengthRepeated);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Flaw::TransferEncoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, side: Side) -> Result<Framing, Flaw> {
        if self.chunked && self.length.is_some() {
            return Err(Flaw::LengthBesideEncoding);
        }
        match (&self.first, side) {
            (Some(First::Request { old, authority, .. }), _) => {
                self.request_framing(*old, authority.as_ref())
            }
            (Some(First::Response { status, old }), Side::Response(asked)) => {
                self.response_framing(*status, *old, asked)
            }
            (Some(First::Response { .. }) | None, _) => Err(Flaw::StatusLine),
        }
    }

    fn request_framing(&self, old: bool, target: Option<&CanonicalHost>) -> Result<Framing, Flaw> {
        let host = self.host.as_ref().ok_or(Flaw::HostMissing)?;
        if target.is_some_and(|target| target != host) {
            return Err(Flaw::HostConflict);
        }
        match (self.chunked, self.length) {
            (true, _) if old => Err(Flaw::EncodingInOldVersion),
            (true, _) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::None),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }

    fn response_framing(&self, status: u16, old: bool, asked: Asked) -> Result<Framing, Flaw> {
        if self.chunked && old {
            return Err(Flaw::EncodingInOldVersion);
        }
        match status {
            101 if asked == Asked::Upgrade
                && !old
                && !self.chunked
                && self.length.is_none_or(|length| length == 0) =>
            {
                Ok(Framing::Switch)
            }
            // Nobody asked for another protocol.
            101 => Err(Flaw::Unrequested),
            // RFC 9112 6.1, 6.2: no framing fields in 1xx and 204; a length of nought is a common slip.
            100..=199 | 204 if self.chunked || self.length.is_some_and(|length| length > 0) => {
                Err(Flaw::LengthBesideEncoding)
            }
            100..=199 => Ok(Framing::Interim),
            // RFC 9110 9.3.6: framing fields mean nothing there.
            200..=299 if asked == Asked::Connect => Ok(Framing::Switch),
            204 | 304 => Ok(Framing::None),
            _ if asked == Asked::Head => Ok(Framing::None),
            _ => Ok(match (self.chunked, self.length) {
                (true, _) => Framing::Chunked,
                (false, Some(0)) => Framing::None,
                (false, Some(length)) => Framing::Length(length),
                (false, None) => Framing::UntilClose,
            }),
        }
    }
}

fn first_line(line: &[u8], side: Side) -> Result<First, Flaw> {
    check_text(line)?;
    match side {
        Side::Request => request_line(line),
        Side::Response(_) => status_line(line),
    }
}

fn request_line(line: &[u8]) -> Result<First, Flaw> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Flaw::RequestLine);
    };
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(|&byte| is_token(byte)) {
        return Err(Flaw::RequestLine);
    }
    if target.len() > MAX_TARGET {
        return Err(Flaw::HeadTooLarge);
    }
    let old = old_version(version)?;
    let authority = target_authority(method, target)?;
    let from = method.len() + 1;
    Ok(First::Request { old, method: method.len(), target: from..from + target.len(), authority })
}

/// Checks the four forms of RFC 9112 3.2 and returns the authority where the form has one.
fn target_authority(method: &[u8], target: &[u8]) -> Result<Option<CanonicalHost>, Flaw> {
    if !target.iter().all(|&byte| is_target(byte)) {
        return Err(Flaw::Target);
    }
    if method == b"CONNECT" {
        return host(target, Flaw::Target).map(Some);
    }
    match target {
        [b'/', ..] => Ok(None),
        b"*" if method == b"OPTIONS" => Ok(None),
        _ => {
            let (authority, _) = absolute(target).ok_or(Flaw::Target)?;
            host(authority, Flaw::Target).map(Some)
        }
    }
}

/// Splits a target in absolute form into its authority and its path.
pub(crate) fn absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = strip_scheme(target)?;
    let end = rest.iter().position(|&byte| byte == b'/')?;
    rest.split_at_checked(end)
}

fn host(value: &[u8], flaw: Flaw) -> Result<CanonicalHost, Flaw> {
    std::str::from_utf8(value).ok().and_then(|text| CanonicalHost::parse(text).ok()).ok_or(flaw)
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = target.split_at_checked(b"http://".len())?;
    scheme.eq_ignore_ascii_case(b"http://").then_some(rest)
}

fn status_line(line: &[u8]) -> Result<First, Flaw> {
    let (version, rest) = line.split_at_checked(8).ok_or(Flaw::StatusLine)?;
    let old = old_version(version).map_err(|_| Flaw::StatusLine)?;
    let [b' ', a, b, c, reason @ ..] = rest else { return Err(Flaw::StatusLine) };
    let well_formed = matches!(a, b'1'..=b'9') && b.is_ascii_digit() && c.is_ascii_digit();
    if !well_formed || !matches!(reason, [] | [b' ', ..]) {
        return Err(Flaw::StatusLine);
    }
    let status = [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
    Ok(First::Response { status, old })
}

fn old_version(version: &[u8]) -> Result<bool, Flaw> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err(Flaw::Version),
    }
}

fn check_text(bytes: &[u8]) -> Result<(), Flaw> {
    match bytes.iter().find(|&&byte| !is_text(byte)) {
        None => Ok(()),
        Some(b'\r') => Err(Flaw::BareCr),
        Some(_) => Err(Flaw::Control),
    }
}

fn parse_length(value: &[u8]) -> Result<u64, Flaw> {
    let digits =
        !value.is_empty() && value.len() <= MAX_LENGTH_DIGITS && value.iter().all(u8::is_ascii_digit);
    // `010` is ten to the standard and eight to a reader that knows octal numbers.
    if !digits || matches!(value, [b'0', _, ..]) {
        return Err(Flaw::LengthInvalid);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// 18 digits fit 63 bits.
const MAX_LENGTH_DIGITS: usize = 18;
/// Twice the longest path that policy accepts; the library underneath would refuse more by itself, off the record.
const MAX_TARGET: usize = 16 * 1024;
/// The longest name of a header field; the library underneath would refuse 64 KiB by itself, off the record.
const MAX_NAME: usize = 1024;
/// The longest registered method has 17 letters.
const MAX_METHOD: usize = 32;
/// Most heads have no more fields.
const USUAL_FIELDS: usize = 12;
