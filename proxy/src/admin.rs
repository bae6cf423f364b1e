//! The admin interface: what an operator, a probe or a scraper may read. Nothing can be changed through it.
//!
//! It listens on loopback or a Unix socket only, answers GET only, and on loopback only requests whose Host is an
//! address of loopback: a web page that had a name rebound to 127.0.0.1 still sends that name.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use policy::CanonicalHost;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{shared::Shared, state::Part};

/// Where the admin interface accepts.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What the admin interface tells.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    /// The effective configuration. It holds no secret: keys are named by path.
    pub(crate) config: serde_json::Value,
}

/// Whether the Host of a request is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Loopback,
    Any,
}

/// Serves until `stop`.
pub(crate) async fn serve(socket: Socket, admin: Arc<Admin>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        while connections.try_join_next().is_some() {}
        // Never closed: waits for a place and cannot fail.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let admin = Arc::clone(&admin);
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&socket) => match accepted {
                Ok(Accepted::Tcp(stream)) => {
                    connections.spawn(async move { answer(stream, admin, Host::Loopback).await; drop(place) });
                }
                Ok(Accepted::Unix(stream)) => {
                    connections.spawn(async move { answer(stream, admin, Host::Any).await; drop(place) });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin interface");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
    }
}

enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(socket: &Socket) -> std::io::Result<Accepted> {
    match socket {
        Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
        Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, admin: Arc<Admin>, host: Host) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = admin.answer(&request, host);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away or takes its time is its own affair.
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, connection).await;
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>, host: Host) -> Response<Full<Bytes>> {
        if host == Host::Loopback && !is_loopback(request) {
            return text(StatusCode::FORBIDDEN, "the Host is not an address of loopback\n");
        }
        if request.method() != Method::GET {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            "/config" => json_of(StatusCode::OK, &self.config),
            _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics /config\n"),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let state = &self.shared.state;
        let (reasons, warnings): (Vec<_>, Vec<_>) =
            state.problems().into_iter().partition(|(part, _)| part.blocks());
        let list = |problems: Vec<(Part, String)>| -> Vec<serde_json::Value> {
            let one = |(part, reason): (Part, String)| json!({"part": part.as_str(), "reason": reason});
            problems.into_iter().map(one).collect()
        };
        let ready = reasons.is_empty();
        let now = state.now();
        let body = json!({
            "ready": ready,
            "reasons": list(reasons),
            "warnings": list(warnings),
            "identity": now.identity.as_ref().map(|identity| identity.id().as_str().to_owned()),
            "policy_generation": &*now.generation,
            "audit_healthy": self.shared.log.healthy(),
        });
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json_of(status, &body)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let metrics = &self.shared.metrics;
        metrics.ready.set(i64::from(self.shared.state.is_ready()));
        match metrics.encode(&self.shared.log) {
            Ok(encoded) => with_type(StatusCode::OK, encoded, OPEN_METRICS),
            Err(error) => {
                tracing::error!(%error, "cannot encode the metrics");
                text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics\n")
            }
        }
    }
}

fn is_loopback(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str().map_err(|_| ()).and_then(|host| CanonicalHost::parse(host).map_err(|_| ()))
    else {
        return false;
    };
    let name = host.as_str().trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn json_of(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    with_type(status, format!("{body:#}\n"), "application/json")
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    with_type(status, body.to_owned(), "text/plain; charset=utf-8")
}

fn with_type(status: StatusCode, body: String, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Probes and scrapers are few.
const MAX_CONNECTIONS: usize = 64;
const MAX_HEADERS: usize = 64;
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
