//! Chains that were accepted before, remembered within one generation of anchors.
//!
//! Nothing that was refused is remembered, and nothing outlives the anchors it was verified with: a new generation begins
//! empty. Each use looks at the time again. That a peer holds the key of its leaf is no part of this: every handshake proves it.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::{Peer, Role};
use crate::crypto::Sha256;

/// The accepted chains, those used lately apart from those used before.
#[derive(Default)]
pub(super) struct Seen(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: HashMap<ChainKey, Accepted>,
    old: HashMap<ChainKey, Accepted>,
}

/// A role and every byte of a chain, hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ChainKey([u8; 32]);

/// Who an accepted chain proved, and while when each of its certificates and its anchor is valid.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) peer: Peer,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl ChainKey {
    pub(super) fn new(role: Role, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Self {
        let mut hash = Sha256::new();
        hash.update(match role {
            Role::Client => &[0],
            Role::Server => &[1],
        });
        for certificate in std::iter::once(leaf).chain(intermediates) {
            // The lengths keep one row of certificates from looking like another.
            hash.update(&(certificate.len() as u64).to_be_bytes());
            hash.update(certificate);
        }
        Self(hash.finish())
    }
}

impl Seen {
    /// Returns who an accepted chain proves at `now`.
    pub(super) fn at(&self, key: ChainKey, now: SystemTime) -> Option<Peer> {
        let accepted = self.lock().find(key)?;
        (accepted.not_before <= now && now <= accepted.not_after).then_some(accepted.peer)
    }

    /// Returns who an accepted chain proved when it was accepted.
    pub(super) fn any(&self, key: ChainKey) -> Option<Peer> {
        self.lock().find(key).map(|accepted| accepted.peer)
    }

    pub(super) fn remember(&self, key: ChainKey, accepted: Accepted) {
        self.lock().put(key, accepted);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let halves = self.lock();
        halves.young.len() + halves.old.len()
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        // A panic elsewhere leaves the maps whole: every change to them is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Halves {
    fn find(&mut self, key: ChainKey) -> Option<Accepted> {
        if let Some(accepted) = self.young.get(&key) {
            return Some(accepted.clone());
        }
        let accepted = self.old.remove(&key)?;
        self.put(key, accepted.clone());
        Some(accepted)
    }

    fn put(&mut self, key: ChainKey, accepted: Accepted) {
        if self.young.len() >= MAX_SEEN / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, accepted);
    }
}

/// The most chains remembered.
pub(super) const MAX_SEEN: usize = 1024;
