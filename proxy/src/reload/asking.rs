//! The asking end: one request to the admin socket of a sidecar.

use std::{io, path::Path, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use super::{Asked, Files, Outcome};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens on the socket, or it may not be opened.
    #[error("no sidecar can be reached at {path}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The sidecar does not take requests from this user.
    #[error("the sidecar refuses: {message}")]
    Denied {
        /// What it says.
        message: String,
    },
    /// The sidecar has no answer.
    #[error("the sidecar answered {status}: {message}")]
    Failed {
        /// The HTTP status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The connection broke.
    #[error("the connection to the sidecar broke")]
    Broken(#[source] hyper::Error),
    /// The answer ends early, or is longer than answers are.
    #[error("the sidecar's answer cannot be read: {reason}")]
    Body {
        /// What is wrong with it.
        reason: String,
    },
    /// The answer has another shape.
    #[error("the sidecar's answer is not understood: is it of another version?")]
    Answer(#[source] serde_json::Error),
    /// No answer came in time.
    #[error("the sidecar did not answer within {} s", WAIT.as_secs())]
    Timeout,
}

/// Asks the sidecar whose admin socket is `socket`.
pub async fn ask(socket: &Path, asked: Asked) -> Result<Outcome, AskError> {
    timeout(WAIT, exchange(socket, asked, Bytes::new())).await.map_err(|_| AskError::Timeout)?
}

/// Asks the sidecar whose admin socket is `socket` what it would come to if these were its files.
pub async fn ask_about(socket: &Path, files: &Files) -> Result<Outcome, AskError> {
    let body = serde_json::to_vec(files).map_err(AskError::Answer)?;
    timeout(WAIT, exchange(socket, Asked::Preview, body.into())).await.map_err(|_| AskError::Timeout)?
}

async fn exchange(socket: &Path, asked: Asked, body: Bytes) -> Result<Outcome, AskError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AskError::Unreachable { path: socket.to_owned(), source })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(AskError::Broken)?;
    // Where the connection breaks, the request has failed, too, and says so.
    let (answer, _) = tokio::join!(answer(sender, asked, body), connection);
    let (status, bytes) = answer?;
    let message = || String::from_utf8_lossy(&bytes).trim().to_owned();
    match status {
        StatusCode::OK => serde_json::from_slice(&bytes).map_err(AskError::Answer),
        StatusCode::FORBIDDEN => Err(AskError::Denied { message: message() }),
        status => Err(AskError::Failed { status: status.as_u16(), message: message() }),
    }
}

async fn answer(
    mut sender: http1::SendRequest<Full<Bytes>>,
    asked: Asked,
    body: Bytes,
) -> Result<(StatusCode, Bytes), AskError> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(asked.path());
    let response = sender.send_request(request).await.map_err(AskError::Broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| AskError::Body { reason: error.to_string() })?;
    Ok((status, body.to_bytes()))
}

/// The lists in an answer are bounded; so are the problems in a file.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Longer than reading, compiling and trying the largest set takes.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
