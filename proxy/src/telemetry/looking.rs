//! The asking end of the live view: the table of those who call, and single requests as they end.

use std::path::Path;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::reload::AskError;

/// Asks the sidecar whose admin socket is `socket` who called since the last time.
pub async fn top(socket: &Path) -> Result<Value, AskError> {
    let mut body = open(socket, TOP).await?;
    let whole = Limited::new(&mut body.body, MAX_TABLE).collect().await;
    let whole = whole.map_err(|error| AskError::Body { reason: error.to_string() })?;
    serde_json::from_slice(&whole.to_bytes()).map_err(AskError::Answer)
}

/// Shows each request that ends to `see`, until it says that it has seen enough or the sidecar stops.
pub async fn tap(socket: &Path, mut see: impl FnMut(&Value) -> bool) -> Result<(), AskError> {
    let mut open = open(socket, TAP).await?;
    let mut rest = Vec::new();
    while let Some(frame) = open.body.frame().await {
        let frame = frame.map_err(AskError::Broken)?;
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if !see(&serde_json::from_slice(&line).map_err(AskError::Answer)?) {
                return Ok(());
            }
        }
        if rest.len() > MAX_LINE {
            return Err(AskError::Body { reason: "a line is too long".to_owned() });
        }
    }
    Ok(())
}

/// An answer, and the task that brings it.
struct Open {
    body: Incoming,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn open(socket: &Path, path: &'static str) -> Result<Open, AskError> {
    let unreachable = |source| AskError::Unreachable { path: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(AskError::Broken)?;
    let connection = tokio::spawn(async move {
        // Where the connection breaks, the answer has failed, too, and says so.
        let _ = connection.await;
    });
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static(path);
    let response = sender.send_request(request).await.map_err(AskError::Broken)?;
    let (status, body) = (response.status(), response.into_body());
    let mut open = Open { body, connection };
    if status == StatusCode::OK {
        return Ok(open);
    }
    let told = Limited::new(&mut open.body, MAX_LINE).collect().await;
    let told =
        told.map(|told| String::from_utf8_lossy(&told.to_bytes()).trim().to_owned()).unwrap_or_default();
    Err(match status {
        StatusCode::FORBIDDEN => AskError::Denied { message: told },
        status => AskError::Failed { status: status.as_u16(), message: told },
    })
}

/// The table of those who call.
pub(crate) const TOP: &str = "/top";
/// Single requests as they end.
pub(crate) const TAP: &str = "/tap";
/// The table has a bounded number of rows.
const MAX_TABLE: usize = 4 * 1024 * 1024;
const MAX_LINE: usize = 64 * 1024;
