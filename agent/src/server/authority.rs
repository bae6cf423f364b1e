//! Makes the `:authority` of gRPC's C core acceptable to our HTTP/2 library.
//!
//! For a Unix socket, clients built on the C core (Python, C++, Ruby, PHP) send the socket's path with `%2F` for each
//! slash as `:authority`. HTTP allows no `%` in a host, so the library resets the stream with PROTOCOL_ERROR before
//! any service sees it. Nothing here looks at the authority, so each `%` in it is replaced in place, byte for byte:
//! lengths and everything else stay as they came. A value in Huffman code is left alone; the C core never sends one.

/// Follows the bytes of one connection, as they come, down to the values of `:authority`.
#[derive(Debug)]
pub(super) struct Authority {
    /// What the next byte is.
    at: At,
    /// The frame that the next byte belongs to.
    frame: Frame,
    /// Where in a header block, which may go on in CONTINUATION frames, the next byte is.
    field: Field,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Preface { left: usize },
    FrameHead { read: usize },
    PadLength,
    Priority { left: u32 },
    Block,
    Skipped,
}

#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    head: [u8; FRAME_HEAD],
    /// Bytes of the payload that are still to come, padding included.
    left: u32,
    padding: u32,
}

/// RFC 7541 6: what the next byte of a header block is.
#[derive(Debug, Clone, Copy)]
enum Field {
    Start,
    /// The rest of a number that did not fit its prefix.
    Number {
        so_far: u64,
        shift: u32,
        then: Then,
    },
    StringHead {
        then: Text,
    },
    Text {
        left: u64,
        which: Text,
    },
    /// No header block can be followed any more; the library will say what is wrong with it.
    Lost,
}

/// What a number was.
#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    NameIndex,
    Length { which: Text },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// So many bytes of the name are those of `:authority`; `DIFFERENT` if one was not.
    Name {
        alike: usize,
    },
    Value,
    Authority,
    /// In Huffman code.
    Coded {
        value_follows: bool,
    },
}

impl Default for Authority {
    fn default() -> Self {
        Self { at: At::Preface { left: PREFACE }, frame: Frame::default(), field: Field::Start }
    }
}

impl Authority {
    /// Replaces what cannot be accepted in bytes that were just read.
    pub(super) fn mend(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.step(byte);
        }
    }

    fn step(&mut self, byte: &mut u8) {
        match self.at {
            At::Preface { left: 1 } => self.at = At::FrameHead { read: 0 },
            At::Preface { left } => self.at = At::Preface { left: left - 1 },
            At::FrameHead { read } => self.head(read, *byte),
            At::PadLength => {
                self.frame.padding = u32::from(*byte);
                self.at = self.frame.after_padding();
                self.consumed();
            }
            At::Priority { left } => {
                self.at = if left == 1 { At::Block } else { At::Priority { left: left - 1 } };
                self.consumed();
            }
            At::Block if self.frame.left <= self.frame.padding => self.consumed(),
            At::Block => {
                self.field = self.field.step(byte);
                self.consumed();
            }
            At::Skipped => self.consumed(),
        }
    }

    fn head(&mut self, read: usize, byte: u8) {
        if let Some(place) = self.frame.head.get_mut(read) {
            *place = byte;
        }
        if read + 1 < FRAME_HEAD {
            self.at = At::FrameHead { read: read + 1 };
            return;
        }
        let [a, b, c, kind, flags, ..] = self.frame.head;
        self.frame.left = u32::from_be_bytes([0, a, b, c]);
        self.frame.padding = 0;
        if kind == HEADERS {
            self.field = Field::Start;
        }
        self.at = match kind {
            HEADERS if flags & PADDED != 0 => At::PadLength,
            HEADERS => self.frame.after_padding(),
            CONTINUATION => At::Block,
            _ => At::Skipped,
        };
        if self.frame.left == 0 {
            self.at = At::FrameHead { read: 0 };
        }
    }

    fn consumed(&mut self) {
        self.frame.left = self.frame.left.saturating_sub(1);
        if self.frame.left == 0 {
            self.at = At::FrameHead { read: 0 };
        }
    }
}

impl Frame {
    fn after_padding(&self) -> At {
        let [_, _, _, _, flags, ..] = self.head;
        if flags & PRIORITY != 0 { At::Priority { left: PRIORITY_BYTES } } else { At::Block }
    }
}

impl Field {
    fn step(self, byte: &mut u8) -> Self {
        match self {
            Self::Start => Self::start(*byte),
            Self::Number { so_far, shift, then } => Self::more(so_far, shift, then, *byte),
            Self::StringHead { then } => Self::string(then, *byte),
            Self::Text { left, which } => {
                if which == Text::Authority && *byte == b'%' {
                    *byte = b'-';
                }
                Self::text(left - 1, which.past(*byte))
            }
            Self::Lost => Self::Lost,
        }
    }

    /// The first byte of a field (RFC 7541 6.1 to 6.3).
    fn start(byte: u8) -> Self {
        match byte {
            0x80.. => Self::number(byte, 0x7f, Then::Nothing),
            0x40.. => Self::number(byte, 0x3f, Then::NameIndex),
            0x20.. => Self::number(byte, 0x1f, Then::Nothing),
            _ => Self::number(byte, 0x0f, Then::NameIndex),
        }
    }

    /// A number whose prefix is under `mask` (RFC 7541 5.1).
    fn number(byte: u8, mask: u8, then: Then) -> Self {
        let value = byte & mask;
        if value == mask {
            Self::Number { so_far: u64::from(value), shift: 0, then }
        } else {
            Self::after(u64::from(value), then)
        }
    }

