//! The few lines of HTTP/1.1 client that the tour and the demo services need: one request on one
//! connection, with a deadline and a bound on the answer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Sends one request and reads the whole answer.
pub(crate) async fn send(to: SocketAddr, request: Request<Empty<Bytes>>) -> anyhow::Result<Response<Bytes>> {
    tokio::time::timeout(DEADLINE, exchange(to, request))
        .await
        .with_context(|| format!("{to} did not answer within {} s", DEADLINE.as_secs()))?
}

/// Gets one path.
pub(crate) async fn get(to: SocketAddr, path: &str) -> anyhow::Result<Response<Bytes>> {
    send(to, request("GET", to, path)?).await
}

/// A request without a body.
pub(crate) fn request(method: &str, to: SocketAddr, path: &str) -> anyhow::Result<Request<Empty<Bytes>>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, to.to_string())
        .body(Empty::new())
        .with_context(|| format!("{method} {path} is not a request"))
}

async fn exchange(to: SocketAddr, request: Request<Empty<Bytes>>) -> anyhow::Result<Response<Bytes>> {
    let stream = TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|cause| anyhow::anyhow!("the answer of {to} cannot be read: {cause}"))?;
        anyhow::Ok(Response::from_parts(head, body.to_bytes()))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end together with the answer, which then is complete.
        ended = connection => { ended?; answer.await }
    }
}

/// An exchange on loopback that takes longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// More than any page of metrics of a daemon in the tour.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
