//! The doors that callers have asked for, by the address that they called: made on the first call, bounded in number.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{config::Protocol, inbound::Door};

/// What a door is for: the address that was called, what is spoken there and, where the application is to see it, the
/// caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) protocol: Protocol,
}

/// The doors in use. The one that was not asked for the longest makes room.
#[derive(Default)]
pub(super) struct Doors(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    doors: HashMap<Call, (Arc<Door>, u64)>,
    asked: u64,
}

impl Doors {
    /// Returns the door for a call. Where it is new, `make` is asked, and may refuse.
    pub(super) fn find<E>(
        &self,
        call: Call,
        make: impl FnOnce() -> Result<Arc<Door>, E>,
    ) -> Result<Arc<Door>, E> {
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
