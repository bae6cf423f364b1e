//! Which texts can occur in a dimension at all, so that a witness is one that a request can carry.
//!
//! A universe may hold a few texts too many (such as an over-long one), never one too few: what a witness is worth is
//! tried on the evaluator afterwards.

/// The texts of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Universe {
    /// SPIFFE IDs.
    Ids,
    /// Paths in the form in which native rules compare them.
    Paths,
    /// Paths as Istio's rules see them: not everything is resolved.
    LoosePaths,
    /// Authorities: a host, perhaps a trailing dot, perhaps a port.
    Authorities,
    /// Server names of a handshake, in lower case.
    ServerNames,
    /// Methods.
    Methods,
    /// Field lines and the texts of claims.
    Texts,
}

/// A place in a text, as far as the universe cares.
pub(crate) type State = u8;

impl Universe {
    /// The place before the first byte.
    pub(crate) fn start(self) -> State {
        0
    }

    /// Whether a text can end here.
    pub(crate) fn accepts(self, state: State) -> bool {
        match self {
            Self::Ids => matches!(state, ID_DOMAIN | ID_SEGMENT),
            Self::Paths => matches!(state, SLASH | BODY | PERCENT | PERCENT_HEX),
            Self::LoosePaths | Self::Methods => state == 1,
            Self::Authorities => matches!(state, NAME | DOT | V6_CLOSED | PORT),
            Self::ServerNames => state == NAME,
            Self::Texts => true,
        }
    }

    /// The place after one more byte, if a text can go on so.
    pub(crate) fn step(self, state: State, byte: u8) -> Option<State> {
        match self {
            Self::Ids => id_step(state, byte),
            Self::Paths => path_step(state, byte),
            Self::LoosePaths => match (state, byte) {
                (0, b'/') => Some(1),
                (1, 0x21..=0x7e) if !matches!(byte, b'?' | b'#') => Some(1),
                _ => None,
            },
            Self::Authorities => authority_step(state, byte),
            Self::ServerNames => match (state, byte) {
                (_, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => Some(NAME),
                (NAME, b'.') => Some(0),
                _ => None,
            },
            Self::Methods => is_token(byte).then_some(1),
            Self::Texts => matches!(byte, 0x20..=0x7e).then_some(0),
        }
    }

    /// Groups of bytes of which one stands for all, as far as no pattern names another: the first is taken that no
    /// pattern names. Between groups patterns do tell.
    pub(crate) fn groups(self, state: State) -> &'static [&'static [u8]] {
        match (self, state) {
            (Self::Ids, 0..ID_START) => SCHEME_GROUPS,
            (Self::Ids, _) => &[ID_BYTES, b"/"],
            (Self::Paths, HIGH..=LOW_LAST) => HEX_GROUPS,
            (Self::Paths | Self::LoosePaths, _) => &[PATH_BYTES, b"/"],
            (Self::Authorities, _) => &[HOST_BYTES, b".", b":", b"]", b"8"],
            (Self::ServerNames, _) => &[HOST_BYTES, b"."],
            (Self::Methods, _) => &[METHOD_BYTES],
            (Self::Texts, _) => &[TEXT_BYTES, b",", b"/"],
        }
    }

    /// Texts that people recognise, to be shown where they say the same as the shortest one.
    pub(crate) fn familiar(self) -> &'static [&'static str] {
        match self {
            Self::Ids => &["spiffe://other.example/ns/other/sa/other"],
            Self::Paths | Self::LoosePaths => &["/other", "/"],
            Self::Authorities | Self::ServerNames => &["other.example"],
            Self::Methods => &["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"],
            Self::Texts => &["other"],
        }
    }
}

fn id_step(state: State, byte: u8) -> Option<State> {
    let plain = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    match (state, byte) {
        (0..ID_START, _) => (SCHEME.get(usize::from(state)) == Some(&byte)).then_some(state + 1),
        (ID_DOMAIN | ID_SEGMENT, b'/') => Some(ID_SLASH),
        (ID_START | ID_DOMAIN, _) if plain => Some(ID_DOMAIN),
        (ID_SLASH, b'.') => Some(ID_DOT),
        (ID_DOT, b'.') => Some(ID_DOTS),
        (ID_SLASH..=ID_SEGMENT, _) if plain || byte.is_ascii_uppercase() => Some(ID_SEGMENT),
        _ => None,
    }
}

