//! Connections to the agent's sockets: who is at the other end, for how long, and how many there may be.
//!
//! A connection belongs to the process that opened it. When that process exits, or is found to have changed its
//! user, the connection is broken, whoever holds the descriptor by then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use futures_util::task::AtomicWaker;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::Connected;

use crate::attestor::{Process, ProcessError};
use crate::limits::{Gate, GateError, MAX_HEADER_BYTES, MAX_STREAMS_PER_CONNECTION, Pass};

mod authority;

use self::authority::Authority;

/// How long to wait before accepting again after the system refused to give a descriptor.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The process at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Caller(Arc<CallerInner>);

struct CallerInner {
    process: Arc<Process>,
    exit: AsyncFd<Arc<Process>>,
    retired: AtomicBool,
    waker: AtomicWaker,
}

impl Caller {
    fn of(socket: &UnixStream) -> Result<Self, CallerError> {
        let process = Arc::new(Process::of_peer(socket)?);
        #[expect(
            deprecated,
            reason = "its successor is unsafe; what it asks for holds: the descriptor is owned by the process and stays the same"
        )]
        let exit = AsyncFd::with_interest(process.clone(), tokio::io::Interest::READABLE)
            .map_err(|source| CallerError::Watch { source })?;
        Ok(Self(Arc::new(CallerInner {
            process,
            exit,
            retired: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })))
    }

    /// Returns the process.
    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.0.process
    }

    /// Breaks the connection: its process is not the one that opened it any more. The process may connect again.
    pub(crate) fn retire(&self) {
        self.0.retired.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    fn poll_gone(&self, context: &mut Context<'_>) -> bool {
        self.0.waker.register(context.waker());
        // A pidfd becomes readable when its process exits, and stays so.
        self.0.retired.load(Ordering::Acquire) || self.0.exit.poll_read_ready(context).is_ready()
    }
}

/// A connection with its caller.
pub(crate) struct Connection {
    socket: UnixStream,
    authority: Authority,
    caller: Caller,
    _pass: Pass,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.caller.poll_gone(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if let Some(fresh) = buffer.filled_mut().get_mut(before..) {
            self.authority.mend(fresh);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// Accepts connections, and drops at once those whose caller is unknown or has too many.
pub(crate) fn incoming(listener: &UnixListener, gate: Gate) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold((listener, gate), async |(listener, gate)| {
        loop {
            match accept(listener, &gate).await {
                Ok(connection) => return Some((Ok(connection), (listener, gate))),
                Err(CallerError::Accept { source }) => {
                    tracing::warn!(%source, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                Err(CallerError::Limit(error)) => tracing::warn!(%error, "connection refused: too many"),
                Err(CallerError::Process(ProcessError::Gone)) => {
                    tracing::debug!("caller was gone before it was served")
                }
                Err(error) => {
                    tracing::warn!(error = %crate::health::chain(&error), "connection refused: caller unknown")
                }
            }
        }
    })
}

async fn accept(listener: &UnixListener, gate: &Gate) -> Result<Connection, CallerError> {
    let (socket, _) = listener.accept().await.map_err(|source| CallerError::Accept { source })?;
    let uid = socket
        .peer_cred()
        .map_err(|source| CallerError::Process(ProcessError::Credentials { source }))?
        .uid();
    let pass = gate.enter(uid)?;
    let caller = Caller::of(&socket)?;
    Ok(Connection { socket, authority: Authority::default(), caller, _pass: pass })
}

/// Returns a gRPC server with this agent's limits.
pub(crate) fn grpc() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
enum CallerError {
    #[error("cannot accept a connection")]
    Accept { source: io::Error },
    #[error("too many connections")]
    Limit(#[from] GateError),
    #[error("caller is unknown")]
    Process(#[from] ProcessError),
    #[error("cannot watch the caller")]
    Watch { source: io::Error },
}
