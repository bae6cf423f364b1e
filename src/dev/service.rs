//! The HTTP services of `vouchsafe dev`. They speak plain HTTP and know nothing of identities.
//!
//! With an upstream the service passes a request on to it, as `web` does to `api`; without one it
//! answers with what it saw, the caller's identity as its sidecar tells it among it.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::http as client;
use crate::cli::dev::DevService;
use crate::daemon::{self, Carrier, Memory};
use crate::exit::{Exit, Failure};

/// Runs a service until it is told to stop.
pub(crate) fn run(service: DevService) -> Result<Exit, Failure> {
    let carrier = Carrier { workers: 0, memory: Memory::Private, supervised: service.supervised };
    carrier.carry(|shutdown| async move { Ok(serve(service, shutdown).await?) })
}

async fn serve(service: DevService, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(service.listen)
        .await
        .with_context(|| format!("cannot listen on {}", service.listen))?;
    daemon::ready(&format!("listening on {}", service.listen));
    info!(name = service.name, listen = %service.listen, "service listens");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("cannot accept")?;
                connections.spawn(converse(stream, service.name.clone(), service.upstream));
            }
        }
    }
}

async fn converse(stream: TcpStream, name: String, upstream: Option<SocketAddr>) {
    let answer = service_fn(|request| {
        let name = name.clone();
        async move { Ok::<_, Infallible>(respond(&name, upstream, &request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(cause) = served {
        debug!(%cause, "connection ended early");
    }
}

async fn respond(
    name: &str,
    upstream: Option<SocketAddr>,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let answer = match upstream {
        Some(upstream) => pass_on(upstream, request).await,
        None => tell(name, request),
    };
    answer.unwrap_or_else(|cause| {
        let mut failed = Response::new(Full::from(format!("{name}: {cause:#}\n")));
        *failed.status_mut() = StatusCode::BAD_GATEWAY;
        failed
    })
}

/// Answers with what arrived.
fn tell(name: &str, request: &Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let told = Told {
        service: name,
        method: request.method().as_str(),
        path: request.uri().path(),
        caller: header(request.headers(), CALLER),
    };
    let mut body = serde_json::to_vec(&told)?;
    body.push(b'\n');
    let answer = Response::builder().header(http::header::CONTENT_TYPE, "application/json");
    Ok(answer.body(Full::from(body))?)
}

/// Asks the upstream the same and answers as it did.
async fn pass_on(upstream: SocketAddr, request: &Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let onward = client::request(request.method().as_str(), upstream, path)?;
    let (head, body) = client::send(upstream, onward).await?.into_parts();
    let mut answer = Response::builder().status(head.status);
    for (name, value) in &head.headers {
        if !HOP_BY_HOP.contains(name) {
            answer = answer.header(name, value);
        }
    }
    Ok(answer.body(Full::from(body))?)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What a service says about a request.
#[derive(Debug, Serialize)]
struct Told<'a> {
    service: &'a str,
    method: &'a str,
    path: &'a str,
    #[serde(rename = "x-forwarded-client-cert")]
    caller: Option<&'a str>,
}

/// Where a sidecar tells its application who calls.
const CALLER: &str = "x-forwarded-client-cert";

/// Headers that belong to one connection and not to the message.
const HOP_BY_HOP: [HeaderName; 4] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_tells_what_its_sidecar_said_about_the_caller() {
        let api = start("api", None).await;

        let mut request = client::request("GET", api, "/accounts/7").unwrap();
        request.headers_mut().insert(CALLER, "URI=spiffe://dev.local/web".parse().unwrap());
        let answer = client::send(api, request).await.unwrap();

        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.body(),
            "{\"service\":\"api\",\"method\":\"GET\",\"path\":\"/accounts/7\",\
             \"x-forwarded-client-cert\":\"URI=spiffe://dev.local/web\"}\n"
        );
    }

    #[tokio::test]
    async fn a_service_with_an_upstream_answers_as_it_did() {
        let api = start("api", None).await;
        let web = start("web", Some(api)).await;

        let answer = client::get(web, "/accounts/7?a=b").await.unwrap();

        let told: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!((answer.status().as_u16(), told["service"].as_str()), (200, Some("api")));
    }

    #[tokio::test]
    async fn an_upstream_that_is_gone_is_a_bad_gateway() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let web = start("web", Some(gone)).await;

        let answer = client::get(web, "/").await.unwrap();

        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    }

    /// Starts a service on a free port; the runtime of the test ends it.
    async fn start(name: &str, upstream: Option<SocketAddr>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let name = name.to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, name.clone(), upstream));
            }
        });
        listen
    }
}
