//! Lines of a stream that nobody vouches for: bounded in memory, whatever their length.

use std::io::{self, BufRead};

use crate::record::MAX_LINE;

/// Takes a stream apart.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: R,
    number: u64,
    held: Vec<u8>,
    /// Bytes of the current line beyond what is held.
    dropped: u64,
}

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its line feed.
    Whole(Vec<u8>),
    /// Bytes at the end of the stream without a line feed.
    Unfinished(Vec<u8>),
    /// A line longer than any record.
    TooLong,
    /// Nothing, for now or for good.
    End,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, number: 0, held: Vec::new(), dropped: 0 }
    }

    /// Returns the number of the line returned last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the next line; at the end of the stream, what there is of it.
    pub(super) fn next_line(&mut self) -> io::Result<Line> {
        match self.next_whole_line()? {
            Line::End if self.held.is_empty() && self.dropped == 0 => Ok(Line::End),
            Line::End => {
                let line = self.end_line();
                Ok(match line {
                    Line::Whole(bytes) => Line::Unfinished(bytes),
                    Line::Unfinished(_) | Line::TooLong | Line::End => line,
                })
            }
            line => Ok(line),
        }
    }

    /// Returns the next line once its line feed is there; until then keeps what there is of it.
    pub(super) fn next_whole_line(&mut self) -> io::Result<Line> {
        loop {
            let available = match self.from.fill_buf() {
                Ok([]) => return Ok(Line::End),
                Ok(available) => available,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(cause),
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let (part, used) = match end {
                Some(at) => (available.get(..at).unwrap_or_default(), at + 1),
                None => (available, available.len()),
            };
            let room = MAX_LINE + 1 - self.held.len();
            let kept = part.get(..room).unwrap_or(part);
            self.held.extend_from_slice(kept);
            self.dropped += (part.len() - kept.len()) as u64;
            self.from.consume(used);
            if end.is_some() {
                return Ok(self.end_line());
            }
        }
    }

    /// Returns the stream.
    pub(super) fn stream(&mut self) -> &mut R {
        &mut self.from
    }

    /// Forgets an unfinished line and counts lines from 1 again.
    pub(super) fn restart(&mut self) {
        self.held.clear();
        (self.number, self.dropped) = (0, 0);
    }

    fn end_line(&mut self) -> Line {
        self.number += 1;
        let bytes = std::mem::take(&mut self.held);
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 || bytes.len() > MAX_LINE { Line::TooLong } else { Line::Whole(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(bytes: &[u8], buffer: usize) -> Vec<Line> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, bytes));
        std::iter::from_fn(|| Some(lines.next_line().unwrap()).filter(|line| *line != Line::End)).collect()
    }

    #[test]
    fn lines_come_out_whole_whatever_the_buffer() {
        for buffer in [1, 2, 3, 100] {
            assert_eq!(
                lines(b"ab\n\ncd", buffer),
                [Line::Whole(b"ab".into()), Line::Whole(b"".into()), Line::Unfinished(b"cd".into())]
            );
        }
    }

    #[test]
    fn a_gigantic_line_is_passed_over_and_not_held() {
        let mut bytes = vec![b'x'; 3 * MAX_LINE];
        bytes.extend_from_slice(b"\nnext\n");

        assert_eq!(lines(&bytes, 4096), [Line::TooLong, Line::Whole(b"next".into())]);
    }

    #[test]
    fn a_line_of_just_the_limit_is_kept_and_one_more_byte_is_not() {
        for (len, kept) in [(MAX_LINE, true), (MAX_LINE + 1, false)] {
            let mut bytes = vec![b'x'; len];
            bytes.push(b'\n');

            let found = lines(&bytes, 4096);

            assert_eq!(matches!(found[..], [Line::Whole(_)]), kept, "{len}");
            assert_eq!(matches!(found[..], [Line::TooLong]), !kept, "{len}");
        }
    }

    #[test]
    fn a_line_that_is_still_being_written_is_waited_for() {
        let mut lines = Lines::new(&b"begun"[..]);

        assert_eq!(lines.next_whole_line().unwrap(), Line::End);
        *lines.stream() = b" and done\n";

        assert_eq!(lines.next_whole_line().unwrap(), Line::Whole(b"begun and done".into()));
    }
}
