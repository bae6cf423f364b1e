//! The head of one response: from the bytes that the scanner let through to those that the client is sent.

use http::StatusCode;

use super::{
    headers,
    names::{Class, class_of},
    request::{Options, line},
    scanner::{First, Framing, Scanned},
};

/// What a client may be sent, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// It speaks HTTP/1.0.
    pub(super) old: bool,
    /// It wants its connection to go on.
    pub(super) keep_alive: bool,
    /// It takes trailers.
    pub(super) trailers: bool,
}

/// What a response's head says to whoever passes it on.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: StatusCode,
    /// Its connection may serve again.
    pub(super) reusable: bool,
    pub(super) grpc_status: Option<u32>,
    /// The names of trailers that it announces.
    pub(super) announced: Vec<Vec<u8>>,
    /// How the client is sent its body.
    pub(super) coding: Coding,
}

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Byte by byte.
    Plain,
    Chunks,
    /// Byte by byte, and the connection ends with it.
    UntilClose,
}

impl Coding {
    fn of(framing: Framing, client: Client) -> Self {
        match framing {
            Framing::None | Framing::Interim | Framing::Switch | Framing::Length(_) => Self::Plain,
            Framing::Chunked | Framing::UntilClose if client.old => Self::UntilClose,
            Framing::Chunked | Framing::UntilClose => Self::Chunks,
        }
    }
}

/// Writes the head of a response for `client`; `upgrade` is what it asked to go on with.
pub(super) fn write(
    head: &[u8],
    scanned: &Scanned,
    client: Client,
    upgrade: Option<&str>,
    out: &mut Vec<u8>,
) -> Option<Told> {
    let First::Response { status, old } = scanned.first else { return None };
    let options = Options::of(head, scanned);
    let coding = Coding::of(scanned.framing, client);
    let until_close = matches!(scanned.framing, Framing::UntilClose | Framing::Switch);
    let kept = if old { options.keep_alive && !options.close } else { !options.close };
    let status = StatusCode::from_u16(status).ok()?;
    let reusable = kept && !until_close;
    let mut told = Told { status, reusable, grpc_status: None, announced: Vec::new(), coding };
    status_line(head, scanned, client.old, out);
    let mut fields =
        Fields { told: &mut told, framing: scanned.framing, client, dated: false, switched: None };
    for field in &scanned.fields {
        fields.pass(field.name(head), field.value(head), &options, out);
    }
    let (dated, switched) = (fields.dated, fields.switched.take());
    if scanned.framing == Framing::Switch {
        return switch(status, switched.as_deref(), upgrade, out).then_some(told);
    }
    if scanned.framing != Framing::Interim {
        finish(coding, client, dated, out);
    }
    out.extend_from_slice(b"\r\n");
    Some(told)
}

/// What is added to a final head.
fn finish(coding: Coding, client: Client, dated: bool, out: &mut Vec<u8>) {
    if !dated {
        // RFC 9110 6.6.1: whoever forwards a response without a date gives it one.
        super::date::line(out);
    }
    match coding {
        Coding::Chunks => line(out, b"transfer-encoding", b"chunked"),
        Coding::Plain | Coding::UntilClose => {}
    }
    if !client.keep_alive || coding == Coding::UntilClose {
        line(out, b"connection", b"close");
    } else if client.old {
        line(out, b"connection", b"keep-alive");
    }
}

/// Ends the head after which the connection is another protocol's; false where it is not the one that was asked for.
fn switch(status: StatusCode, to: Option<&str>, wanted: Option<&str>, out: &mut Vec<u8>) -> bool {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(to), Some(wanted)) = (to, wanted) else { return false };
        // RFC 9110 7.8: one that the request named, and policy has seen.
        if !wanted.split(", ").any(|named| named == to) {
            return false;
        }
        line(out, b"connection", b"upgrade");
        line(out, b"upgrade", to.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    true
}

fn status_line(head: &[u8], scanned: &Scanned, old: bool, out: &mut Vec<u8>) {
    let end = head.windows(2).take(scanned.length).position(|pair| pair == b"\r\n").unwrap_or_default();
    let rest = head.get(VERSION..end).unwrap_or_default();
    out.extend_from_slice(if old { b"HTTP/1.0" } else { b"HTTP/1.1" });
    out.extend_from_slice(rest);
    if rest.len() == STATUS {
        // Some clients want the blank before a reason that is not there.
        out.push(b' ');
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields of one response on their way.
struct Fields<'t> {
    told: &'t mut Told,
    framing: Framing,
    client: Client,
    dated: bool,
    switched: Option<String>,
}

impl Fields<'_> {
    fn pass(&mut self, name: &[u8], value: &[u8], options: &Options, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(name);
        let lower = out.get_mut(start..).unwrap_or_default();
        lower.make_ascii_lowercase();
        let class = class_of(lower);
        let ends = !options.named.is_empty() && options.end(lower, class);
        let denial = lower == headers::DENIAL_ID.as_str().as_bytes();
        // Asked in any case: what does not pass may say something to us.
        if !self.passes(class, value) || ends || denial {
            out.truncate(start);
            return;
        }
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }

    fn passes(&mut self, class: Class, value: &[u8]) -> bool {
        match class {
            Class::Date => self.dated = true,
            Class::GrpcStatus => self.told.grpc_status = number(value),
            Class::Trailer => {
                let chunks = self.told.coding == Coding::Chunks && self.client.trailers;
                if chunks {
                    self.told.announced.extend(announced(value));
                }
                return chunks;
            }
            // RFC 9110 8.6: none in 1xx and 204; nor where another protocol follows.
            Class::ContentLength => {
                return !matches!(self.framing, Framing::Interim | Framing::Switch)
                    && self.told.status != StatusCode::NO_CONTENT;
            }
            Class::Upgrade => {
                self.switched = headers::wanted(std::iter::once(value));
                return false;
            }
            Class::Connection | Class::Te | Class::TransferEncoding | Class::Hop | Class::ProxyAuth => {
                return false;
            }
            Class::Plain
            | Class::Host
            | Class::Expect
            | Class::Identity
            | Class::Override
            | Class::Misspelt => {}
        }
        true
    }
}

/// Returns the names in a `Trailer` field.
pub(super) fn announced(value: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    value.split(|&byte| byte == b',').map(|name| name.trim_ascii().to_ascii_lowercase())
}

pub(super) fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok())
}

/// Where the version of a status line ends.
const VERSION: usize = 8;
/// A blank and three digits.
const STATUS: usize = 4;
