//! Lines of a stream that nobody vouches for: none is held beyond a limit.

use std::io::{self, BufRead};

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A line, without its line feed, in the buffer that was given.
    Line,
    /// A line longer than the limit, passed over.
    TooLong,
    /// Nothing.
    End,
}

/// Reads the next line into `line`, which holds at most `most` bytes.
pub(super) fn next(from: &mut impl BufRead, line: &mut Vec<u8>, most: usize) -> io::Result<Next> {
    line.clear();
    let (mut begun, mut dropped) = (false, false);
    loop {
        let available = match from.fill_buf() {
            Ok(available) => available,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(cause),
        };
        if available.is_empty() {
            return Ok(match (begun, dropped) {
                (false, _) => Next::End,
                (true, true) => Next::TooLong,
                (true, false) => Next::Line,
            });
        }
        begun = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
        let room = most.saturating_sub(line.len());
        dropped |= part.len() > room;
        line.extend_from_slice(part.get(..room).unwrap_or(part));
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(if dropped { Next::TooLong } else { Next::Line });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn lines_come_out_whole_whatever_the_buffer() {
        for buffer in [1, 2, 3, 100] {
            assert_eq!(lines(b"ab\n\ncd", 5, buffer), ["ab", "", "cd"]);
            assert_eq!(lines(b"ab\n", 5, buffer), ["ab"]);
            assert!(lines(b"", 5, buffer).is_empty());
        }
    }

    #[test]
    fn a_line_is_kept_to_the_limit_and_passed_over_beyond() {
        for buffer in [1, 3, 100] {
            assert_eq!(lines(b"abcde\nx\n", 5, buffer), ["abcde", "x"]);
            assert_eq!(lines(b"abcdef\nx\n", 5, buffer), ["too long", "x"]);
            assert_eq!(lines(b"x\nabcdef", 5, buffer), ["x", "too long"]);
        }
    }

    fn lines(bytes: &[u8], most: usize, buffer: usize) -> Vec<String> {
        let mut from = BufReader::with_capacity(buffer, bytes);
        let (mut line, mut all) = (Vec::new(), Vec::new());
        loop {
            match next(&mut from, &mut line, most).unwrap() {
                Next::Line => all.push(String::from_utf8(line.clone()).unwrap()),
                Next::TooLong => all.push("too long".to_owned()),
                Next::End => return all,
            }
        }
    }
}
