//! The application behind the sidecars, and a call to it. It answers each of its small requests with a small HTTP
//! response, so that it serves the routes of both protocols.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::ensure;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// The runtime for applications and callers; it goes on while this thread does something else.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// A service on a port of the loopback address, until it is dropped.
pub(crate) struct Application {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Application {
    pub(crate) fn start(runtime: &Runtime) -> anyhow::Result<Self> {
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn_on(serve(listener), runtime.handle());
        Ok(Self { address, _tasks: tasks })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) {
    let mut request = [0; 1024];
    // A connection that fails shows at the caller.
    while matches!(stream.read(&mut request).await, Ok(1..)) && stream.write_all(ANSWER).await.is_ok() {}
}

/// Sends one request and reads the whole answer.
pub(crate) async fn call<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> anyhow::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n").await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let read = stream.read_buf(&mut answer).await?;
        ensure!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&answer));
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "the answer is {:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
