//! TLS connections of which we own the buffers.
//!
//! The handshake is rustls's; afterwards records are opened and sealed in room that the thread lends, several to a read and
//! several to a write. While nothing is in flight a connection holds its keys and no buffer. What the peer does not take is
//! kept, and nothing is accepted behind it.

mod records;
mod scratch;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use identity::{
    Peer,
    tls::{Acceptor, Connector, Established, Handshake, HandshakeError, Progress},
};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use records::{MOST_SEALED, RecordError, Records};
pub(crate) use scratch::Scratch;

/// An established connection.
#[derive(Debug)]
pub(crate) struct TlsStream<S = TcpStream> {
    io: S,
    records: Records,
    /// Sealed bytes that were received and not opened: the beginning of a record, seldom more.
    incoming: Vec<u8>,
    /// Opened bytes that a reader had no room for, and how many of them it took since.
    plain: Vec<u8>,
    plain_at: usize,
    /// Sealed bytes that the socket did not take, and how many of them it took since.
    outgoing: Vec<u8>,
    sent: usize,
    failed: bool,
}

/// What a handshake told about the other side.
#[derive(Debug)]
pub(crate) struct Met<P, S = TcpStream> {
    pub(crate) peer: P,
    /// The peer's certificates, its leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The server name a client asked for, as it came.
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) stream: Box<TlsStream<S>>,
}

impl<S> Met<Option<Peer>, S> {
    /// Leaves out whoever proved nothing.
    pub(crate) fn proved(self) -> Option<Met<Peer, S>> {
        let Self { peer, chain, server_name, alpn, stream } = self;
        Some(Met { peer: peer?, chain, server_name, alpn, stream })
    }
}

/// Does the server's part of a handshake. Sets no time limit: whoever accepts strangers puts one around this.
pub(crate) async fn accept<S>(acceptor: &Acceptor, io: S) -> Result<Met<Option<Peer>, S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    meet(acceptor.begin()?, io).await
}

/// Does the client's part of a handshake.
pub(crate) async fn connect<S>(connector: &Connector, io: S) -> Result<Met<Peer, S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A client's configuration accepts no server without a certificate.
    meet(connector.begin()?, io).await?.proved().ok_or(HandshakeError::NoCertificate)
}

async fn meet<S>(mut handshake: Handshake, mut io: S) -> Result<Met<Option<Peer>, S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut outgoing = Vec::new();
    loop {
        let progress = handshake.advance(&mut outgoing);
        if !outgoing.is_empty() {
            let sent = send(&mut io, &mut outgoing).await;
            // A refusal counts for more than that it could not be told.
            if progress.is_ok() {
                sent.map_err(HandshakeError::Io)?;
            }
        }
        match progress? {
            Progress::Done => break,
            Progress::Receive => poll_fn(|cx| poll_receive(cx, &mut io, &mut handshake)).await?,
        }
    }
    let Established { peer, chain, server_name, alpn, keys, rest } = handshake.finish()?;
    let stream = Box::new(TlsStream {
        io,
        records: Records::new(keys)?,
        incoming: rest,
        plain: Vec::new(),
        plain_at: 0,
        outgoing: Vec::new(),
        sent: 0,
        failed: false,
    });
    Ok(Met { peer, chain, server_name, alpn, stream })
}

async fn send<S: AsyncWrite + Unpin>(io: &mut S, outgoing: &mut Vec<u8>) -> io::Result<()> {
    io.write_all(outgoing).await?;
    outgoing.clear();
    io.flush().await
}

fn poll_receive<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    io: &mut S,
    handshake: &mut Handshake,
) -> Poll<Result<(), HandshakeError>> {
    let mut scratch = Scratch::take();
    let space = scratch.get_mut(..HANDSHAKE_READ).unwrap_or_default();
    let mut buffer = ReadBuf::new(space);
    ready!(Pin::new(io).poll_read(cx, &mut buffer)).map_err(HandshakeError::Io)?;
    if buffer.filled().is_empty() {
        return Poll::Ready(Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into())));
    }
    Poll::Ready(handshake.receive(buffer.filled()))
}

