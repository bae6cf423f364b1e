//! Serves the requests of one connection until it ends, is cut or drains.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1::Builder, service::Service};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::{body::ReplyBody, exchange::Session, io::ScannedIo, scanner::HeadLimits};
use crate::{live::Live, stream::Stream};

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

/// Serves `stream`. On `drain`, or once the peer's certificate has expired, the request in flight is finished and the
/// connection closed.
pub(crate) async fn serve(
    stream: Stream,
    limits: HeadLimits,
    session: Arc<Session>,
    drain: &CancellationToken,
) -> Ended {
    let live = Arc::clone(session.live());
    let wire = Arc::clone(session.wire());
    let io = ScannedIo::requests(stream, limits, Arc::clone(&wire), Arc::clone(&live));
    let mut connection = Builder::new()
        .max_headers(limits.count)
        .max_header_size(limits.bytes)
        .max_buf_size(limits.buffer())
        .serve_connection(TokioIo::new(io), Answers(Arc::clone(&session)));
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            biased;
            cut = live.wait_cut() => {
                session.record_cut(cut);
                wire.reset();
                break Ended::Cut;
            }
            () = last_request(&live, drain), if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => match result {
                Ok(()) => break Ended::Finished,
                Err(error) => {
                    // A response that broke off must not look whole.
                    wire.reset();
                    break Ended::Failed(error);
                }
            },
        }
    };
    session.record_flaw();
    match ended {
        Ended::Finished => close(connection.into_parts().io.into_inner(), &live).await,
        Ended::Failed(_) | Ended::Cut => ended,
    }
}

/// Ready when the connection is to take no further request.
async fn last_request(live: &Live, drain: &CancellationToken) {
    tokio::select! {
        () = drain.cancelled() => {}
        () = live.wait_retired() => {}
    }
}

/// Closes our end and waits for the client to have read it. The library would not, where a request spoke of an
/// upgrade.
async fn close(mut io: ScannedIo, live: &Live) -> Ended {
    tokio::select! {
        biased;
        _ = live.wait_cut() => Ended::Cut,
        // A client that is gone needs no goodbye.
        _ = io.shutdown() => Ended::Finished,
    }
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
