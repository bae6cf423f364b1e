//! W3C Trace Context (Recommendation of 2021-11-23): which trace a request belongs to, read strictly and written anew.
//!
//! What a caller sends is a hint for tracing, never an identity: it is read, bounded, and passed on as a child of our own span.

use std::{cell::Cell, fmt};

use http::HeaderName;
use identity::crypto;

/// The name of the field that carries a trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A span of ours in some trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) trace: TraceId,
    pub(crate) id: SpanId,
    /// The span of whoever called, where it said so.
    pub(crate) parent: Option<SpanId>,
    /// Whether somebody records the trace.
    pub(crate) sampled: bool,
}

/// Names a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(pub(crate) [u8; 16]);

/// Names a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId(pub(crate) [u8; 8]);

/// What a caller says of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    trace: TraceId,
    id: SpanId,
    sampled: bool,
}

impl Span {
    /// Begins a span below what the caller sent, or a trace of its own. Of several fields none is believed (2.2).
    /// `sample` decides about a trace that begins here.
    pub(crate) fn begin<'v>(
        mut sent: impl Iterator<Item = &'v [u8]>,
        sample: impl FnOnce(u64) -> bool,
    ) -> Self {
        let parent = match (sent.next(), sent.next()) {
            (Some(only), None) => Parent::read(only),
            (None, _) | (Some(_), Some(_)) => None,
        };
        let id = SpanId(random().to_be_bytes());
        match parent {
            Some(Parent { trace, id: parent, sampled }) => Self { trace, id, parent: Some(parent), sampled },
            None => {
                let (high, low) = (random(), random());
                let mut trace = [0; 16];
                let (front, back) = trace.split_at_mut(8);
                front.copy_from_slice(&high.to_be_bytes());
                back.copy_from_slice(&low.to_be_bytes());
                Self { trace: TraceId(trace), id, parent: None, sampled: sample(low) }
            }
        }
    }
}

/// Writes what goes on: version 00, and no flag but the one for sampling.
impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "00-{}-{}-0{}", self.trace, self.id, u8::from(self.sampled))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl Parent {
    /// 3.2: `version-trace-parent-flags`. A later version may go on after the flags.
    fn read(text: &[u8]) -> Option<Self> {
        let version = hex::<1>(text.get(..2)?)?;
        let fits = match (version, text.get(LENGTH)) {
            ([0xff], _) => false,
            ([0], more) => more.is_none(),
            (_, more) => more.is_none_or(|next| *next == b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
        if !fits || !dashes || text.len() > LONGEST {
            return None;
        }
        let (trace, id) = (hex::<16>(text.get(3..35)?)?, hex::<8>(text.get(36..52)?)?);
        let [flags] = hex::<1>(text.get(53..LENGTH)?)?;
        let named = trace != [0; 16] && id != [0; 8];
        named.then_some(Self { trace: TraceId(trace), id: SpanId(id), sampled: flags & 1 == 1 })
    }
}

/// Reads lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

/// Numbers for names, which have to differ and need not be secret: a system call for each would cost more than the span.
fn random() -> u64 {
    thread_local!(static STATE: Cell<u64> = const { Cell::new(0) });
    STATE.with(|state| {
        let mut number = state.get();
        if number == 0 {
            // Without random numbers from the system there are no handshakes either.
            number = u64::from_be_bytes(crypto::random::<8>().unwrap_or([1; 8])) | 1;
        }
        // Marsaglia's xorshift64 never comes to nought.
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        state.set(number);
        number
    })
}

/// The length of version 00.
const LENGTH: usize = 55;
/// More than any version is likely to have.
const LONGEST: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn begin(sent: &[&str]) -> Span {
        Span::begin(sent.iter().map(|text| text.as_bytes()), |_| false)
    }

    #[test]
    fn a_span_goes_on_in_the_trace_of_its_caller() {
        let span = begin(&[SENT]);

        assert_eq!(span.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span.parent.map(|parent| parent.to_string()).as_deref(), Some("00f067aa0ba902b7"));
        assert!(span.sampled);
        assert_eq!(span.to_string(), format!("00-{}-{}-01", span.trace, span.id));
        assert_eq!(begin(&[&span.to_string()]).parent, Some(span.id));
    }

    #[test]
    fn what_is_no_trace_context_begins_a_trace() {
        for sent in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(begin(&[sent]).parent, None, "{sent}");
        }
        assert_eq!(begin(&[SENT, SENT]).parent, None);
        assert!(begin(&["01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"]).parent.is_some());
    }

    #[test]
    fn names_differ() {
        let mut names: Vec<_> = (0..1000).map(|_| begin(&[]).to_string()).collect();
        names.sort();
        names.dedup();

        assert_eq!(names.len(), 1000);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(sent in proptest::collection::vec(any::<u8>(), 0..600)) {
            let span = Span::begin(std::iter::once(sent.as_slice()), |_| true);

            prop_assert_eq!(span.to_string().len(), LENGTH);
        }
    }
}
