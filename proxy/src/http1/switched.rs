//! A connection after a switch of protocols, or in a tunnel: bytes both ways, for as long as the request that asked for it
//! has its right.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use tokio::io::AsyncWriteExt;

use super::{
    end::End,
    exchange::{Exchange, Session},
    gate::Outcome,
    serve::{Ended, ServeError},
    upstream::Upstream,
};
use crate::{
    activity::Waiting,
    outbound::Opened,
    relay::{Relay, RelayError},
};

/// Carries bytes until both sides have ended, one breaks, or the request loses its right.
pub(super) async fn carry(
    mut client: End,
    upstream: Upstream,
    session: &Session,
    mut exchange: Exchange,
) -> Ended {
    let activity = &session.live.activity;
    activity.wait(Waiting::Relay);
    let before = activity.totals();
    let (mut upstream, opened) = upstream.into_parts();
    let guard = Guard { session, opened: opened.as_ref() };
    let first = guard.run(hand_over(&mut client, &mut upstream, session)).await;
    let mut relay = Relay::new(client.stream, upstream.stream);
    let ended = match first {
        Ok(Ok(())) => guard.run(relay.run(activity)).await.map(|result| result.map_err(ServeError::from)),
        Ok(Err(error)) => Ok(Err(error)),
        Err(stopped) => Err(stopped),
    };
    let after = activity.totals();
    exchange.note_tunnel((after.0 - before.0, after.1 - before.1));
    match ended {
        Ok(Ok(())) => {
            exchange.outcome = Outcome::Finished;
            Ended::Finished
        }
        Ok(Err(error)) => {
            relay.reset_on_close();
            Ended::Failed(error)
        }
        Err(Stopped::Withdrawn) => {
            relay.reset_on_close();
            Ended::Failed(ServeError::Withdrawn)
        }
        Err(Stopped::Cut) => {
            if let Some(cut) = session.live.cut_reason() {
                session.record_cut(cut);
            }
            relay.reset_on_close();
            Ended::Cut
        }
    }
}

/// Hands over what either side said before the other knew that it is spoken to.
async fn hand_over(client: &mut End, upstream: &mut End, session: &Session) -> Result<(), ServeError> {
    let (early, answered) = (std::mem::take(&mut client.held), std::mem::take(&mut upstream.held));
    upstream.stream.write_all(&early).await.map_err(|_| ServeError::BrokenOff)?;
    upstream.stream.flush().await.map_err(|_| ServeError::BrokenOff)?;
    client.stream.write_all(&answered).await.map_err(ServeError::Client)?;
    session.live.activity.sent(answered.len());
    client.stream.flush().await.map_err(ServeError::Client)
}

/// What a tunnel lives by.
struct Guard<'g> {
    session: &'g Session,
    opened: Option<&'g Opened>,
}

/// What ended a tunnel from outside.
enum Stopped {
    Cut,
    Withdrawn,
}

impl Guard<'_> {
    async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.session.live.poll_cut(cx).is_ready() {
                return Poll::Ready(Err(Stopped::Cut));
            }
            if self.opened.is_some_and(|opened| opened.live().poll_cut(cx).is_ready()) {
                return Poll::Ready(Err(Stopped::Withdrawn));
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }
}

impl From<RelayError> for ServeError {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Source(error) => Self::Client(error),
            RelayError::Destination(_) => Self::BrokenOff,
        }
    }
}
