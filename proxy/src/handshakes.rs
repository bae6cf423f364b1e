//! Room for TLS handshakes: bounded in all and for each source, so that one host that connects and says nothing keeps
//! neither the others waiting nor their places from them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::config::Limits;

/// The handshakes in flight and those that wait for room.
#[derive(Debug)]
pub(crate) struct Handshakes {
    room: Semaphore,
    room_per_source: usize,
    clients_per_source: usize,
    sources: Mutex<HashMap<IpAddr, Source>>,
}

#[derive(Debug)]
struct Source {
    clients: usize,
    room: Arc<Semaphore>,
}

/// A client that has proved nothing so far; it counts until dropped.
#[derive(Debug)]
pub(crate) struct Unproven<'h> {
    handshakes: &'h Handshakes,
    source: IpAddr,
    room: Arc<Semaphore>,
}

/// Room for one handshake; free again when dropped.
#[derive(Debug)]
pub(crate) struct Room<'u> {
    _of_source: SemaphorePermit<'u>,
    _of_all: SemaphorePermit<'u>,
}

impl Handshakes {
    pub(crate) fn new(limits: &Limits) -> Self {
        let room = limits.handshakes.min(Semaphore::MAX_PERMITS);
        Self {
            room: Semaphore::new(room),
            room_per_source: (room / SHARE).max(1),
            clients_per_source: limits.connections - limits.connections / SHARE,
            sources: Mutex::default(),
        }
    }

    /// Counts a client; none where its source has as many unproven ones as it may.
    pub(crate) fn admit(&self, from: IpAddr) -> Option<Unproven<'_>> {
        let source = group(from);
        let mut sources = self.lock();
        let known = sources
            .entry(source)
            .or_insert_with(|| Source { clients: 0, room: Arc::new(Semaphore::new(self.room_per_source)) });
        if known.clients >= self.clients_per_source {
            return None;
        }
        known.clients += 1;
        Some(Unproven { handshakes: self, source, room: Arc::clone(&known.room) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unproven<'_> {
    /// Waits for room. That of the source comes first: a queue of its own holds nobody else up.
    ///
    /// # Errors
    /// Never: the semaphores are not closed.
    pub(crate) async fn room(&self) -> Result<Room<'_>, AcquireError> {
        let of_source = self.room.acquire().await?;
        Ok(Room { _of_source: of_source, _of_all: self.handshakes.room.acquire().await? })
    }
}

impl Drop for Unproven<'_> {
    fn drop(&mut self) {
        let mut sources = self.handshakes.lock();
        if let Some(known) = sources.get_mut(&self.source) {
            known.clients -= 1;
            if known.clients == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// An IPv4 address, or the IPv6 network of one host: it has 2^64 addresses to choose from.
fn group(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & HOST_NETWORK).into(),
    }
}

/// One source gets one part in so many of the room for handshakes, and leaves one part in so many of the places for
/// connections to others while its own have proved nothing.
const SHARE: usize = 4;
/// The first 64 bits.
const HOST_NETWORK: u128 = !0 << 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn handshakes() -> Handshakes {
        Handshakes::new(&Limits { handshakes: 8, connections: 8, ..Limits::default() })
    }

    #[tokio::test]
    async fn one_source_leaves_room_to_others() {
        let handshakes = handshakes();
        let clients: Vec<_> = (0..4).map(|_| handshakes.admit([10, 0, 0, 1].into()).unwrap()).collect();
        let _held = [clients[0].room().await.unwrap(), clients[1].room().await.unwrap()];

        let mut third = Box::pin(clients[2].room());
        let waits = futures_util::poll!(&mut third).is_pending();
        let other = handshakes.admit([10, 0, 0, 2].into()).unwrap();
        let room = futures_util::poll!(std::pin::pin!(other.room()));

        assert!(waits && room.is_ready());
    }

    #[test]
    fn one_source_leaves_places_to_others_until_its_clients_have_proved_themselves() {
        let handshakes = handshakes();
        let from = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let mut clients: Vec<_> = (0..6).map(|last| handshakes.admit(from(last)).unwrap()).collect();

        assert!(handshakes.admit(from(7)).is_none());
        assert!(handshakes.admit([10, 0, 0, 1].into()).is_some());
        clients.pop();
        assert!(handshakes.admit(from(7)).is_some());
        clients.clear();
        assert!(handshakes.lock().is_empty());
    }
}
