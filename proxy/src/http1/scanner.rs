//! Sees every byte of an HTTP/1 connection first and lets through only what has one reading.
//!
//! A head is complete or not there at all; body bytes are handed on as far as their framing holds. The scanner does
//! no I/O. Whatever it accepts, hyper reads with the same method, target, fields and framing (a property test says
//! so).

mod chunked;
mod head;
#[cfg(test)]
mod tests;

use chunked::Chunked;
use head::Head;
pub(crate) use head::HeadLimits;
pub(super) use head::{First, Framing, Scanned, absolute};

use super::flaw::Flaw;

/// Which kind of message is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Requests from a client.
    Request,
    /// Responses from an upstream.
    Response(Asked),
}

/// What about a request decides how its response is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing: the response says it all.
    Plain,
    /// It was a HEAD: no body follows.
    Head,
    /// Another protocol may follow 101.
    Upgrade,
    /// A tunnel follows any 2xx.
    Connect,
}

/// The state of one direction of one connection between two heads.
#[derive(Debug)]
pub(crate) struct Scanner {
    limits: HeadLimits,
    head: Head,
}

impl Scanner {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { limits, head: Head::default() }
    }

    /// Scans for a head: `bytes` are all that came since the last message, whatever was shown before. A head that is
    /// complete leaves the scanner ready for the next.
    pub(crate) fn head(&mut self, bytes: &[u8], side: Side) -> Result<Option<Scanned>, Flaw> {
        if !self.head.scan(bytes, side, self.limits)? {
            return Ok(None);
        }
        std::mem::take(&mut self.head).finish(side).map(Some)
    }
}

/// One direction of one connection as its tests see it: bytes go on as far as they are known to be good.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(crate) struct Passage {
    scanner: Scanner,
    body: Body,
    partial: bool,
}

#[cfg(any(test, fuzzing))]
impl Passage {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { scanner: Scanner::new(limits), body: Body::Ended, partial: false }
    }

    /// Returns how many of `bytes` go on: those not taken by the call before, and any that came since. Stops where a
    /// message ends.
    pub(crate) fn scan(&mut self, bytes: &[u8], side: Side) -> Result<usize, Flaw> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.body.is_ended() {
                let scanned = self.scanner.head(rest, side)?;
                self.partial = scanned.is_none();
                let Some(scanned) = scanned else { break };
                taken += scanned.length;
                self.body = Body::of(scanned.framing);
            } else {
                taken += self.body.take(rest, |_| ())?;
                self.body.take_trailers();
            }
            if self.body.is_ended() {
                break;
            }
        }
        Ok(taken)
    }

    /// Says whether a message ended with the last byte that went on.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.body.is_ended() && !self.partial
    }
}

/// The rest of one body.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Box<Chunked>),
    /// All bytes until the connection ends.
    UntilClose,
    Ended,
}

impl Body {
    pub(crate) fn of(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Interim | Framing::Switch | Framing::Length(0) => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Takes the bytes of `bytes` that are the body's and shows its content to `see`; returns how many it took. All of
    /// them, unless the body ends among them.
    pub(crate) fn take(&mut self, bytes: &[u8], mut see: impl FnMut(&[u8])) -> Result<usize, Flaw> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                see(bytes.get(..taken).unwrap_or_default());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(taken)
            }
            Self::Chunked(chunked) => {
                let (taken, ended) = chunked.take(bytes, see)?;
                if ended && chunked.trailers().is_empty() {
                    *self = Self::Ended;
                }
                Ok(taken)
            }
            Self::UntilClose => {
                see(bytes);
                Ok(bytes.len())
            }
            Self::Ended => Ok(0),
        }
    }

    /// Returns the trailer section of a chunked body that has ended with one. Asked once: the body has then ended.
    pub(crate) fn take_trailers(&mut self) -> Option<Vec<u8>> {
        let Self::Chunked(chunked) = self else { return None };
        let trailers = chunked.take_trailers()?;
        *self = Self::Ended;
        Some(trailers)
    }
}

/// `tchar` of RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    kind(byte) & TOKEN != 0
}

/// What may stand in a field value or a first line: visible characters, blanks, tabs and bytes above ASCII.
fn is_text(byte: u8) -> bool {
    kind(byte) & TEXT != 0
}

/// What may stand in a request target: RFC 3986, and `|`, `[`, `]` that applications send; never `#` or `\`.
fn is_target(byte: u8) -> bool {
    kind(byte) & TARGET != 0
}

#[expect(clippy::indexing_slicing, reason = "a byte is less than 256")]
fn kind(byte: u8) -> u8 {
    KINDS[usize::from(byte)]
}

const TOKEN: u8 = 1;
const TEXT: u8 = 2;
const TARGET: u8 = 4;
/// What each byte may be part of.
static KINDS: [u8; 256] = kinds();

#[expect(clippy::indexing_slicing, reason = "the loop ends where the table does; evaluated when compiled")]
const fn kinds() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let mark = matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if mark || byte.is_ascii_alphanumeric() {
            table[at] |= TOKEN;
        }
        if matches!(byte, b'\t' | 0x20..=0x7e | 0x80..=0xff) {
            table[at] |= TEXT;
        }
        if matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'|' | b'~') {
            table[at] |= TARGET;
        }
        at += 1;
    }
    table
}
