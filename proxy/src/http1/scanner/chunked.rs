//! The chunked coding, byte by byte: strict about sizes, line ends and trailers, and bounded.
//!
//! Data is skipped in bulk. Nothing is interpreted beyond what decides where the body ends.

use crate::http1::flaw::Flaw;

/// Where in a chunked body the scan stands.
#[derive(Debug)]
pub(crate) struct Chunked {
    place: Place,
    size: u64,
    digits: u8,
    extensions: usize,
    lines: usize,
    /// The trailer section so far, without the empty line that ends it.
    trailers: Vec<u8>,
    ended: bool,
}

impl Default for Chunked {
    fn default() -> Self {
        let (place, trailers) = (Place::Size, Vec::new());
        Self { place, size: 0, digits: 0, extensions: 0, lines: 0, trailers, ended: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

impl Chunked {
    /// Takes `bytes`, which follow directly on those taken before, and shows the content among them to `see`; returns
    /// how many belong to the body, and whether it ends with them.
    pub(super) fn take(&mut self, bytes: &[u8], mut see: impl FnMut(&[u8])) -> Result<(usize, bool), Flaw> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at).filter(|_| !self.ended) {
            if self.place == Place::Data {
                let rest = bytes.get(at..).unwrap_or_default();
                let taken = self.take_data(rest.len());
                see(rest.get(..taken).unwrap_or_default());
                at += taken;
                continue;
            }
            at += 1;
            self.ended = self.step(byte)?;
        }
        Ok((at, self.ended))
    }

    /// The trailer section so far.
    pub(super) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Returns the trailer section of a body that has ended.
    pub(super) fn take_trailers(&mut self) -> Option<Vec<u8>> {
        self.ended.then(|| std::mem::take(&mut self.trailers))
    }

    fn take_data(&mut self, available: usize) -> usize {
        let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(available);
        self.size -= taken as u64;
        if self.size == 0 {
            self.place = Place::DataCr;
        }
        taken
    }

    /// Takes one byte outside chunk data; true when it is the last of the body.
    fn step(&mut self, byte: u8) -> Result<bool, Flaw> {
        self.place = match self.place {
            Place::Size => self.size_byte(byte)?,
            Place::Extension => self.extension_byte(byte)?,
            Place::SizeLf => {
                expect(byte, b'\n', Flaw::BareCr)?;
                if self.size == 0 { Place::TrailerStart } else { Place::Data }
            }
            Place::Data | Place::DataCr => {
                expect(byte, b'\r', Flaw::ChunkEnd)?;
                Place::DataLf
            }
            Place::DataLf => {
                expect(byte, b'\n', Flaw::ChunkEnd)?;
                (self.size, self.digits) = (0, 0);
                Place::Size
            }
            Place::TrailerStart | Place::TrailerName | Place::TrailerValue => self.trailer_byte(byte)?,
            Place::TrailerLf => {
                expect(byte, b'\n', Flaw::BareCr)?;
                self.trailers.push(byte);
                Place::TrailerStart
            }
            Place::EndLf => {
                expect(byte, b'\n', Flaw::BareCr)?;
                return Ok(true);
            }
        };
        Ok(false)
    }

    fn size_byte(&mut self, byte: u8) -> Result<Place, Flaw> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            self.digits += 1;
            if self.digits > MAX_SIZE_DIGITS {
                return Err(Flaw::ChunkSize);
            }
            self.size = (self.size << 4) | u64::from(digit);
            return Ok(Place::Size);
        }
        match byte {
            b'\r' if self.digits > 0 => Ok(Place::SizeLf),
            b';' if self.digits > 0 => Ok(Place::Extension),
            _ => Err(Flaw::ChunkSize),
        }
    }

    fn extension_byte(&mut self, byte: u8) -> Result<Place, Flaw> {
        self.extensions += 1;
        match byte {
            _ if self.extensions > MAX_EXTENSIONS => Err(Flaw::ChunkExtension),
            b'\r' => Ok(Place::SizeLf),
            b'\t' | 0x20..=0x7e => Ok(Place::Extension),
            _ => Err(Flaw::ChunkExtension),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<Place, Flaw> {
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(Flaw::Trailer);
        }
        if (self.place, byte) != (Place::TrailerStart, b'\r') {
            self.trailers.push(byte);
        }
        match (self.place, byte) {
            (Place::TrailerStart, b'\r') => Ok(Place::EndLf),
            (Place::TrailerStart, byte) if super::is_token(byte) => {
                self.lines += 1;
                if self.lines > MAX_TRAILER_LINES { Err(Flaw::Trailer) } else { Ok(Place::TrailerName) }
            }
            (Place::TrailerName, b':') => Ok(Place::TrailerValue),
            (Place::TrailerName, byte) if super::is_token(byte) => Ok(Place::TrailerName),
            (Place::TrailerValue, b'\r') => Ok(Place::TrailerLf),
            (Place::TrailerValue, byte) if super::is_text(byte) => Ok(Place::TrailerValue),
            (_, b'\n') => Err(Flaw::BareLf),
            _ => Err(Flaw::Trailer),
        }
    }
}

fn expect(byte: u8, wanted: u8, flaw: Flaw) -> Result<(), Flaw> {
    if byte == wanted { Ok(()) } else { Err(flaw) }
}

/// 15 digits stay below 2^60: no sum of a chunk and its line ends can overflow anywhere behind us.
const MAX_SIZE_DIGITS: u8 = 15;
/// All chunk extensions of one body together; they carry nothing that anyone uses.
pub(super) const MAX_EXTENSIONS: usize = 4096;
/// All trailers of one body together.
pub(super) const MAX_TRAILERS: usize = 8192;
/// Trailer fields of one body.
pub(super) const MAX_TRAILER_LINES: usize = 64;