fn path_step(state: State, byte: u8) -> Option<State> {
    match state {
        0 => (byte == b'/').then_some(SLASH),
        SLASH | ONE_DOT | TWO_DOTS | BODY | PERCENT | PERCENT_HEX => {
            // An escaped percent sign before two digits would be an escape of an escape.
            if byte.is_ascii_hexdigit() && state == PERCENT {
                return Some(PERCENT_HEX);
            }
            if byte.is_ascii_hexdigit() && state == PERCENT_HEX {
                return None;
            }
            match (state, byte) {
                (SLASH | ONE_DOT | TWO_DOTS, b'/') => None,
                (_, b'/') => Some(SLASH),
                (SLASH, b'.') => Some(ONE_DOT),
                (ONE_DOT, b'.') => Some(TWO_DOTS),
                (_, b'%') => Some(HIGH),
                _ => is_path_byte(byte).then_some(BODY),
            }
        }
        HIGH => Some(LOW + hex(byte)?),
        LOW..=LOW_LAST => after_escape((state - LOW) << 4 | hex(byte)?),
        _ => None,
    }
}

// Bytes above ASCII are taken one by one: whether they make up UTF-8 is left to the reader of the witness.
fn after_escape(value: u8) -> Option<State> {
    match value {
        b'%' => Some(PERCENT),
        b'/' | b'\\' | b';' | 0..=0x1f | 0x7f => None,
        _ if is_path_byte(value) => None,
        _ => Some(BODY),
    }
}

fn authority_step(state: State, byte: u8) -> Option<State> {
    let letter = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match (state, byte) {
        (0, b'[') => Some(V6),
        (V6, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' | b':' | b'.') => Some(V6),
        (V6, b']') => Some(V6_CLOSED),
        (NAME, b'.') => Some(DOT),
        (NAME | DOT | V6_CLOSED, b':') => Some(COLON),
        (COLON, b'1'..=b'9') | (PORT, b'0'..=b'9') => Some(PORT),
        (0 | NAME | DOT, _) if letter => Some(NAME),
        _ => None,
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || PATH_BYTES.contains(&byte) && byte != b'%'
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || METHOD_BYTES.contains(&byte)
}

const SCHEME: &[u8] = b"spiffe://";
const ID_START: State = 9;
const ID_DOMAIN: State = 10;
const ID_SLASH: State = 11;
const ID_DOT: State = 12;
const ID_DOTS: State = 13;
const ID_SEGMENT: State = 14;

const SLASH: State = 1;
const ONE_DOT: State = 2;
const TWO_DOTS: State = 3;
const BODY: State = 4;
const PERCENT: State = 5;
const PERCENT_HEX: State = 6;
const HIGH: State = 7;
const LOW: State = 8;
const LOW_LAST: State = LOW + 15;

const NAME: State = 1;
const DOT: State = 2;
const V6: State = 3;
const V6_CLOSED: State = 4;
const COLON: State = 5;
const PORT: State = 6;

const SCHEME_GROUPS: &[&[u8]] = &[b"s", b"p", b"i", b"f", b"e", b":", b"/"];
const ID_BYTES: &[u8] = b"xyzabcdefghijklmnopqrstuvw0123456789-_XYZABCDEFGHIJKLMNOPQRSTUVW.";
// What comes last is taken only where patterns name everything before it: an escape says no more than a letter.
const PATH_BYTES: &[u8] = b"xyzabcdefghijklmnopqrstuvw0123456789-_XYZABCDEFGHIJKLMNOPQRSTUVW~!$&'()*+,=:@.%";
const HEX_GROUPS: &[&[u8]] =
    &[b"2", b"0", b"1", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"A", b"B", b"C", b"D", b"E", b"F"];
const HOST_BYTES: &[u8] = b"xyzabcdefghijklmnopqrstuvw0123456789-_XYZABCDEFGHIJKLMNOPQRSTUVW[";
const METHOD_BYTES: &[u8] = b"XYZABCDEFGHIJKLMNOPQRSTUVWxyzabcdefghijklmnopqrstuvw0123456789-_!#$%&'*+.^`|~";
const TEXT_BYTES: &[u8] =
    b"xyzabcdefghijklmnopqrstuvw0123456789-_XYZABCDEFGHIJKLMNOPQRSTUVW./:@+=~!#$%&'()*;<>?[]^`{|}\\\" ";
