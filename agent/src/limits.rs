//! What local processes may use up: connections and streams, in total and for each user.
//!
//! A pass is given back when it is dropped, so that nothing is counted for longer than it lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The most connections to one socket. Each takes two descriptors: the socket and the pidfd of the caller.
pub(crate) const MAX_CONNECTIONS: u32 = 4096;

/// The most connections of one user to one socket.
pub(crate) const MAX_CONNECTIONS_PER_UID: u32 = 1024;

/// The most open streams of one socket.
pub(crate) const MAX_STREAMS: u32 = 8192;

/// The most open streams of one user.
pub(crate) const MAX_STREAMS_PER_UID: u32 = 2048;

/// The most open streams of one connection.
pub(crate) const MAX_STREAMS_PER_CONNECTION: u32 = 64;

/// The largest request, in bytes. Requests of the served methods are almost empty.
pub(crate) const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The most request headers, in bytes.
pub(crate) const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// From this size on a response is worth a warning: clients in Go refuse larger ones.
pub(crate) const LARGE_RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// Counts what is in use, in total and by user.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Counts>);

struct Counts {
    most: u32,
    most_per_uid: u32,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    total: u32,
    by_uid: HashMap<u32, u32>,
}

/// Leave to use one of what a gate counts.
pub(crate) struct Pass {
    counts: Arc<Counts>,
    uid: u32,
}

/// Why there is no leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GateError {
    /// Everything is in use.
    #[error("{most} are open already")]
    Full {
        /// The limit.
        most: u32,
    },
    /// The user has everything that a user may have.
    #[error("uid {uid} has {most} open already")]
    FullForUid {
        /// The user.
        uid: u32,
        /// The limit.
        most: u32,
    },
}

impl Gate {
    /// Creates a gate that lets `most` pass, and `most_per_uid` for one user.
    pub(crate) fn new(most: u32, most_per_uid: u32) -> Self {
        Self(Arc::new(Counts { most, most_per_uid, used: Mutex::default() }))
    }

    /// Gives leave to `uid`, if there is any left.
    pub(crate) fn enter(&self, uid: u32) -> Result<Pass, GateError> {
        let mut used = self.0.lock();
        if used.total >= self.0.most {
            return Err(GateError::Full { most: self.0.most });
        }
        let of_uid = used.by_uid.entry(uid).or_default();
        if *of_uid >= self.0.most_per_uid {
            return Err(GateError::FullForUid { uid, most: self.0.most_per_uid });
        }
        *of_uid = of_uid.saturating_add(1);
        used.total = used.total.saturating_add(1);
        Ok(Pass { counts: self.0.clone(), uid })
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> u32 {
        self.0.lock().total
    }
}

impl Counts {
    fn lock(&self) -> std::sync::MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut used = self.counts.lock();
        used.total = used.total.saturating_sub(1);
        if let Some(of_uid) = used.by_uid.get_mut(&self.uid) {
            *of_uid = of_uid.saturating_sub(1);
            if *of_uid == 0 {
                used.by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_what_others_need() {
        let gate = Gate::new(3, 2);
        let _passes = [gate.enter(1000).unwrap(), gate.enter(1000).unwrap()];

        assert_eq!(gate.enter(1000).err(), Some(GateError::FullForUid { uid: 1000, most: 2 }));
        let _other = gate.enter(0).unwrap();
        assert_eq!(gate.enter(1).err(), Some(GateError::Full { most: 3 }));
    }

    #[test]
    fn a_dropped_pass_is_free_again_and_leaves_nothing_behind() {
        let gate = Gate::new(1, 1);

        drop(gate.enter(7).unwrap());

        assert_eq!(gate.used(), 0);
        assert!(gate.0.lock().by_uid.is_empty());
        assert!(gate.enter(8).is_ok());
    }

    #[test]
    fn a_refused_user_is_not_counted() {
        let gate = Gate::new(1, 1);
        let _pass = gate.enter(1).unwrap();

        assert!(gate.enter(2).is_err());

        assert_eq!(gate.0.lock().by_uid.len(), 1);
    }

    #[test]
    fn the_limits_are_what_the_documents_say() {
        assert_eq!((MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID), (4096, 1024));
        assert_eq!((MAX_STREAMS, MAX_STREAMS_PER_UID, MAX_STREAMS_PER_CONNECTION), (8192, 2048, 64));
        assert_eq!((MAX_REQUEST_BYTES, MAX_HEADER_BYTES), (65_536, 16_384));
    }
}
