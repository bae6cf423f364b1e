//! `/livez`, `/readyz` and `/metrics` over HTTP, for those who watch the agent. Nothing here is secret or changes anything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::health::Health;
use crate::state::State;

/// The most connections at once.
pub(crate) const MAX_CONNECTIONS: usize = 16;

/// How long a client may take to send its request.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last.
pub(crate) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What is told about the agent.
pub(crate) struct Monitor {
    /// Whether it is ready.
    pub health: Health,
    /// Its figures.
    pub registry: Registry,
    /// Its state.
    pub state: watch::Receiver<Arc<State>>,
}

/// Serves `monitor` until dropped.
pub(crate) async fn serve(listener: TcpListener, monitor: Arc<Monitor>) -> Infallible {
    let turns = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let turn = turns.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let monitor = monitor.clone();
                connections.spawn(async move {
                    let _turn = turn;
                    // Who closes early or lingers loses the connection; nothing hangs on it.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection(stream, monitor)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(crate::server::ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, monitor: Arc<Monitor>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = monitor.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

impl Monitor {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".to_owned());
        }
        match path {
            "/livez" => respond(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            _ => respond(StatusCode::NOT_FOUND, TEXT, "/livez, /readyz or /metrics\n".to_owned()),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let reasons = self.health.unready(&self.state.borrow());
        if reasons.is_empty() {
            return respond(StatusCode::OK, TEXT, "ready\n".to_owned());
        }
        let lines = reasons.into_iter().map(|reason| format!("not ready: {reason}\n"));
        respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.collect())
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => respond(StatusCode::OK, OPEN_METRICS, text),
            Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
