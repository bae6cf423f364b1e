//! What fuzz targets reach of this module: the decision by the first bytes.

use super::first::{Found, Verdict, among_all, among_http};

/// Says what bytes begin; none while there are too few of them. `declared` is a port that speaks HTTP and nothing else.
pub fn found(bytes: &[u8], declared: bool) -> Option<&'static str> {
    let verdict = if declared { among_http(bytes) } else { among_all(bytes) };
    match verdict {
        Verdict::More => None,
        Verdict::Is(Found::Http1) => Some("http1"),
        Verdict::Is(Found::Http2) => Some("http2"),
        Verdict::Is(Found::Opaque) => Some("opaque"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_what_was_found() {
        assert_eq!(found(b"GET / HTTP/1.1", true), Some("http1"));
        assert_eq!(found(b"\x16\x03", false), Some("opaque"));
        assert_eq!(found(b"PRI", false), None);
        assert_eq!(found(crate::http2::PREFACE, false), Some("http2"));
    }
}
