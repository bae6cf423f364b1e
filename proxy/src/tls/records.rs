//! The record layer of an established TLS 1.3 connection: bytes in place, no I/O.
//!
//! Records are opened and sealed where they lie, several at a time. Key updates, alerts and session tickets are dealt with
//! here; a peer that sends anything else after its handshake is told so by an alert, and is believed nothing more.

use std::io::IoSlice;

use identity::{
    crypto::record::{RecordKey, TAG_BYTES},
    tls::Keys,
};
use rustls::{AlertDescription, ContentType, Error, HandshakeType, InvalidMessage, PeerMisbehaved};

/// Opens what comes and seals what goes.
#[derive(Debug)]
pub(super) struct Records {
    keys: Keys,
    sealing: RecordKey,
    sealed: u64,
    /// How many records one key may seal.
    per_key: u64,
    opening: RecordKey,
    opened: u64,
    /// The beginning of a message of the handshake protocol whose rest is still to come.
    message: Vec<u8>,
    /// Records since the last one with data in it.
    empty: u8,
    updates: u8,
    owes_update: bool,
    end: End,
    closed: bool,
}

/// Whether the peer may send more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// It said that it is done.
    Closed,
}

/// What became of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// So many bytes at the beginning are plain.
    pub(super) plain: usize,
    /// So many bytes belonged to whole records; what follows is the beginning of one.
    pub(super) consumed: usize,
}

/// Why a connection cannot go on, and what the peer is told.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("TLS connection failed")]
pub(super) struct RecordError {
    #[source]
    pub(super) error: Error,
    pub(super) alert: Option<AlertDescription>,
}

impl RecordError {
    fn new(error: impl Into<Error>, alert: AlertDescription) -> Self {
        Self { error: error.into(), alert: Some(alert) }
    }
}

impl From<Error> for RecordError {
    fn from(error: Error) -> Self {
        Self::new(error, AlertDescription::InternalError)
    }
}

impl Records {
    /// Takes the keys of a connection whose handshake is done.
    pub(super) fn new(mut keys: Keys) -> Result<Self, Error> {
        let [(sealing, sealed), (opening, opened)] = keys.first().ok_or(Error::HandshakeNotComplete)?;
        Ok(Self {
            per_key: keys.records_per_key(),
            keys,
            sealing,
            sealed,
            opening,
            opened,
            message: Vec::new(),
            empty: 0,
            updates: 0,
            owes_update: false,
            end: End::Open,
            closed: false,
        })
    }

    #[cfg(test)]
    pub(super) fn set_records_per_key(&mut self, records: u64) {
        self.per_key = records;
    }

    #[cfg(test)]
    pub(super) fn updates(&self) -> u8 {
        self.updates
    }

    #[cfg(test)]
    pub(super) fn message(&self) -> &Vec<u8> {
        &self.message
    }

    /// Whether the peer said that it is done.
    pub(super) fn is_ended(&self) -> bool {
        self.end == End::Closed
    }

    /// Whether we said that we are done.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns how long the record is that begins here, as far as its header tells.
    pub(super) fn length(bytes: &[u8]) -> Option<usize> {
        let [_, _, _, high, low, ..] = bytes else { return None };
        Some(HEADER + usize::from(u16::from_be_bytes([*high, *low])))
    }

    /// Opens every whole record in `space` and gathers what was in them at its beginning.
    pub(super) fn open(&mut self, space: &mut [u8]) -> Result<Opened, RecordError> {
        let (mut plain, mut consumed) = (0, 0);
        while self.end == End::Open {
            let Some(length) = self.whole(space.get(consumed..).unwrap_or_default())? else { break };
            let record = space.get_mut(plain..consumed + length).unwrap_or_default();
            plain += self.open_record(record, consumed - plain)?;
            consumed += length;
        }
        if self.end == End::Closed {
            // RFC 8446 6.1: what follows the end is ignored.
            consumed = space.len();
        }
        Ok(Opened { plain, consumed })
    }

