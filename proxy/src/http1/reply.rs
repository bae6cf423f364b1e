//! The responses that the proxy writes itself. To a caller they say no more than it needs.

use std::io::Write as _;

use http::StatusCode;

use super::{date, headers::DENIAL_ID};

/// Whom a response of our own is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addressee {
    /// It speaks HTTP/1.0.
    pub(super) old: bool,
    /// It asked for the head alone.
    pub(super) head_only: bool,
    /// The connection goes on.
    pub(super) keep_alive: bool,
}

impl Addressee {
    /// Someone of whom nothing is known.
    pub(super) const UNREAD: Self = Self { old: false, head_only: false, keep_alive: false };
}

/// Answers a refusal: the identifier leads to the record, and says nothing by itself.
pub(super) fn refused(status: StatusCode, denial: audit::DenialId, to: Addressee, out: &mut Vec<u8>) {
    let denial = denial.to_string();
    json(status, &format!("{{\"denial_id\":\"{denial}\"}}\n"), Some(&denial), to, out);
}

/// Answers a failure of the proxy or behind it; `error` is one of a fixed set of words.
pub(super) fn failed(status: StatusCode, error: &'static str, to: Addressee, out: &mut Vec<u8>) {
    json(status, &format!("{{\"error\":\"{error}\"}}\n"), None, to, out);
}

fn json(status: StatusCode, text: &str, denial: Option<&str>, to: Addressee, out: &mut Vec<u8>) {
    let version = if to.old { "1.0" } else { "1.1" };
    let reason = status.canonical_reason().unwrap_or_default();
    let connection = match (to.keep_alive, to.old) {
        (false, _) => "connection: close\r\n",
        (true, true) => "connection: keep-alive\r\n",
        (true, false) => "",
    };
    // Writing to memory does not fail.
    let _ = write!(out, "HTTP/{version} {} {reason}\r\ncontent-type: application/json\r\n", status.as_u16());
    if let Some(denial) = denial {
        let _ = write!(out, "{DENIAL_ID}: {denial}\r\n");
    }
    date::line(out);
    let _ = write!(out, "content-length: {}\r\n{connection}\r\n", text.len());
    if !to.head_only {
        out.extend_from_slice(text.as_bytes());
    }
}
