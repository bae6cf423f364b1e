//! A full table of descriptors: whoever waits is turned away with the one descriptor that is kept for it, so that a client
//! learns at once what would otherwise look like a hang, and nothing spins.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
    net::SocketFlags,
};
use socket2::SockRef;
use tokio::net::TcpListener;

/// What a listener knows of its failures to accept.
#[derive(Debug)]
pub(super) struct Full {
    /// Given up for a moment where there is no other.
    reserve: Option<OwnedFd>,
    wait: Duration,
    said: Option<Instant>,
    failing: bool,
}

impl Full {
    pub(super) fn new() -> Self {
        Self { reserve: reserve(), wait: FIRST_WAIT, said: None, failing: false }
    }

    /// A connection was accepted.
    pub(super) fn is_over(&mut self) {
        self.wait = FIRST_WAIT;
        if std::mem::take(&mut self.failing) {
            tracing::info!("connections are accepted again");
        }
        if self.reserve.is_none() {
            self.reserve = reserve();
        }
    }

    /// Tells of a failure, once while it lasts and once a minute where it comes and goes.
    pub(super) fn failed(&mut self, error: &io::Error) {
        let is_new = !std::mem::replace(&mut self.failing, true);
        if is_new && self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            self.said = Some(Instant::now());
            tracing::error!(%error, "cannot accept connections, trying again");
        }
    }

    /// Turns away one of those who wait, where it is a descriptor that is missing; says whether it did.
    pub(super) fn turn_away(&mut self, listener: &TcpListener, error: &io::Error) -> bool {
        let full = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
        if !full || self.reserve.take().is_none() {
            return false;
        }
        let turned = rustix::net::accept_with(listener, SocketFlags::CLOEXEC);
        if let Ok(socket) = &turned {
            // Fails only where the client is gone already.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        let away = turned.is_ok();
        drop(turned);
        self.reserve = reserve();
        // Without the reserve the next failure has to be waited for: it would come at once.
        away && self.reserve.is_some()
    }

    /// Waits longer from time to time.
    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        if self.reserve.is_none() {
            self.reserve = reserve();
        }
    }
}

/// Any descriptor does; this one needs no file, which a confined process may not be able to open.
fn reserve() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}

/// After a failure to accept.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const SAY_AGAIN: Duration = Duration::from_secs(60);