    /// Seals as much of `plain` as there is room for in `out`. Returns how much was taken, and how long the records are.
    pub(super) fn seal(
        &mut self,
        plain: &[IoSlice<'_>],
        out: &mut [u8],
    ) -> Result<(usize, usize), RecordError> {
        let (mut taken, mut written) = (0, self.seal_updates(plain, out)?);
        let mut pieces = Pieces::new(plain);
        while let Some(slot) = out.get_mut(written..).filter(|slot| slot.len() > HEADER + ADDED) {
            let most = (slot.len() - HEADER - ADDED).min(MOST_PLAIN);
            let body = slot.get_mut(HEADER..HEADER + most).unwrap_or_default();
            let length = pieces.fill(body);
            if length == 0 {
                break;
            }
            written += self.seal_record(ContentType::ApplicationData, length, slot)?;
            taken += length;
            if self.sealed >= self.last_number() {
                break;
            }
        }
        Ok((taken, written))
    }

    /// Seals an alert. Nothing is sealed behind it.
    pub(super) fn seal_alert(&mut self, alert: AlertDescription) -> Vec<u8> {
        if self.closed {
            return Vec::new();
        }
        self.closed = true;
        let level = if alert == AlertDescription::CloseNotify { WARNING } else { FATAL };
        let mut out = vec![0; HEADER + 2 + ADDED];
        if let Some(body) = out.get_mut(HEADER..HEADER + 2) {
            body.copy_from_slice(&[level, u8::from(alert)]);
        }
        // Where nothing can be sealed any more, the peer is left to notice the end of the connection.
        let length = self.seal_record(ContentType::Alert, 2, &mut out).unwrap_or_default();
        out.truncate(length);
        out
    }

    /// Returns the number of the last record that a key may seal: the one that changes it.
    fn last_number(&self) -> u64 {
        self.per_key.saturating_sub(1)
    }

    /// Returns the length of the record at the beginning of `bytes` if all of it is there.
    fn whole(&self, bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let [kind, major, ..] = bytes else { return Ok(None) };
        // Once the keys are agreed on, every record looks like data (RFC 8446 5.2).
        if *kind != u8::from(ContentType::ApplicationData) {
            let error = Error::InappropriateMessage {
                expect_types: vec![ContentType::ApplicationData],
                got_type: ContentType::from(*kind),
            };
            return Err(RecordError::new(error, AlertDescription::UnexpectedMessage));
        }
        if *major != 3 {
            let error = InvalidMessage::UnknownProtocolVersion;
            return Err(RecordError::new(error, AlertDescription::DecodeError));
        }
        match Self::length(bytes) {
            Some(length) if length > MOST_SEALED => {
                Err(RecordError::new(Error::PeerSentOversizedRecord, AlertDescription::RecordOverflow))
            }
            Some(length) if length < HEADER + ADDED => {
                Err(RecordError::new(Error::DecryptError, AlertDescription::BadRecordMac))
            }
            Some(length) => Ok((length <= bytes.len()).then_some(length)),
            None => Ok(None),
        }
    }

    /// Opens the record that begins at `from`. Data are moved to the beginning of `space`; returns how long they are.
    fn open_record(&mut self, space: &mut [u8], from: usize) -> Result<usize, RecordError> {
        let mut header = [0; HEADER];
        let bytes = space.get(from..from + HEADER).unwrap_or_default();
        header.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        let opened = self.opening.open(self.opened, &header, space, from + HEADER);
        let length =
            opened.map_err(|_| RecordError::new(Error::DecryptError, AlertDescription::BadRecordMac))?;
        self.opened += 1;
        let inner = space.get(..length).unwrap_or_default();
        // RFC 8446 5.4: the last byte that is not nought is the kind, those behind it are padding.
        let Some(kind_at) = inner.iter().rposition(|byte| *byte != 0) else {
            let error = Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec);
            return Err(RecordError::new(error, AlertDescription::UnexpectedMessage));
        };
        if length > MOST_PLAIN + 1 {
            return Err(RecordError::new(Error::PeerSentOversizedRecord, AlertDescription::RecordOverflow));
        }
        let (content, rest) = inner.split_at_checked(kind_at).unwrap_or_default();
        let kind = ContentType::from(rest.first().copied().unwrap_or_default());
        self.judge(kind, content)
    }

    /// Deals with one opened record; returns how much data it carries.
    fn judge(&mut self, kind: ContentType, content: &[u8]) -> Result<usize, RecordError> {
        if kind != ContentType::Handshake && !self.message.is_empty() {
            let error = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
            return Err(RecordError::new(error, AlertDescription::UnexpectedMessage));
        }
        match kind {
            ContentType::ApplicationData if content.is_empty() => {
                self.count_empty()?;
                Ok(0)
            }
            ContentType::ApplicationData => {
                (self.empty, self.updates) = (0, 0);
                Ok(content.len())
            }
            ContentType::Alert => self.alert(content).map(|()| 0),
            ContentType::Handshake => self.handshake(content).map(|()| 0),
            got_type => {
                let error = Error::InappropriateMessage {
                    expect_types: vec![ContentType::ApplicationData],
                    got_type,
                };
                Err(RecordError::new(error, AlertDescription::UnexpectedMessage))
            }
        }
    }

