//! The doors that callers have asked for, by the address that they called: made on the first call, bounded in number.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use crate::config::Protocol;

/// What a door is for: the address that was called, what is spoken there and, where the application is to see it, the
/// caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) protocol: Protocol,
}

/// The doors in use. The one that was not asked for the longest makes room.
pub(super) struct Doors<D>(Mutex<Kept<D>>);

struct Kept<D> {
    doors: HashMap<Call, (Arc<D>, u64)>,
    asked: u64,
}

impl<D> Doors<D> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Kept { doors: HashMap::new(), asked: 0 }))
    }

    /// Returns the door for a call. Where it is new, `make` is asked, and may refuse.
    pub(super) fn find<E>(&self, call: Call, make: impl FnOnce() -> Result<Arc<D>, E>) -> Result<Arc<D>, E> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.asked += 1;
        let now = kept.asked;
        if let Some((door, asked)) = kept.doors.get_mut(&call) {
            *asked = now;
            return Ok(Arc::clone(door));
        }
        let door = make()?;
        if kept.doors.len() >= MAX_DOORS {
            let oldest = kept.doors.iter().min_by_key(|(_, (_, asked))| *asked).map(|(call, _)| *call);
            oldest.map(|call| kept.doors.remove(&call));
        }
        kept.doors.insert(call, (Arc::clone(&door), now));
        Ok(door)
    }
}

/// More ports than a workload has, and, where callers are told apart, more of them than call at once.
const MAX_DOORS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn call(port: u16) -> Call {
        Call { to: ([10, 9, 0, 1], port).into(), from: None, protocol: Protocol::Tcp }
    }

    #[test]
    fn doors_are_made_once_and_the_one_that_nobody_asks_for_makes_room() {
        let doors = Doors::new();
        let made = |port: u16| {
            let mut new = false;
            let door = doors.find(call(port), || {
                new = true;
                Ok::<_, ()>(Arc::new(port))
            });
            assert_eq!(*door.unwrap(), port);
            new
        };
        let all = u16::try_from(MAX_DOORS).unwrap();

        assert!((1..=all).all(made), "each is made on the first call");
        assert!(!made(1), "and kept");
        assert!(made(all + 1), "one more makes the oldest go");
        assert!(!made(1) && made(2), "which is the one that was not asked for the longest");
        assert_eq!(doors.0.lock().unwrap().doors.len(), MAX_DOORS);
    }

    #[test]
    fn a_door_that_is_refused_is_not_kept() {
        let doors = Doors::<u16>::new();

        assert_eq!(doors.find(call(1), || Err("astray")), Err("astray"));
        assert!(doors.0.lock().unwrap().doors.is_empty());
    }
}
