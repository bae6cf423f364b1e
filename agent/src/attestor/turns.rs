//! Whose turn it is: so many attestations at once, and of one user not so many that the others would have to wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many processes are attested at once. Each takes a thread while it reads and looks up names.
pub const MAX_CONCURRENT_ATTESTATIONS: usize = 16;

/// How many processes of one user are attested at once. A user can make each of them last, with an executable that is
/// large or lies on a file system that does not answer.
pub const MAX_CONCURRENT_ATTESTATIONS_PER_UID: usize = 4;

/// The turns of everybody.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    of_users: Mutex<HashMap<Option<u32>, Weak<Semaphore>>>,
}

/// A turn, which ends when it is dropped.
pub(super) struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_user: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_CONCURRENT_ATTESTATIONS)), of_users: Mutex::default() }
    }

    /// Waits for a turn of `uid`, or of administrators where nobody connected. `None` only once turns are over for good.
    pub(super) async fn take(&self, uid: Option<u32>) -> Option<Turn> {
        let of_user = self.of(uid).acquire_owned().await.ok()?;
        let of_all = self.all.clone().acquire_owned().await.ok()?;
        Some(Turn { _of_all: of_all, _of_user: of_user })
    }

    /// Only users with a process that is attested or waits for it are remembered.
    fn of(&self, uid: Option<u32>) -> Arc<Semaphore> {
        let mut users = self.of_users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = users.get(&uid).and_then(Weak::upgrade) {
            return turns;
        }
        users.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(MAX_CONCURRENT_ATTESTATIONS_PER_UID));
        users.insert(uid, Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_user_who_keeps_the_attestor_busy_keeps_only_own_processes_waiting() {
        let turns = Turns::new();
        let mut busy = Vec::new();
        for _ in 0..MAX_CONCURRENT_ATTESTATIONS_PER_UID {
            busy.push(turns.take(Some(1000)).await.unwrap());
        }

        assert!(turns.take(Some(1000)).now_or_never().is_none());
        assert!(turns.take(Some(1001)).now_or_never().is_some());
        assert!(turns.take(None).now_or_never().is_some());
        busy.pop();
        assert!(turns.take(Some(1000)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn there_are_so_many_turns_for_all_together() {
        let turns = Turns::new();
        let mut busy = Vec::new();
        for uid in 0..u32::try_from(MAX_CONCURRENT_ATTESTATIONS).unwrap() {
            busy.push(turns.take(Some(uid)).await.unwrap());
        }

        assert!(turns.take(Some(1000)).now_or_never().is_none());
    }

    #[tokio::test]
    async fn users_without_a_turn_are_forgotten() {
        let turns = Turns::new();
        for uid in 0..100 {
            drop(turns.take(Some(uid)).await);
        }

        assert_eq!(turns.of_users.lock().unwrap().len(), 1);
    }
}