    fn count_empty(&mut self) -> Result<(), RecordError> {
        self.empty += 1;
        if self.empty > MOST_EMPTY {
            let error = PeerMisbehaved::TooManyEmptyFragments;
            return Err(RecordError::new(error, AlertDescription::UnexpectedMessage));
        }
        Ok(())
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), RecordError> {
        let [level, description] = content else {
            let error = InvalidMessage::MissingData("Alert");
            return Err(RecordError::new(error, AlertDescription::DecodeError));
        };
        match AlertDescription::from(*description) {
            AlertDescription::CloseNotify => {
                self.end = End::Closed;
                Ok(())
            }
            // RFC 8446 6.1: it announces the end and is no end by itself.
            AlertDescription::UserCanceled if *level == WARNING => self.count_empty(),
            // RFC 8446 6.2: whatever the level says, every other alert ends the connection, unanswered.
            description => Err(RecordError { error: Error::AlertReceived(description), alert: None }),
        }
    }

    /// Takes messages of the handshake protocol, whole or in pieces, one or several to a record.
    fn handshake(&mut self, content: &[u8]) -> Result<(), RecordError> {
        if content.is_empty() {
            let error = InvalidMessage::InvalidEmptyPayload;
            return Err(RecordError::new(error, AlertDescription::UnexpectedMessage));
        }
        if self.message.len() + content.len() > MOST_MESSAGE {
            let error = InvalidMessage::HandshakePayloadTooLarge;
            return Err(RecordError::new(error, AlertDescription::DecodeError));
        }
        self.message.extend_from_slice(content);
        let bytes = std::mem::take(&mut self.message);
        let mut rest = bytes.as_slice();
        while let [kind, high, middle, low, behind @ ..] = rest {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            let kind = HandshakeType::from(*kind);
            self.expect(kind, length)?;
            let Some((body, behind)) = behind.split_at_checked(length) else { break };
            self.take_message(kind, body, behind.is_empty())?;
            rest = behind;
        }
        let taken = bytes.len() - rest.len();
        // What waits for more stays where it is: many small pieces of it are not copied for each of them.
        self.message = bytes;
        self.message.drain(..taken);
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }

    /// Says whether a message may come at all, before the rest of it is waited for.
    fn expect(&self, kind: HandshakeType, length: usize) -> Result<(), RecordError> {
        match kind {
            HandshakeType::KeyUpdate if length == 1 => Ok(()),
            HandshakeType::KeyUpdate => {
                let error = InvalidMessage::InvalidKeyUpdate;
                Err(RecordError::new(error, AlertDescription::DecodeError))
            }
            HandshakeType::NewSessionTicket if self.keys.is_client() => Ok(()),
            got_type => Err(unexpected(got_type)),
        }
    }

    fn take_message(&mut self, kind: HandshakeType, body: &[u8], is_last: bool) -> Result<(), RecordError> {
        match kind {
            HandshakeType::KeyUpdate => self.key_update(body, is_last),
            // No session is ever resumed: a ticket is not kept.
            HandshakeType::NewSessionTicket => Ok(()),
            got_type => Err(unexpected(got_type)),
        }
    }

    fn key_update(&mut self, body: &[u8], is_last: bool) -> Result<(), RecordError> {
        // RFC 8446 5.1: nothing in the record may follow a change of keys.
        if !is_last {
            let error = PeerMisbehaved::KeyEpochWithPendingFragment;
            return Err(RecordError::new(error, AlertDescription::UnexpectedMessage));
        }
        match body {
            [0] => {}
            [1] => self.owes_update = true,
            _ => {
                let error = InvalidMessage::InvalidKeyUpdate;
                return Err(RecordError::new(error, AlertDescription::IllegalParameter));
            }
        }
        self.updates += 1;
        if self.updates > MOST_UPDATES {
            let error = PeerMisbehaved::TooManyKeyUpdateRequests;
            return Err(RecordError::new(error, AlertDescription::UnexpectedMessage));
        }
        (self.opening, self.opened) = (self.keys.next_opening()?, 0);
        Ok(())
    }

