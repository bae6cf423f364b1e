//! The admin interface: what an operator, a probe or a scraper may read, and how an operator has policies reloaded.
//!
//! It listens on loopback and on a Unix socket only. On loopback, where every process of the host can call, it answers GET
//! only, and only requests whose Host is an address of loopback: a web page that had a name rebound to 127.0.0.1 still
//! sends that name. What tells of connections or changes something is done on the socket only, and only for root and
//! the user that the sidecar runs as.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody as BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use policy::CanonicalHost;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, broadcast::error::RecvError, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    lifecycle::{self, AskConfig},
    policies::{self, Ask},
    reload::{Asked, Files},
    shared::Shared,
    state::Part,
    telemetry::looking,
};

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
    pub(crate) config: watch::Receiver<serde_json::Value>,
    /// Where operators' requests about the configuration go.
    pub(crate) changes: mpsc::Sender<AskConfig>,
    /// Ends the proxy in order.
    pub(crate) stop: CancellationToken,
    /// Where operators' requests about policies go.
    pub(crate) asks: mpsc::Sender<Ask>,
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Some process of the host, over loopback.
    Anybody,
    /// Somebody who may open the socket.
    Reader,
    /// Root, or the user that the sidecar runs as.
    Operator,
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
                    connections.spawn(async move { answer(stream, admin, Caller::Anybody).await; drop(place) });
                }
                Ok(Accepted::Unix(stream)) => {
                    let caller = caller(&stream);
                    connections.spawn(async move { answer(stream, admin, caller).await; drop(place) });
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

/// Who is at the other end of the socket, as the kernel knows.
fn caller(stream: &tokio::net::UnixStream) -> Caller {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own || peer.uid() == 0 => Caller::Operator,
        Ok(_) | Err(_) => Caller::Reader,
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, admin: Arc<Admin>, caller: Caller) {
    let service = service_fn(|request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer_any(request, caller).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let limit = match caller {
        Caller::Anybody | Caller::Reader => ANSWER_TIMEOUT,
        // Longer than any request about policies takes, for who looks at requests as they come.
        Caller::Operator => LOOKING,
    };
    // A client that goes away or takes its time is its own affair.
    let _ = tokio::time::timeout(limit, connection).await;
}

impl Admin {
    /// Answers with what is there, or with what comes.
    async fn answer_any(
        &self,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Response<BoxBody<Bytes, Infallible>> {
        let looks = matches!(request.uri().path(), looking::TOP | looking::TAP);
        if looks && caller == Caller::Operator && request.method() == Method::GET {
            return match request.uri().path() {
                looking::TAP => self.tap(),
                _ => self.top().map(BoxBody::new),
            };
        }
        if looks && caller != Caller::Operator {
            return text(StatusCode::FORBIDDEN, FOR_OPERATORS).map(BoxBody::new);
        }
        self.answer(request, caller).await.map(BoxBody::new)
    }

    /// Who called since the last look, and what is open.
    fn top(&self) -> Response<Full<Bytes>> {
        let (since, seen) = self.shared.telemetry.view().table();
        let body = json!({
            "schema": "vouchsafe/top/v1",
            "seconds": since.map(|since| since.as_secs_f64()),
            "connections": self.shared.registry.len(),
            "open": self.shared.registry.open(),
            "requests": seen,
        });
        json_of(StatusCode::OK, &body)
    }

    /// Each request as it ends, a line of JSON each.
    fn tap(&self) -> Response<BoxBody<Bytes, Infallible>> {
        let Some(tap) = self.shared.telemetry.view().tap() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "as many look at requests as may\n")
                .map(BoxBody::new);
        };
        let lines = futures_util::stream::unfold(tap, |mut tap| async move {
            let line = match tap.lines.recv().await {
                Ok(line) => serde_json::to_value(&*line).unwrap_or_default(),
                Err(RecvError::Lagged(missed)) => json!({"missed": missed}),
                Err(RecvError::Closed) => return None,
            };
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{line}\n")))), tap))
        });
        let mut response = Response::new(BoxBody::new(StreamBody::new(lines)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
        response
    }

    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Response<Full<Bytes>> {
        if caller == Caller::Anybody && !is_loopback(&request) {
            return text(StatusCode::FORBIDDEN, "the Host is not an address of loopback\n");
        }
        let path = request.uri().path();
        if let Some(asked) = Asked::ALL.into_iter().find(|asked| asked.path() == path) {
            return match (caller, request.method()) {
                (Caller::Anybody | Caller::Reader, _) => text(StatusCode::FORBIDDEN, FOR_OPERATORS),
                (Caller::Operator, &Method::POST) => self.policies(asked, request.into_body()).await,
                (Caller::Operator, _) => only("POST"),
            };
        }
        if let lifecycle::PREVIEW | lifecycle::RELOAD | lifecycle::QUIT = path {
            return match (caller, request.method()) {
                (Caller::Anybody | Caller::Reader, _) => text(StatusCode::FORBIDDEN, FOR_OPERATORS),
                (Caller::Operator, &Method::POST) => self.lifecycle(path).await,
                (Caller::Operator, _) => only("POST"),
            };
        }
        if request.method() != Method::GET {
            return only("GET");
        }
        match path {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            "/config" => {
                let config = self.config.borrow().clone();
                json_of(StatusCode::OK, &config)
            }
            _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics /config\n"),
        }
    }

    async fn policies(&self, asked: Asked, body: Incoming) -> Response<Full<Bytes>> {
        let Ok(body) = Limited::new(body, MAX_SENT).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "that is more than a set of policies can have\n");
        };
        let body = body.to_bytes();
        let files: Option<Files> = match (asked, body.is_empty()) {
            (_, true) => None,
            (Asked::Preview, false) => match serde_json::from_slice(&body) {
                Ok(files) => Some(files),
                Err(_) => return text(StatusCode::BAD_REQUEST, "these are no files of policies\n"),
            },
            (Asked::Reload | Asked::ReloadEmpty, false) => {
                return text(StatusCode::BAD_REQUEST, "policies come from where the configuration says\n");
            }
        };
        let (reply, told) = oneshot::channel();
        if self.asks.try_send(Ask { asked, files, reply }).is_err() {
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                "no policies are loaded here, or others are asking\n",
            );
        }
        let Ok(outcome) = told.await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping\n");
        };
        match serde_json::to_value(&outcome) {
            Ok(body) => json_of(StatusCode::OK, &body),
            Err(error) => {
                tracing::error!(%error, "cannot write an answer about policies");
                text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the answer\n")
            }
        }
    }

    /// Has the configuration read again, or the proxy end.
    async fn lifecycle(&self, path: &str) -> Response<Full<Bytes>> {
        if path == lifecycle::QUIT {
            tracing::info!("an operator asks for the end");
            self.stop.cancel();
            return text(StatusCode::OK, "stopping\n");
        }
        let (reply, told) = oneshot::channel();
        if self.changes.try_send(AskConfig { dry_run: path == lifecycle::PREVIEW, reply }).is_err() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "others are asking, or the sidecar is stopping\n");
        }
        match told.await.map(|outcome| serde_json::to_value(&outcome)) {
            Ok(Ok(body)) => json_of(StatusCode::OK, &body),
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot write an answer about the configuration");
                text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the answer\n")
            }
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping\n"),
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
            "config_generation": self.config.borrow().get("generation").cloned(),
            "pid": std::process::id(),
            "audit_healthy": self.shared.log.healthy(),
        });
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json_of(status, &body)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let metrics = &self.shared.metrics;
        metrics.ready.set(i64::from(self.shared.state.is_ready()));
        match metrics.encode(&self.shared.log, &self.shared.telemetry) {
            Ok(encoded) => with_type(StatusCode::OK, encoded, OPEN_METRICS),
            Err(error) => {
                tracing::error!(%error, "cannot encode the metrics");
                text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics\n")
            }
        }
    }
}

/// Refuses another method than the one there is.
fn only(method: &'static str) -> Response<Full<Bytes>> {
    let mut response = with_type(StatusCode::METHOD_NOT_ALLOWED, format!("only {method}\n"), PLAIN);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(method));
    response
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
    with_type(status, body.to_owned(), PLAIN)
}

fn with_type(status: StatusCode, body: String, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// As JSON a text may be longer than it is.
const MAX_SENT: usize = 2 * policies::MAX_TOTAL;
const FOR_OPERATORS: &str = "only root and the user that the sidecar runs as may ask for this, on the socket that `admin: {socket}` names\n";
const PLAIN: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Probes and scrapers are few.
const MAX_CONNECTIONS: usize = 64;
const MAX_HEADERS: usize = 64;
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// An operator who looks for longer asks again.
const LOOKING: Duration = Duration::from_secs(60 * 60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
