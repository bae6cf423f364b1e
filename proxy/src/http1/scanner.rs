//! Sees every byte of an HTTP/1 connection before the library does and lets through only what has one reading.
//!
//! A head is released whole or not at all; body bytes are released as far as their framing holds. The scanner
//! does no I/O. Whatever it accepts, hyper reads with the same method, target, fields and framing (a property
//! test says so).

mod chunked;
mod head;
#[cfg(test)]
mod tests;

use chunked::{Chunked, Progress};
pub(crate) use head::HeadLimits;
use head::{Framing, Head};

use super::flaw::Flaw;

/// Which kind of message is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Requests from a client.
    Request,
    /// Responses from an upstream; after HEAD no body follows.
    Response {
        /// The request was a HEAD.
        head_only: bool,
    },
}

/// What the scanner waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between messages: not a byte of the next one is here.
    Idle,
    /// Part of a head is here.
    Head,
    /// Part of a body is still to come.
    Body,
    /// The body lasts until the connection closes.
    UntilClose,
}

/// The bytes that may go on, and what they complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Released {
    /// How many of the bytes may go on.
    pub(crate) bytes: usize,
    /// The head of a request or of a final response ends among them.
    pub(crate) head: bool,
}

/// The state of one direction of one connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    limits: HeadLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Partial(Head),
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Scanner {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head(Head::default()) }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Head(_) => Phase::Idle,
            State::Partial(_) => Phase::Head,
            State::Length(_) | State::Chunked(_) => Phase::Body,
            State::UntilClose => Phase::UntilClose,
        }
    }

    /// Scans `bytes`: those not released by the call before, and any that came since.
    ///
    /// Stops where a message ends, so that a flaw is always that of one message and the caller can say what
    /// comes next. On a flaw nothing of `bytes` may go on that was not released before.
    pub(crate) fn scan(&mut self, bytes: &[u8], side: Side) -> Result<Released, Flaw> {
        let mut released = Released { bytes: 0, head: false };
        while let Some(rest) = bytes.get(released.bytes..).filter(|rest| !rest.is_empty()) {
            match &mut self.state {
                State::Head(head) | State::Partial(head) => {
                    let Some((length, framing)) = head.scan(rest, side, self.limits)? else {
                        self.state = State::Partial(std::mem::take(head));
                        break;
                    };
                    released.bytes += length;
                    released.head = framing != Framing::Interim;
                    self.state = State::after(framing);
                }
                State::Length(_) | State::Chunked(_) | State::UntilClose => {
                    released.bytes += self.body(rest)?;
                }
            }
            if self.phase() == Phase::Idle {
                break;
            }
        }
        Ok(released)
    }

    fn body(&mut self, rest: &[u8]) -> Result<usize, Flaw> {
        match &mut self.state {
            State::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Head(Head::default());
                }
                Ok(taken)
            }
            State::Chunked(chunked) => match chunked.scan(rest)? {
                Progress::More => Ok(rest.len()),
                Progress::Ends(taken) => {
                    self.state = State::Head(Head::default());
                    Ok(taken)
                }
            },
            State::UntilClose | State::Head(_) | State::Partial(_) => Ok(rest.len()),
        }
    }
}

impl State {
    fn after(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Interim => Self::Head(Head::default()),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::new()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

/// `tchar` of RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may stand in a field value or a first line: visible characters, blanks, tabs and bytes above ASCII.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..=0xff)
}

/// What may stand in a request target: RFC 3986, and `|`, `[`, `]` that applications send; never `#` or `\`.
fn is_target(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'|' | b'~')
}