    fn more(so_far: u64, shift: u32, then: Then, byte: u8) -> Self {
        if shift > LONGEST_NUMBER {
            return Self::Lost;
        }
        let value = so_far + (u64::from(byte & 0x7f) << shift);
        if byte & 0x80 == 0 {
            Self::after(value, then)
        } else {
            Self::Number { so_far: value, shift: shift + 7, then }
        }
    }

    fn after(value: u64, then: Then) -> Self {
        match then {
            Then::Nothing => Self::Start,
            Then::NameIndex => match value {
                0 => Self::StringHead { then: Text::Name { alike: 0 } },
                AUTHORITY_INDEX => Self::StringHead { then: Text::Authority },
                _ => Self::StringHead { then: Text::Value },
            },
            Then::Length { which } => Self::text(value, which),
        }
    }

    /// The first byte of a string (RFC 7541 5.2).
    fn string(then: Text, byte: u8) -> Self {
        let which = if byte & 0x80 == 0 {
            then
        } else {
            Text::Coded { value_follows: matches!(then, Text::Name { .. }) }
        };
        Self::number(byte & 0x7f, 0x7f, Then::Length { which })
    }

    fn text(left: u64, which: Text) -> Self {
        if left > 0 {
            return Self::Text { left, which };
        }
        match which {
            Text::Name { alike } if alike == AUTHORITY.len() => Self::StringHead { then: Text::Authority },
            Text::Name { .. } | Text::Coded { value_follows: true } => Self::StringHead { then: Text::Value },
            Text::Value | Text::Authority | Text::Coded { value_follows: false } => Self::Start,
        }
    }
}

impl Text {
    /// The same text, one byte later.
    fn past(self, byte: u8) -> Self {
        match self {
            Self::Name { alike } if AUTHORITY.get(alike) == Some(&byte) => Self::Name { alike: alike + 1 },
            Self::Name { .. } => Self::Name { alike: DIFFERENT },
            Self::Value | Self::Authority | Self::Coded { .. } => self,
        }
    }
}

/// `PRI * HTTP/2.0`, two empty lines and `SM` between them (RFC 9113 3.4).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: u32 = 5;
const AUTHORITY: &[u8] = b":authority";
/// No number of bytes that a name can have in common with it.
const DIFFERENT: usize = usize::MAX;
/// `:authority` in the static table (RFC 7541 A).
const AUTHORITY_INDEX: u64 = 1;
/// A number with more bits is no length of anything that is accepted.
const LONGEST_NUMBER: u32 = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_path_becomes_a_host_and_nothing_else_changes() {
        let sent = connection(&[frame(HEADERS, 0x4, &request(b"run%2Fagent.sock"))]);

        let got = mended(&sent);

        assert_eq!(got, connection(&[frame(HEADERS, 0x4, &request(b"run-2Fagent.sock"))]));
    }

    #[test]
    fn the_name_may_be_spelled_out_as_the_c_core_does() {
        let spelled = |value: &[u8]| {
            let path = [&[0x40, 5], b":path".as_slice(), &[4], b"/a%2"].concat();
            let longer = [&[0x40, 11], b":authorityx".as_slice(), &[1], b"%"].concat();
            let authority =
                [&[0x40, 10], b":authority".as_slice(), &[u8::try_from(value.len()).unwrap()], value]
                    .concat();
            connection(&[frame(HEADERS, 0x4, &[path, longer, authority].concat())])
        };

        assert_eq!(mended(&spelled(b"tmp%2Fagent.sock")), spelled(b"tmp-2Fagent.sock"));
    }

    #[test]
    fn bytes_that_come_one_by_one_are_mended_all_the_same() {
        let sent =
            connection(&[frame(HEADERS, 0x4, &request(b"a%2Fb")), frame(HEADERS, 0x4, &request(b"c%2Fd"))]);
        let (mut one_by_one, mut authority) = (sent.clone(), Authority::default());

        one_by_one.iter_mut().for_each(|byte| authority.mend(std::slice::from_mut(byte)));

        assert_eq!(one_by_one, mended(&sent));
        assert!(!one_by_one.contains(&b'%'));
    }

    #[test]
    fn padding_priority_and_continuation_are_followed() {
        let block = request(b"a%2Fb");
        let (first, second) = block.split_at(5);
        let padded = [&[3, 0, 0, 0, 0, 16], first, b"%%%"].concat();
        let sent =
            connection(&[frame(HEADERS, PADDED | PRIORITY, &padded), frame(CONTINUATION, 0x4, second)]);

        let got = mended(&sent);

        assert_eq!(got.iter().filter(|byte| **byte == b'%').count(), 3, "only the padding keeps its bytes");
    }

    #[test]
    fn other_frames_and_other_fields_keep_their_percent_signs() {
        let path = [&[0x04, 5], b"/a%20".as_slice()].concat();
        let named = [&[0x00, 3], b"x%y".as_slice(), &[2], b"%%"].concat();
        let sent = connection(&[frame(0, 1, b"100%"), frame(HEADERS, 0x4, &[path, named].concat())]);

        assert_eq!(mended(&sent), sent);
    }

    #[test]
    fn nonsense_is_passed_on_as_it_is() {
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .map(|byte| if byte == b'%' { 0 } else { byte })
            .collect();

        assert_eq!(mended(&noise), noise);
    }

    fn mended(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        Authority::default().mend(&mut bytes);
        bytes
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frames.concat()].concat()
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method: POST` and an authority as the C core sends it.
    fn request(authority: &[u8]) -> Vec<u8> {
        [&[0x83, 0x41, u8::try_from(authority.len()).unwrap()], authority, &[0x86]].concat()
    }
}