impl<S> TlsStream<S> {
    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Receives up to about `want` bytes and opens what is whole: as many plain bytes as it says then stand at the beginning of
    /// `scratch`, none at the end of the stream.
    pub(crate) fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        want: usize,
    ) -> Poll<io::Result<usize>> {
        if let Some(length) = self.take_plain(scratch, want) {
            return Poll::Ready(Ok(length));
        }
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        while !self.records.is_ended() {
            let filled = ready!(self.poll_fill(cx, scratch, want))?;
            let space = scratch.get_mut(..filled).unwrap_or_default();
            let opened = match self.records.open(space) {
                Ok(opened) => opened,
                Err(error) => return Poll::Ready(Err(self.fail(cx, error))),
            };
            self.hold(space.get(opened.consumed..).unwrap_or_default());
            if opened.plain > 0 {
                return Poll::Ready(Ok(opened.plain));
            }
        }
        Poll::Ready(Ok(0))
    }

    /// Seals as much of `plain` as goes into one write, and writes it. Returns how much was taken: what the socket has no room
    /// for is kept, and has to be flushed before more is taken.
    pub(crate) fn poll_seal(
        &mut self,
        cx: &mut Context<'_>,
        plain: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        // A peer that broke off or sent a fatal alert is told nothing more (RFC 8446 6.2).
        if self.failed || self.records.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut scratch = Scratch::take();
        let (taken, length) = match self.records.seal(plain, &mut scratch) {
            Ok(sealed) => sealed,
            Err(error) => return Poll::Ready(Err(self.fail(cx, error))),
        };
        let mut rest = scratch.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, rest)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Pending => {
                    (self.outgoing, self.sent) = (rest.to_vec(), 0);
                    break;
                }
            }
        }
        Poll::Ready(Ok(taken))
    }

    /// Hands over bytes that were opened and not read.
    fn take_plain(&mut self, scratch: &mut [u8], want: usize) -> Option<usize> {
        let rest = self.plain.get(self.plain_at..).filter(|rest| !rest.is_empty())?;
        let length = rest.len().min(want.max(1)).min(scratch.len());
        let (from, to) = (rest.get(..length)?, scratch.get_mut(..length)?);
        to.copy_from_slice(from);
        self.plain_at += length;
        if self.plain_at >= self.plain.len() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
        Some(length)
    }

    /// Puts what is held and what comes into `scratch`. Reads nothing where a whole record is held.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        want: usize,
    ) -> Poll<io::Result<usize>> {
        let held = self.incoming.len();
        let record = Records::length(&self.incoming);
        // One that is longer than records may be is not waited for.
        if record.is_none_or(|length| (held + 1..=MOST_SEALED).contains(&length)) {
            let missing = record.unwrap_or_default().saturating_sub(held);
            let most = held + want.max(missing).max(LEAST_READ);
            let most = most.min(scratch.len());
            let mut buffer = ReadBuf::new(scratch.get_mut(held..most).unwrap_or_default());
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            let received = buffer.filled().len();
            if received == 0 {
                self.failed = true;
                // A connection that ends without saying so may have been cut short by anyone.
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, Truncated)));
            }
            self.unhold(scratch);
            return Poll::Ready(Ok(held + received));
        }
        self.unhold(scratch);
        Poll::Ready(Ok(held))
    }

    fn unhold(&mut self, scratch: &mut [u8]) {
        if let Some(front) = scratch.get_mut(..self.incoming.len()) {
            front.copy_from_slice(&self.incoming);
        }
        self.incoming.clear();
    }

    fn hold(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.extend_from_slice(rest);
        }
    }

    /// Writes what is kept.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        if !self.outgoing.is_empty() {
            (self.outgoing, self.sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer what is wrong, as far as it listens, and gives the connection up.
    fn fail(&mut self, cx: &mut Context<'_>, error: RecordError) -> io::Error {
        if let Some(alert) = error.alert.filter(|_| !self.failed) {
            let alert = self.records.seal_alert(alert);
            self.outgoing.extend_from_slice(&alert);
            // There is nothing to wait for: what does not fit is lost with the connection.
            let _ = self.poll_drain(cx);
        }
        self.failed = true;
        (self.incoming, self.plain, self.plain_at) = (Vec::new(), Vec::new(), 0);
        io::Error::new(io::ErrorKind::InvalidData, error.error)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (this, room) = (self.get_mut(), buffer.remaining());
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = Scratch::take();
        let length = ready!(this.poll_open(cx, &mut scratch, room))?;
        let (now, later) = scratch.get(..length).unwrap_or_default().split_at(length.min(room));
        buffer.put_slice(now);
        if !later.is_empty() {
            // Only what was just opened can be longer than asked for: then nothing older is left.
            (this.plain, this.plain_at) = (later.to_vec(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.records.is_closed() {
            let alert = this.records.seal_alert(rustls::AlertDescription::CloseNotify);
            this.outgoing.extend_from_slice(&alert);
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// Why a connection that ended is not believed to be complete.
#[derive(Debug, thiserror::Error)]
#[error("connection ended without the close_notify that tells it is complete")]
struct Truncated;

/// What one read of a handshake takes: a hello with post-quantum keys and a chain of certificates come at once.
const HANDSHAKE_READ: usize = 16 * 1024;
/// The least that is read from the socket at once, however little a reader asks for.
const LEAST_READ: usize = 4 * 1024;
