//! Serves the requests of one connection until it ends, is cut or drains.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1::Builder, service::Service};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::{body::ReplyBody, exchange::Session, io::ScannedIo, scanner::HeadLimits};
use crate::stream::Stream;

/// How a served connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both sides were done.
    Finished,
    /// The client's connection broke, or an upstream broke in the middle of a response.
    Failed(hyper::Error),
    /// The connection was cut; the reason is kept by its registration.
    Cut,
}

/// Serves `stream`. On `drain` the request in flight is finished and the connection closed.
pub(crate) async fn serve(
    stream: Stream,
    limits: HeadLimits,
    session: Arc<Session>,
    drain: &CancellationToken,
) -> Ended {
    let live = Arc::clone(session.live());
    let wire = Arc::clone(session.wire());
    let io = ScannedIo::requests(stream, limits, Arc::clone(&wire), Arc::clone(&live));
    let connection = Builder::new()
        .max_headers(limits.count)
        .max_header_size(limits.bytes)
        .serve_connection(TokioIo::new(io), Answers(Arc::clone(&session)));
    let mut connection = std::pin::pin!(connection);
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            biased;
            cut = live.wait_cut() => {
                session.record_cut(cut);
                wire.reset();
                break Ended::Cut;
            }
            () = drain.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            result = connection.as_mut() => break match result {
                Ok(()) => Ended::Finished,
                Err(error) => Ended::Failed(error),
            },
        }
    };
    session.record_flaw();
    ended
}

/// Answers the requests of one connection. The future of a request is boxed, so that an idle connection does not
/// hold room for one.
struct Answers(Arc<Session>);

impl Service<Request<Incoming>> for Answers {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let session = Arc::clone(&self.0);
        Box::pin(async move { Ok(session.answer(request).await) })
    }
}
