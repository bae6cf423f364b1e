//! One tunnel of a caller, from its first stream to its last.
//!
//! It goes away in order when we stop, when we have new credentials (whoever calls next sees them), when nobody uses it and
//! when the caller's certificate has expired: streams that are open then finish. It breaks off when the caller's trust is
//! withdrawn.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use tokio::{task::JoinSet, time::timeout};

use super::{
    CONNECTION_WINDOW, FRAME, HEADER_LIST, MAX_STREAMS, SEND_BUFFER, SMALL_FRAMES, STREAM_WINDOW, call,
    entrance::Caller,
    listener::Inbound,
    pulse::{Beat, Pulse},
    stream::BROKEN,
};
use crate::{live::Cut, tls::TlsStream};

/// Carries the streams of a tunnel to its end.
pub(super) async fn run(inbound: Arc<Inbound>, caller: Caller, stream: Box<TlsStream>) {
    let limit = inbound.shared.limits.handshake_timeout;
    let connection = match timeout(limit, builder().handshake(stream)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "tunnel broke before its first stream"),
        Err(_) => return tracing::debug!("tunnel said nothing"),
    };
    tracing::debug!(tunnel = %caller.trace.id, peer = %caller.peer.id(), "tunnel opened");
    let mut session = Session {
        pulse: Pulse::new(None),
        connection,
        streams: JoinSet::new(),
        caller: Arc::new(caller),
        inbound,
        leaving: false,
    };
    session.pulse = Pulse::new(session.connection.ping_pong());
    session.serve().await;
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(u32::try_from(MAX_STREAMS).unwrap_or(u32::MAX))
        .data_frame_budget(SMALL_FRAMES);
    builder
}

struct Session {
    connection: Connection<Box<TlsStream>, Bytes>,
    pulse: Pulse,
    streams: JoinSet<()>,
    caller: Arc<Caller>,
    inbound: Arc<Inbound>,
    /// No stream is taken that the caller did not begin before it heard of the end.
    leaving: bool,
}

/// What happened to a tunnel.
#[expect(clippy::large_enum_variant, reason = "a step is taken apart as soon as it is made")]
enum Step {
    Opened(Request<RecvStream>, SendResponse<Bytes>),
    /// The connection is over.
    Over,
    /// It has to go away in order.
    Leave(&'static str),
    /// It has to break off.
    Break(&'static str),
    Nothing,
}

impl Session {
    async fn serve(mut self) {
        let (inbound, caller) = (Arc::clone(&self.inbound), Arc::clone(&self.caller));
        let mut farewell = pin!(farewell(&inbound, &caller));
        let reason = loop {
            match self.step(farewell.as_mut()).await {
                Step::Opened(request, respond) => self.open(request, respond),
                Step::Leave(reason) => self.leave(reason),
                Step::Break(reason) => {
                    self.break_off().await;
                    break reason;
                }
                Step::Over => break "over",
                Step::Nothing => {}
            }
        };
        let Self { connection, mut streams, .. } = self;
        // What the streams carry breaks with their tunnel; each says so in its records.
        drop(connection);
        tracing::debug!(tunnel = %caller.trace.id, reason, streams = streams.len(), "tunnel ended");
        while streams.join_next().await.is_some() {}
    }

    async fn step(&mut self, farewell: Pin<&mut impl Future<Output = &'static str>>) -> Step {
        let Self { connection, pulse, streams, caller, leaving, .. } = self;
        let room = streams.len() < MAX_TASKS;
        tokio::select! {
            biased;
            cut = caller.live().wait_cut() => Step::Break(word(cut)),
            _ = streams.join_next(), if !streams.is_empty() => Step::Nothing,
            step = poll_fn(|cx| poll_next(connection, room, cx)) => step,
            reason = farewell, if !*leaving => Step::Leave(reason),
            () = pulse.next() => self.beat(Instant::now()),
        }
    }

    fn beat(&mut self, now: Instant) -> Step {
        match self.pulse.beat(self.streams.len(), now) {
            Beat::Dead => Step::Break("no_answer"),
            Beat::Idle if !self.leaving => Step::Leave("idle"),
            Beat::Idle | Beat::Alive => Step::Nothing,
        }
    }

    fn open(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (caller, inbound) = (Arc::clone(&self.caller), Arc::clone(&self.inbound));
        self.streams.spawn(call::serve(caller, inbound, request, respond));
    }

    fn leave(&mut self, reason: &'static str) {
        tracing::debug!(tunnel = %self.caller.trace.id, reason, "tunnel takes no further streams");
        self.leaving = true;
        self.connection.graceful_shutdown();
    }

    /// Says that it is over at once, as far as the caller still listens.
    async fn break_off(&mut self) {
        let Self { connection, streams, .. } = self;
        let resets = async {
            while !streams.is_empty() {
                tokio::select! {
                    _ = streams.join_next() => {}
                    _ = poll_fn(|cx| connection.poll_closed(cx)) => return,
                }
            }
        };
        // Streams that were cut along with it break one by one: a GOAWAY alone looks like an end in order to some.
        let _ = timeout(LAST_WORD, resets).await;
        self.connection.abrupt_shutdown(BROKEN);
        // Whoever does not take the word has the end of the connection.
        let _ = timeout(LAST_WORD, poll_fn(|cx| self.connection.poll_closed(cx))).await;
    }
}

/// Drives the connection, and takes a stream from it where there is room for one.
fn poll_next(
    connection: &mut Connection<Box<TlsStream>, Bytes>,
    room: bool,
    cx: &mut Context<'_>,
) -> Poll<Step> {
    if !room {
        return connection.poll_closed(cx).map(|_| Step::Over);
    }
    connection.poll_accept(cx).map(|accepted| match accepted {
        Some(Ok((request, respond))) => Step::Opened(request, respond),
        Some(Err(_)) | None => Step::Over,
    })
}

/// Waits for a reason to go away.
async fn farewell(inbound: &Inbound, caller: &Caller) -> &'static str {
    let shared = &inbound.shared;
    tokio::select! {
        () = shared.drain.cancelled() => "draining",
        () = inbound.stop.stopped() => "replaced",
        () = caller.live().wait_retired() => "peer_expired",
        () = renewed(inbound, caller.generation) => "rotated",
    }
}

/// Waits until we have other credentials than those that the caller saw.
async fn renewed(inbound: &Inbound, generation: u64) {
    let state = &inbound.shared.state;
    let mut changes = state.changes();
    loop {
        let now = state.now().identity.as_ref().map(|identity| identity.credentials.generation());
        if now != Some(generation) {
            return;
        }
        if changes.changed().await.is_err() {
            // The snapshot has no writer left: nothing will change.
            std::future::pending::<()>().await;
        }
    }
}

const fn word(cut: &Cut) -> &'static str {
    match cut {
        Cut::Policy { .. } => "policy",
        Cut::Trust => "trust_withdrawn",
        Cut::Identity => "identity_withdrawn",
        Cut::Expired(_) => "expired",
        Cut::Drained => "drained",
    }
}

/// Streams whose callers are gone may take a moment to notice.
const MAX_TASKS: usize = 2 * MAX_STREAMS;
/// For the last frame of a tunnel that breaks off.
const LAST_WORD: Duration = Duration::from_millis(500);
