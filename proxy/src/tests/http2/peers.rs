//! A caller and an application that speak HTTP/2 in order.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
    server::SendResponse,
};
use http::{HeaderMap, Request, Response, StatusCode, request::Builder};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::testing::PATIENCE;

pub(super) fn get(path: &str) -> Builder {
    Request::get(format!("https://Web.Prod.Test.:8080{path}"))
}

pub(super) fn post(path: &str) -> Builder {
    get(path).method("POST")
}

pub(super) fn grpc(path: &str) -> Builder {
    post(path).header("content-type", "application/grpc").header("te", "trailers")
}

/// A response, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

/// One connection of a caller.
#[derive(Clone)]
pub(super) struct Caller {
    sender: SendRequest<Bytes>,
    driver: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Caller {
    pub(super) async fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = h2::client::Builder::new()
            // What a test leaves unread holds up nothing but itself.
            .initial_connection_window_size(16 * 1024 * 1024)
            .enable_push(false)
            .handshake(stream)
            .await
            .unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self { sender, driver: Arc::new(tokio::sync::Mutex::new(Some(driver))) }
    }

    /// Waits for the end of the connection.
    pub(super) async fn ended(&self) -> bool {
        let driver = self.driver.lock().await.take().expect("asked once");
        timeout(PATIENCE, driver).await.is_ok()
    }

    pub(super) fn open(&mut self, request: Builder, end: bool) -> (SendStream<Bytes>, ResponseFuture) {
        let (response, body) = self.sender.send_request(request.body(()).unwrap(), end).unwrap();
        (body, response)
    }

    /// Sends a request without a body and reads the head of its response.
    pub(super) async fn begin(&mut self, request: Builder) -> Result<Response<RecvStream>, h2::Error> {
        let (_, response) = self.open(request, true);
        timeout(PATIENCE, response).await.expect("a response")
    }

    /// Sends a head, whatever it is, and reads the status of its response.
    pub(super) async fn respond(&mut self, request: Request<()>) -> Result<StatusCode, h2::Error> {
        let (response, _body) = self.sender.send_request(request, false)?;
        timeout(PATIENCE, response).await.expect("a response").map(|response| response.status())
    }

    pub(super) async fn ask(&mut self, request: Builder) -> Result<Answer, h2::Error> {
        std::future::poll_fn(|cx| self.sender.poll_ready(cx)).await?;
        let (_, response) = self.open(request, true);
        timeout(PATIENCE, read(response)).await.expect("an answer")
    }

    /// Sends a body as far as there is room for it while the response is read.
    pub(super) async fn send(
        &mut self,
        request: Builder,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let (sending, response) = self.open(request, false);
        let sent = async { drop(write(sending, Bytes::copy_from_slice(body), trailers).await) };
        let (answer, ()) =
            timeout(PATIENCE, futures_util::future::join(read(response), sent)).await.expect("an answer");
        answer
    }
}

async fn read(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (parts, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(bytes) = stream.data().await {
        let bytes = bytes?;
        stream.flow_control().release_capacity(bytes.len())?;
        body.extend_from_slice(&bytes);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { status: parts.status, headers: parts.headers, body, trailers })
}

async fn write(
    mut to: SendStream<Bytes>,
    mut bytes: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        let Some(room) = std::future::poll_fn(|cx| to.poll_capacity(cx)).await else { return Ok(()) };
        let room = room?;
        to.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    match trailers {
        Some(trailers) => to.send_trailers(trailers),
        None => to.send_data(Bytes::new(), true),
    }
}

/// An application that does as the path says, and remembers what it was asked.
pub(super) struct Application {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request<()>>>,
    resets: Mutex<Vec<Reason>>,
    connections: AtomicUsize,
    refused: AtomicBool,
}

impl Application {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Seen> = Arc::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&seen)));
        Self { address, seen, task: Mutex::new(Some(task)) }
    }

    pub(super) async fn stop(&self) {
        let task = self.task.lock().unwrap().take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub(super) fn last_request(&self) -> Request<()> {
        let requests = self.seen.requests.lock().unwrap();
        requests.last().expect("a request").clone()
    }

    pub(super) fn requests(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    pub(super) fn resets(&self) -> Vec<Reason> {
        self.seen.resets.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        seen.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(socket, Arc::clone(&seen)));
    }
}

async fn serve(socket: TcpStream, seen: Arc<Seen>) {
    let Ok(mut connection) = h2::server::Builder::new().max_concurrent_streams(1_000).handshake(socket).await
    else {
        return;
    };
    let mut answers = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/leave" {
            connection.graceful_shutdown();
        }
        answers.spawn(answer(request, respond, Arc::clone(&seen)));
    }
    while answers.join_next().await.is_some() {}
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    let (parts, body) = request.into_parts();
    seen.requests.lock().unwrap().push(Request::from_parts(parts.clone(), ()));
    match parts.uri.path() {
        "/echo" => echo(body, respond).await,
        "/hang" | "/slow" => {
            if let Ok(reason) = std::future::poll_fn(|cx| respond.poll_reset(cx)).await {
                seen.resets.lock().unwrap().push(reason);
            }
        }
        "/endless" => {
            let mut to = respond.send_response(Response::new(()), false).unwrap();
            loop {
                to.reserve_capacity(16_384);
                let Some(Ok(room)) = std::future::poll_fn(|cx| to.poll_capacity(cx)).await else { return };
                if to.send_data(vec![0; room].into(), false).is_err() {
                    return;
                }
            }
        }
        "/deaf" => {
            let _to = respond.send_response(Response::new(()), false).unwrap();
            std::future::pending::<()>().await;
        }
        "/reset" => respond.send_reset(Reason::ENHANCE_YOUR_CALM),
        "/reset-late" => {
            let mut to = respond.send_response(Response::new(()), false).unwrap();
            to.send_data("part".into(), false).unwrap();
            tokio::task::yield_now().await;
            to.send_reset(Reason::CANCEL);
        }
        "/refuse-once" if !seen.refused.swap(true, Ordering::Relaxed) => {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        "/hints" => {
            let hints = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            respond.send_informational(hints).unwrap();
            let _ = respond.send_response(Response::new(()), true);
        }
        _ => {
            // Fails where the caller has given up.
            if let Ok(mut to) = respond.send_response(Response::new(()), false) {
                let _ = to.send_data("hello".into(), true);
            }
        }
    }
}

/// Sends back what comes, and a status behind it.
async fn echo(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let mut to = respond.send_response(Response::new(()), false).unwrap();
    while let Some(Ok(bytes)) = body.data().await {
        body.flow_control().release_capacity(bytes.len()).unwrap();
        let mut rest = bytes;
        while !rest.is_empty() {
            to.reserve_capacity(rest.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| to.poll_capacity(cx)).await else {
                return;
            };
            to.send_data(rest.split_to(room.min(rest.len())), false).unwrap();
        }
    }
    let mut trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let _ = to.send_trailers(trailers);
}
