//! What decides about the requests of one connection and tells of them, for both versions of HTTP.
//!
//! The order of calls for one request: [`Gate::admit`]; where it says so, [`Gate::mark`] just before the head goes on;
//! [`Gate::upstream_failed`] where no answer came; and last, once, [`Gate::answered`]. A request that could not be read
//! meets [`Gate::malformed`] instead of `admit`, and `answered` only where its line was read.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::TRAILER};

use super::{fields, flaw::Flaw, line::RequestLine};
use crate::live::Cut;

/// What decides about requests, and tells of them.
pub(crate) trait Gate: Send + Sync + 'static {
    /// Decides about a request. A refusal is on record before this returns.
    fn admit(&self, line: &RequestLine) -> Admission;
    /// Puts a request that could not be read on record.
    fn malformed(&self, flaw: Flaw, start: &[u8], line: Option<&RequestLine>) -> audit::DenialId;
    /// Says what only this proxy may add, after everything a client said was cleaned. Where it can be said no longer,
    /// nothing may be forwarded: the refusal is on record before this returns its name.
    fn mark(&self, line: &RequestLine) -> Result<Marks, audit::DenialId>;
    /// Notes that a request was not answered by its service.
    fn upstream_failed(&self, error: &'static str);
    /// Notes that a request is over: told once for each request that was admitted or refused.
    fn answered(&self, answered: &Answered<'_>);
    /// Puts on record that the connection is about to be cut.
    fn cut(&self, cut: &Cut);
    /// Returns whether failures are told in words: to our own application, but to no peer.
    fn explains(&self) -> bool;
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Forward,
    Refuse(audit::DenialId),
}

/// What is changed of a request's fields at the last moment.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Fields of ours; what came under their names is gone first.
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    /// A field that does not go on, in any spelling.
    pub(crate) strip: Option<std::sync::Arc<str>>,
    /// No trailer goes on, and none is announced.
    pub(crate) drop_trailers: bool,
}

impl Marks {
    /// Changes the fields of a request that is forwarded as a map. Whoever forwards trailers looks at `drop_trailers`.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        if self.drop_trailers {
            fields::remove(headers, TRAILER.as_str());
        }
        if let Some(name) = &self.strip {
            fields::remove(headers, name);
        }
        for (name, value) in self.set {
            headers.insert(name, value);
        }
    }
}

/// How a request went, told when it is over.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) line: &'a RequestLine,
    /// The status of the answer; none where the request ended without one.
    pub(crate) status: Option<StatusCode>,
    /// The status in the trailers, or in the head of an answer without a body, of a gRPC call.
    pub(crate) grpc_status: Option<u32>,
    /// From the request's head to the end of its answer.
    pub(crate) took: Duration,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    pub(crate) outcome: Outcome,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The client has its whole answer.
    Finished,
    /// One of the two sides broke off, or no service answered.
    Broken,
    /// Its right was withdrawn, or it took longer than it may.
    Cut,
    /// It was refused.
    Refused,
}

impl Outcome {
    /// Returns the word that metrics and records use.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Broken => "broken",
            Self::Cut => "cut",
            Self::Refused => "refused",
        }
    }
}
