//! Bodies and their trailers as they are sent on.

use std::io::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{headers, request::line, response::Coding};

impl Coding {
    /// Adds a part of a body.
    pub(super) fn put(self, part: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Plain | Self::UntilClose => out.extend_from_slice(part),
            Self::Chunks if part.is_empty() => {}
            Self::Chunks => {
                // Writing to memory does not fail.
                let _ = write!(out, "{:x}\r\n", part.len());
                out.extend_from_slice(part);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Ends a body.
    pub(super) fn end(self, trailers: &HeaderMap, out: &mut Vec<u8>) {
        match self {
            Self::Plain | Self::UntilClose => {}
            Self::Chunks => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    line(out, name.as_str().as_bytes(), value.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Reads a trailer section that the scanner let through, and leaves of it what may go on: what was announced, and
/// speaks of nothing that was decided before.
pub(super) fn trailers(section: &[u8], announced: &[Vec<u8>]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for text in section.split(|&byte| byte == b'\n') {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let Some(colon) = text.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = text.split_at_checked(colon).unwrap_or_default();
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    headers::clean_trailers(&mut map);
    let unannounced: Vec<HeaderName> = map
        .keys()
        .filter(|name| !announced.iter().any(|known| known == name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in unannounced {
        map.remove(name);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_body_are_sent_in_the_coding_of_their_message() {
        let (mut plain, mut chunks) = (Vec::new(), Vec::new());

        for part in [&b"hello"[..], b"", &[b'x'; 17]] {
            Coding::Plain.put(part, &mut plain);
            Coding::Chunks.put(part, &mut chunks);
        }
        Coding::Chunks.end(&HeaderMap::new(), &mut chunks);

        assert_eq!(plain, [&b"hello"[..], &[b'x'; 17]].concat());
        assert_eq!(chunks, b"5\r\nhello\r\n11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n");
    }

    #[test]
    fn only_trailers_that_were_announced_and_decide_nothing_go_on() {
        let section = b"x-sum: 7\r\nX-Sum:8 \r\nother: 1\r\ncontent-length: 9\r\nx-spiffe-id: evil\r\n";
        let announced: Vec<Vec<u8>> =
            ["x-sum", "content-length", "x-spiffe-id"].map(|name| name.as_bytes().to_vec()).into();

        let kept = trailers(section, &announced);

        assert_eq!(kept.get_all("x-sum").iter().collect::<Vec<_>>(), ["7", "8"]);
        assert_eq!(kept.len(), 2);
    }
}
