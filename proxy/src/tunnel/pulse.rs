//! Finds out whether the other end of a tunnel is still there, and whether anybody uses it: one timer for a tunnel, however
//! many streams it has.

use std::{
    task::Poll,
    time::{Duration, Instant},
};

use h2::{Ping, PingPong};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// What the timer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// All is well.
    Alive,
    /// No stream has been open for a while.
    Idle,
    /// The other end does not answer.
    Dead,
}

/// The timer of one tunnel.
#[derive(Debug)]
pub(super) struct Pulse {
    timer: Interval,
    ping: Option<PingPong>,
    asked: Option<Instant>,
    used: Instant,
}

impl Pulse {
    pub(super) fn new(ping: Option<PingPong>) -> Self {
        let mut timer = interval_at(tokio::time::Instant::now() + EVERY, EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { timer, ping, asked: None, used: Instant::now() }
    }

    /// Waits for the next beat.
    pub(super) async fn next(&mut self) {
        self.timer.tick().await;
    }

    /// Says how the tunnel fares that has `streams` open streams.
    pub(super) fn beat(&mut self, streams: usize, now: Instant) -> Beat {
        if streams > 0 {
            self.used = now;
        }
        self.hear();
        match self.asked {
            Some(asked) if now.saturating_duration_since(asked) >= PATIENCE => return Beat::Dead,
            Some(_) => {}
            None => self.ask(now),
        }
        if now.saturating_duration_since(self.used) >= IDLE { Beat::Idle } else { Beat::Alive }
    }

    /// Takes an answer that has come.
    fn hear(&mut self) {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        if let Some(ping) = &mut self.ping
            && let Poll::Ready(answer) = ping.poll_pong(&mut cx)
            && answer.is_ok()
        {
            self.asked = None;
        }
    }

    fn ask(&mut self, now: Instant) {
        if let Some(ping) = &mut self.ping
            && ping.send_ping(Ping::opaque()).is_ok()
        {
            self.asked = Some(now);
        }
    }
}

/// Between two questions.
const EVERY: Duration = Duration::from_secs(10);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Without a stream.
const IDLE: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tunnel_is_idle_once_it_has_had_no_stream_for_a_while() {
        let mut pulse = Pulse::new(None);
        let start = Instant::now();
        let mut beat = |streams, seconds| pulse.beat(streams, start + Duration::from_secs(seconds));

        assert_eq!((beat(1, 10), beat(0, 20)), (Beat::Alive, Beat::Alive));
        assert_eq!((beat(1, 1000), beat(0, 1299)), (Beat::Alive, Beat::Alive));
        assert_eq!(beat(0, 1000 + IDLE.as_secs()), Beat::Idle);
    }

    #[tokio::test]
    async fn a_peer_that_answers_no_ping_is_dead_and_one_that_does_is_not() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let (_sender, mut connection) = h2::client::handshake(here).await.unwrap();
        let mut pulse = Pulse::new(connection.ping_pong());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let driver = tokio::spawn(connection);

        assert_eq!(pulse.beat(1, at(10)), Beat::Alive);
        assert_eq!(pulse.beat(1, at(29)), Beat::Alive);
        assert_eq!(pulse.beat(1, at(30)), Beat::Dead);

        let server = tokio::spawn(async move {
            let mut server = h2::server::handshake(there).await.unwrap();
            while server.accept().await.is_some() {}
        });
        let answered = crate::testing::eventually(async || {
            pulse.hear();
            pulse.asked.is_none().then_some(())
        });
        answered.await.expect("an answer");
        assert_eq!(pulse.beat(1, at(40)), Beat::Alive);
        driver.abort();
        server.abort();
    }
}
