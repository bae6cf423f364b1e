//! The decision by the first bytes: a pure function of all bytes so far.

use crate::http2::PREFACE;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Too few to say.
    More,
    /// What follows is this, whatever comes.
    Is(Found),
}

/// What a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// HTTP/1, or what its scanner is to refuse.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something else.
    Opaque,
}

/// Judges the first bytes on a port that is declared HTTP.
pub(super) fn among_http(bytes: &[u8]) -> Verdict {
    if bytes.starts_with(PREFACE) {
        Verdict::Is(Found::Http2)
    } else if PREFACE.starts_with(bytes) {
        Verdict::More
    } else {
        Verdict::Is(Found::Http1)
    }
}

/// Judges the first bytes on a port where anything may be spoken.
pub(super) fn among_all(bytes: &[u8]) -> Verdict {
    if bytes.starts_with(PREFACE) {
        return Verdict::Is(Found::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return Verdict::More;
    }
    // Servers skip blank lines before a request. They are no way around its rules.
    let text = bytes.get(..MAX_DETECT).unwrap_or(bytes);
    let text = text.trim_ascii_start();
    let method = text.iter().take_while(|byte| is_token(**byte)).count();
    match text.get(method) {
        Some(b' ' | b'\t') if method > 0 => Verdict::Is(Found::Http1),
        Some(_) => Verdict::Is(Found::Opaque),
        None if bytes.len() >= MAX_DETECT || method > MAX_METHOD => Verdict::Is(Found::Opaque),
        None => Verdict::More,
    }
}

/// `tchar` of RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A method is shorter than this.
pub(super) const MAX_METHOD: usize = 32;
/// By so many bytes it is clear what is spoken.
pub(super) const MAX_DETECT: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_protocols_are_told_apart() {
        for (bytes, found) in [
            (&b"GET / HTTP/1.1\r\n"[..], Found::Http1),
            (b"get / http/1.1\r\n", Found::Http1),
            (b"\r\n\r\nGET /admin HTTP/1.1\r\n", Found::Http1),
            (b"POST /", Found::Http1),
            (b"PROPFIND\t/", Found::Http1),
            (b"PRI * HTTP/1.1\r\n\r\n", Found::Http1),
            (PREFACE, Found::Http2),
            (b"\x16\x03\x01\x02\x00\x01", Found::Opaque),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Found::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Found::Opaque),
            (b"EHLO\r\n", Found::Opaque),
            (b"SSH-2.0-OpenSSH_9\r\n", Found::Opaque),
            (&[b'A'; 40], Found::Opaque),
            (&[b'\n'; 64], Found::Opaque),
        ] {
            assert_eq!(among_all(bytes), Verdict::Is(found), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_declared_http_is_never_opaque() {
        assert_eq!(among_http(b"\x16\x03\x01"), Verdict::Is(Found::Http1));
        assert_eq!(among_http(b"PRI * HTTP/2.0\r\n\r\nSM\r\n"), Verdict::More);
        assert_eq!(among_http(b"PRI * HTTP/2.0\r\n\r\nSX"), Verdict::Is(Found::Http1));
    }

    /// Judges byte by byte, as the bytes come.
    fn dripped(judge: fn(&[u8]) -> Verdict, bytes: &[u8]) -> Verdict {
        (0..=bytes.len())
            .map(|end| judge(&bytes[..end]))
            .find(|verdict| *verdict != Verdict::More)
            .unwrap_or(Verdict::More)
    }

    fn any_start() -> impl Strategy<Value = Vec<u8>> {
        let text =
            prop::collection::vec(prop::sample::select(b"PRI* HTTP/2.0\r\n\tSMGE~\x00\x16".to_vec()), 0..90);
        let cut =
            (0..=PREFACE.len(), any::<Vec<u8>>()).prop_map(|(end, rest)| [&PREFACE[..end], &rest].concat());
        prop_oneof![text, cut, any::<Vec<u8>>()]
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_how_the_bytes_are_cut(bytes in any_start()) {
            for judge in [among_http as fn(&[u8]) -> Verdict, among_all] {
                prop_assert_eq!(judge(&bytes), dripped(judge, &bytes));
            }
        }

        #[test]
        fn nothing_stays_open_for_long(bytes in prop::collection::vec(any::<u8>(), MAX_DETECT..200)) {
            prop_assert_ne!(among_http(&bytes), Verdict::More);
            prop_assert_ne!(among_all(&bytes), Verdict::More);
        }

        #[test]
        fn only_the_preface_is_http2(bytes in any_start()) {
            let preface = bytes.starts_with(PREFACE);
            prop_assert_eq!(among_http(&bytes) == Verdict::Is(Found::Http2), preface);
            prop_assert_eq!(among_all(&bytes) == Verdict::Is(Found::Http2), preface);
        }

        #[test]
        fn a_method_and_a_blank_are_never_opaque(
            method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,31}", rest in any::<Vec<u8>>(), blank in "[ \t]",
        ) {
            let bytes = [method.as_bytes(), blank.as_bytes(), &rest].concat();
            prop_assert_ne!(among_all(&bytes), Verdict::Is(Found::Opaque));
        }
    }
}
