//! The asking end: one request to the admin interface of a sidecar.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::Reconfigured;
use crate::reload::{self, AskError};

/// Where a sidecar answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On loopback.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

/// Whether a sidecar is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The process that answers.
    pub pid: Option<u32>,
    /// Each part that is missing, with the reason. With none the sidecar serves.
    pub missing: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Said {
    ready: bool,
    pid: Option<u32>,
    reasons: Vec<Reason>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    part: String,
    reason: String,
}

/// Asks whether the sidecar is ready.
pub async fn readiness(address: &Address) -> Result<Readiness, AskError> {
    let asked = async {
        let unreachable = |source| {
            let path = match address {
                Address::Tcp(address) => PathBuf::from(address.to_string()),
                Address::Unix(path) => path.clone(),
            };
            AskError::Unreachable { path, source }
        };
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                exchange(stream, Method::GET, "/readyz").await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                exchange(stream, Method::GET, "/readyz").await
            }
        }
    };
    let (status, body) = timeout(SHORT, asked).await.map_err(|_| AskError::Timeout)??;
    let said: Said = serde_json::from_slice(&body).map_err(AskError::Answer)?;
    let mut missing: Vec<String> =
        said.reasons.into_iter().map(|one| format!("{}: {}", one.part, one.reason)).collect();
    if missing.is_empty() && !(said.ready && status == StatusCode::OK) {
        missing.push(format!("it answers {status}"));
    }
    Ok(Readiness { pid: said.pid, missing })
}

/// Has the sidecar whose admin socket is `socket` read its configuration again, or say what that would change.
pub async fn reconfigure(socket: &Path, dry_run: bool) -> Result<Reconfigured, AskError> {
    let path = if dry_run { PREVIEW } else { RELOAD };
    let body = post(socket, path, reload::WAIT).await?;
    serde_json::from_slice(&body).map_err(AskError::Answer)
}

/// Has the sidecar whose admin socket is `socket` drain and end.
pub async fn quit(socket: &Path) -> Result<(), AskError> {
    post(socket, QUIT, SHORT).await.map(drop)
}

async fn post(socket: &Path, path: &'static str, limit: Duration) -> Result<Bytes, AskError> {
    let asked = async {
        let unreachable = |source| AskError::Unreachable { path: socket.to_owned(), source };
        let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
        exchange(stream, Method::POST, path).await
    };
    let (status, bytes) = timeout(limit, asked).await.map_err(|_| AskError::Timeout)??;
    let message = || String::from_utf8_lossy(&bytes).trim().to_owned();
    match status {
        StatusCode::OK => Ok(bytes),
        StatusCode::FORBIDDEN => Err(AskError::Denied { message: message() }),
        status => Err(AskError::Failed { status: status.as_u16(), message: message() }),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: Method,
    path: &'static str,
) -> Result<(StatusCode, Bytes), AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(AskError::Broken)?;
    let answer = async {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(path);
        let host = http::HeaderValue::from_static("localhost");
        request.headers_mut().insert(header::HOST, host);
        let response = sender.send_request(request).await.map_err(AskError::Broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| AskError::Body { reason: error.to_string() })?;
        drop(sender);
        Ok((status, body.to_bytes()))
    };
    // Where the connection breaks, the request has failed, too, and says so.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

pub(crate) const PREVIEW: &str = "/config/preview";
pub(crate) const RELOAD: &str = "/config/reload";
pub(crate) const QUIT: &str = "/quit";
/// The problems in a file are bounded.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// For an answer that needs no work.
const SHORT: Duration = Duration::from_secs(5);
