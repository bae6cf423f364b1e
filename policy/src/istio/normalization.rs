//! Paths as Istio brings them into form before its rules see them.

use crate::mesh::PathNormalization;

/// The path of a request target, brought into the form that a mode asks for and without its query, as Istio's rules compare it. One pass, in
/// Envoy's order: escaped slashes, then dot segments, then repeated slashes.
pub fn istio_path(mode: PathNormalization, raw: &str) -> String {
    let path = raw.split(['?', '#']).next().unwrap_or_default();
    match mode {
        PathNormalization::None => path.to_owned(),
        PathNormalization::Base => without_dots(path),
        PathNormalization::MergeSlashes => merged(&without_dots(path)),
        PathNormalization::DecodeAndMergeSlashes => merged(&without_dots(&unescaped(path))),
    }
}

fn unescaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let (decoded, taken) = match after.get(1..3) {
            Some("2f" | "2F") => ("/", 3),
            Some("5c" | "5C") => ("\\", 3),
            Some(_) | None => ("%", 1),
        };
        out.push_str(decoded);
        rest = after.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

// RFC 3986 6.2.2: unreserved characters are decoded and dot segments resolved; other escapes stay as they came. A backslash is a slash to
// many servers, and Envoy takes it for one.
fn without_dots(path: &str) -> String {
    let path = plain_letters(&path.replace('\\', "/"));
    let Some(below) = path.strip_prefix('/') else { return path };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = below.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

fn plain_letters(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let code = after.get(1..3).filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                out.push(char::from(byte));
                rest = after.get(3..).unwrap_or_default();
            }
            Some(_) | None => {
                out.push('%');
                rest = after.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !out.ends_with('/') {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};

    #[test]
    fn each_mode_does_what_the_one_before_does_and_one_thing_more() {
        let cases = [
            ("/a/../admin?x=/y", "/a/../admin", "/admin", "/admin", "/admin"),
            ("/a//admin", "/a//admin", "/a//admin", "/a/admin", "/a/admin"),
            ("/a%2Fadmin", "/a%2Fadmin", "/a%2Fadmin", "/a%2Fadmin", "/a/admin"),
            ("/a%2f..%5cadmin", "/a%2f..%5cadmin", "/a%2f..%5cadmin", "/a%2f..%5cadmin", "/admin"),
            ("/a\\admin", "/a\\admin", "/a/admin", "/a/admin", "/a/admin"),
            ("/%61dmin/%2e%2e/b", "/%61dmin/%2e%2e/b", "/b", "/b", "/b"),
            ("/a/.", "/a/.", "/a/", "/a/", "/a/"),
            ("/a/..", "/a/..", "/", "/", "/"),
            ("/..", "/..", "/", "/", "/"),
            ("/a%", "/a%", "/a%", "/a%", "/a%"),
            ("/a//../b", "/a//../b", "/a/b", "/a/b", "/a/b"),
            ("*", "*", "*", "*", "*"),
            ("", "", "", "", ""),
        ];
        for (raw, none, base, merge, decode) in cases {
            assert_eq!(istio_path(None, raw), none, "{raw}");
            assert_eq!(istio_path(Base, raw), base, "{raw}");
            assert_eq!(istio_path(MergeSlashes, raw), merge, "{raw}");
            assert_eq!(istio_path(DecodeAndMergeSlashes, raw), decode, "{raw}");
        }
    }

    #[test]
    fn a_letter_beside_an_escape_is_never_cut_in_two() {
        for raw in ["/%é", "/%2é", "/é%2F", "/%"] {
            let _ = istio_path(DecodeAndMergeSlashes, raw);
        }
    }
}
