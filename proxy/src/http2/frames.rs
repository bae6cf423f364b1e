//! The frames in the bytes of one direction of a connection, seen only by their first nine bytes.
//!
//! What the library does with a frame stays its own affair. Here is counted what it lets pass: frames that cost work and
//! bring nothing forward.

/// What stands before the payload of a frame (RFC 9113 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
}

/// Finds where frames begin, however the bytes are cut.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    start: [u8; START],
    /// How much of a start is there.
    filled: usize,
    /// Bytes until the next frame.
    skip: u64,
}

impl Frames {
    /// Begins behind so many bytes that belong to no frame, such as the preface.
    pub(crate) fn after(bytes: usize) -> Self {
        Self { skip: bytes as u64, ..Self::default() }
    }

    /// Shows `see` the head of every frame whose start ends in `bytes`, and the first eight bytes of its payload.
    pub(crate) fn scan(&mut self, mut bytes: &[u8], mut see: impl FnMut(FrameHead, &[u8])) {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            // First the head, which says how much of a payload belongs to the start.
            bytes = self.fill(HEAD, bytes);
            if self.filled < HEAD {
                return;
            }
            let whole = HEAD + usize::try_from(self.head().length).unwrap_or(usize::MAX).min(LEAD);
            bytes = self.fill(whole, bytes);
            if self.filled < whole {
                return;
            }
            let head = self.head();
            let lead = self.start.get(HEAD..whole).unwrap_or_default();
            see(head, lead);
            (self.filled, self.skip) = (0, u64::from(head.length) - lead.len() as u64);
        }
    }

    fn head(&self) -> FrameHead {
        let [high, middle, low, kind, flags, ..] = self.start;
        FrameHead { length: u32::from_be_bytes([0, high, middle, low]), kind, flags }
    }

    fn fill<'b>(&mut self, wanted: usize, bytes: &'b [u8]) -> &'b [u8] {
        let taken = wanted.saturating_sub(self.filled).min(bytes.len());
        let (part, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
        if let Some(space) = self.start.get_mut(self.filled..self.filled + taken) {
            space.copy_from_slice(part);
        }
        self.filled += taken;
        rest
    }
}

/// What a peer may send that brings nothing forward.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    most: u32,
}

impl Allowance {
    pub(super) fn new(most: u32) -> Self {
        Self { left: most, most }
    }

    /// Takes one; false when none is left.
    pub(super) fn spend(&mut self) -> bool {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Gives `count` back.
    pub(super) fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.most);
    }

    pub(super) fn is_low(&self) -> bool {
        self.left < self.most / 2
    }
}

impl FrameHead {
    /// Says whether a frame carries a part of a message. One without content does not, unless it is the end.
    pub(super) fn is_useful(self) -> bool {
        match self.kind {
            DATA => self.length > 0 || self.flags & END_STREAM != 0,
            HEADERS => true,
            _ => false,
        }
    }
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
pub(super) const GOAWAY: u8 = 7;
const HEAD: usize = 9;
const LEAD: usize = 8;
const START: usize = HEAD + LEAD;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn heads(frames: &mut Frames, bytes: &[u8]) -> Vec<(FrameHead, Vec<u8>)> {
        let mut seen = Vec::new();
        frames.scan(bytes, |head, lead| seen.push((head, lead.to_vec())));
        seen
    }

    proptest! {
        #[test]
        fn every_frame_is_seen_once_however_the_bytes_are_cut(
            sent in prop::collection::vec((any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            cuts in prop::collection::vec(1usize..30, 1..40),
            preface in 0usize..30,
        ) {
            let mut bytes = vec![b'x'; preface];
            bytes.extend(sent.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, payload)));
            let (mut frames, mut seen, mut rest) = (Frames::after(preface), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                seen.extend(heads(&mut frames, part));
                rest = after;
            }

            let wanted = sent.iter().map(|(kind, flags, payload)| {
                let length = u32::try_from(payload.len()).unwrap();
                (FrameHead { length, kind: *kind, flags: *flags }, payload[..payload.len().min(LEAD)].to_vec())
            });
            prop_assert_eq!(seen, wanted.collect::<Vec<_>>());
            prop_assert_eq!((frames.filled, frames.skip), (0, 0));
        }
    }

    #[test]
    fn an_allowance_is_spent_and_earned_back_to_its_most_and_no_further() {
        let mut allowance = Allowance::new(2);

        let spent: Vec<_> = (0..3).map(|_| allowance.spend()).collect();
        allowance.earn(9);
        let again: Vec<_> = (0..3).map(|_| allowance.spend()).collect();

        assert_eq!(spent, [true, true, false]);
        assert_eq!(again, [true, true, false]);
    }

    #[test]
    fn an_empty_piece_of_a_body_brings_nothing_forward_and_its_end_does() {
        let empty = FrameHead { length: 0, kind: DATA, flags: 0 };

        assert!(!empty.is_useful());
        assert!(FrameHead { flags: END_STREAM, ..empty }.is_useful());
        assert!(FrameHead { length: 1, ..empty }.is_useful());
    }
}
