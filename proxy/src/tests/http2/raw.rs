//! A caller that writes frames byte by byte, whatever the rules say.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::testing::PATIENCE;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// Returns the error code of RST_STREAM or GOAWAY.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes fields as literals that no table remembers.
pub(super) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        length(&mut block, name.len());
        block.extend_from_slice(name.as_bytes());
        length(&mut block, value.len());
        block.extend_from_slice(value);
    }
    block
}

fn length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// The pseudo fields of a GET.
pub(super) const GET: [(&str, &[u8]); 4] =
    [(":method", b"GET"), (":scheme", b"http"), (":authority", b"web.prod.test"), (":path", b"/hello")];

/// One connection.
pub(super) struct Raw<S> {
    pub(super) stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Says hello, and waits for the other side to have said it.
    pub(super) async fn open(stream: S) -> Self {
        let mut raw = Self { stream };
        raw.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        raw.wait_for(|frame| frame.kind == SETTINGS).await.expect("settings");
        raw.write(&frame(SETTINGS, 1, 0, &[])).await;
        raw
    }

    /// Writes what the other side takes: it may have closed.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Sends a request with these fields and no body.
    pub(super) async fn request(&mut self, stream: u32, fields: &[(&str, &[u8])]) {
        self.write(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))).await;
    }

    /// Reads a frame; none at the end.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        timeout(PATIENCE, self.stream.read_exact(&mut head)).await.expect("a frame or the end").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        timeout(PATIENCE, self.stream.read_exact(&mut payload)).await.expect("a payload").ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until a frame is wanted; none at the end.
    pub(super) async fn wait_for(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Returns how the other side resets a stream.
    pub(super) async fn reset_of(&mut self, stream: u32) -> Option<u32> {
        let ends = |frame: &Frame| {
            (frame.stream == stream && (frame.kind == RST_STREAM || frame.flags & END_STREAM != 0))
                || frame.kind == GOAWAY
        };
        let end = self.wait_for(ends).await?;
        (end.kind == RST_STREAM).then(|| end.code())
    }

    /// Returns how the other side ends the connection.
    pub(super) async fn goaway(&mut self) -> Option<u32> {
        self.wait_for(|frame| frame.kind == GOAWAY).await.map(|frame| frame.code())
    }
}