    /// Seals a change of our own keys where one is owed, or due after so many records.
    fn seal_updates(&mut self, plain: &[IoSlice<'_>], out: &mut [u8]) -> Result<usize, RecordError> {
        if plain.iter().all(|slice| slice.is_empty()) {
            return Ok(0);
        }
        let due = self.sealed >= self.last_number();
        if !self.owes_update && !due {
            return Ok(0);
        }
        // The peer counts its own records: asking it too would make a peer that only reads answer without any data.
        let message = [u8::from(HandshakeType::KeyUpdate), 0, 0, 1, NOT_REQUESTED];
        if let Some(body) = out.get_mut(HEADER..HEADER + message.len()) {
            body.copy_from_slice(&message);
        }
        let written = self.seal_record(ContentType::Handshake, message.len(), out)?;
        self.owes_update = false;
        self.change_sealing()?;
        Ok(written)
    }

    /// Goes on with the next key.
    pub(super) fn change_sealing(&mut self) -> Result<(), Error> {
        (self.sealing, self.sealed) = (self.keys.next_sealing()?, 0);
        Ok(())
    }

    /// Seals the record whose content of `length` bytes stands behind the room for its header.
    pub(super) fn seal_record(
        &mut self,
        kind: ContentType,
        length: usize,
        out: &mut [u8],
    ) -> Result<usize, RecordError> {
        let sealed = (length + ADDED) as u16;
        let [high, low] = sealed.to_be_bytes();
        let header = [u8::from(ContentType::ApplicationData), 3, 3, high, low];
        let whole = HEADER + length + ADDED;
        let no_room = || Error::General("no room for a record".into());
        let (front, body) =
            out.get_mut(..whole).and_then(|out| out.split_at_mut_checked(HEADER)).ok_or_else(no_room)?;
        front.copy_from_slice(&header);
        let (inner, tag) = body.split_at_mut_checked(length + 1).ok_or_else(no_room)?;
        if let Some(last) = inner.last_mut() {
            *last = u8::from(kind);
        }
        let made = self.sealing.seal(self.sealed, &header, inner).map_err(|_| Error::EncryptError)?;
        tag.copy_from_slice(made.as_ref());
        self.sealed += 1;
        Ok(whole)
    }
}

fn unexpected(got_type: HandshakeType) -> RecordError {
    let error =
        Error::InappropriateHandshakeMessage { expect_types: vec![HandshakeType::KeyUpdate], got_type };
    RecordError::new(error, AlertDescription::UnexpectedMessage)
}

/// Slices read one after the other.
struct Pieces<'a> {
    slices: std::slice::Iter<'a, IoSlice<'a>>,
    current: &'a [u8],
}

impl<'a> Pieces<'a> {
    fn new(slices: &'a [IoSlice<'a>]) -> Self {
        Self { slices: slices.iter(), current: &[] }
    }

    fn fill(&mut self, mut space: &mut [u8]) -> usize {
        let room = space.len();
        while !space.is_empty() {
            if self.current.is_empty() {
                let Some(next) = self.slices.next() else { break };
                self.current = next;
                continue;
            }
            let length = self.current.len().min(space.len());
            let (piece, rest) = self.current.split_at_checked(length).unwrap_or_default();
            let (to, behind) = space.split_at_mut_checked(length).unwrap_or_default();
            to.copy_from_slice(piece);
            (self.current, space) = (rest, behind);
        }
        room - space.len()
    }
}

/// The length of a record's header.
pub(super) const HEADER: usize = 5;
/// What sealing adds: the kind and the tag.
const ADDED: usize = 1 + TAG_BYTES;
/// The most data in a record (RFC 8446 5.1).
pub(super) const MOST_PLAIN: usize = 1 << 14;
/// The longest record (RFC 8446 5.2).
pub(super) const MOST_SEALED: usize = HEADER + MOST_PLAIN + 256;
/// The longest message after the handshake that is put together: a ticket is shorter.
const MOST_MESSAGE: usize = 64 * 1024;
/// Records in a row that carry no data.
const MOST_EMPTY: u8 = 32;
/// Changes of keys in a row without data.
const MOST_UPDATES: u8 = 32;
/// No change of the peer's keys is asked for (RFC 8446 4.6.3).
const NOT_REQUESTED: u8 = 0;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
