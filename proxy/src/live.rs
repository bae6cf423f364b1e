//! Every live connection, indexed by what a decision depends on, and the means to end it from outside.
//!
//! A connection registers before it is checked, so a change pushed in between finds it. A change is decided
//! once for each distinct [`Key`], not once for each connection.

mod ages;
mod requests;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::task::AtomicWaker;
use identity::{Peer, SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;

pub(crate) use ages::Ages;
pub(crate) use requests::{Entered, InFlight, Sentence};

use crate::activity::{Activity, Expired, Limits, Waiting};

/// What the decision about a connection depends on, the time aside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) role: Role,
    pub(crate) peer: Option<SpiffeId>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) port: u16,
    /// The address of ours that was called.
    pub(crate) destination: Option<IpAddr>,
    /// The server name of the handshake, in lower case.
    pub(crate) sni: Option<Arc<str>>,
}

impl Key {
    /// A connection of which no more is known than these four.
    pub(crate) fn new(role: Role, peer: Option<SpiffeId>, source: Option<IpAddr>, port: u16) -> Self {
        Self { role, peer, source, port, destination: None, sni: None }
    }

    /// Returns the connection as policy sees it. Without a peer it is nobody's.
    pub(crate) fn as_policy(&self, now: SystemTime) -> policy::Connection<'_> {
        let peer = match &self.peer {
            Some(id) => policy::PeerIdentity::Authenticated(id),
            None => policy::PeerIdentity::Unauthenticated,
        };
        let source = self.source.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
        let connection = policy::Connection::new(peer, source, self.port, now);
        policy::Connection { destination: self.destination, sni: self.sni.as_deref(), ..connection }
    }
}

/// Who decides about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// A peer called our workload; policy decides on the connection.
    InboundTcp,
    /// A peer called our workload; policy decides on each request.
    InboundHttp,
    /// Our workload calls out; the expected identities decide.
    Outbound,
    /// Carries other connections, each of which is decided by itself.
    Tunnel,
}

/// Why a connection is ended from outside.
#[derive(Debug, Clone)]
pub(crate) enum Cut {
    /// The policies in force forbid it.
    Policy { denial: Arc<policy::Denial>, generation: Arc<str> },
    /// No bundle vouches for the peer.
    Trust,
    /// Our own identity was withdrawn.
    Identity,
    /// A time limit passed.
    Expired(Expired),
    /// The time to finish before a stop is over.
    Drained,
}

/// The chain a peer proved itself with, and what it proved.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) peer: Peer,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// One live connection.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) key: Key,
    pub(crate) proof: Option<Arc<Proof>>,
    pub(crate) opened: SystemTime,
    pub(crate) activity: Activity,
    requests: Mutex<Vec<Arc<InFlight>>>,
    cut: OnceLock<Cut>,
    retired: AtomicBool,
    /// Set for all connections at once.
    finishing: Arc<AtomicBool>,
    refused: AtomicBool,
    multiplexed: AtomicBool,
    /// Which of the connections that end for the same reason ends first: so that they do not all come back at once.
    turn: u8,
    waker: AtomicWaker,
}

impl Live {
    /// Ends the connection. The first reason stays; returns whether it is this one.
    pub(crate) fn cut(&self, cut: Cut) -> bool {
        let first = self.cut.set(cut).is_ok();
        if first {
            self.waker.wake();
        }
        first
    }

    /// Ready once the connection is to be ended. One task at a time asks.
    pub(crate) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<&Cut> {
        if let Some(cut) = self.cut.get() {
            return Poll::Ready(cut);
        }
        self.waker.register(cx.waker());
        self.cut.get().map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits until the connection is to be ended.
    pub(crate) async fn wait_cut(&self) -> &Cut {
        std::future::poll_fn(|cx| self.poll_cut(cx)).await
    }

    /// Asks for the end of the connection as soon as it owes no answer.
    pub(crate) fn retire(&self) {
        if !self.retired.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Waits until the connection is to take no further request. The task that waits for a cut may wait for this too.
    pub(crate) async fn wait_retired(&self) {
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.is_retired() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Whether the answer to come is the last: the connection is to end as soon as that costs nobody a request.
    pub(crate) fn is_last(&self) -> bool {
        self.is_retired() || self.finishing.load(Ordering::Acquire)
    }

    /// Notes that nothing on the connection will be allowed: it gets one answer, and no time to think of a question.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    fn expired(&self, limits: &Limits) -> Option<Expired> {
        let idle = if self.is_refused() { limits.head.min(limits.idle) } else { limits.idle };
        self.activity.expired(&Limits { idle, ..*limits })
    }

    pub(crate) fn cut_reason(&self) -> Option<&Cut> {
        self.cut.get()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }

    /// Notes that the connection carries several requests at a time: one of them can end without the others.
    pub(crate) fn multiplex(&self) {
        self.multiplexed.store(true, Ordering::Release);
    }

    fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Acquire)
    }
}

/// All live connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    inner: Arc<Mutex<Inner>>,
    finishing: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    groups: HashMap<Key, HashMap<u64, Arc<Live>>>,
    proofs: HashMap<String, std::sync::Weak<Proof>>,
}

/// The open connections of one peer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Open {
    role: Role,
    peer: Option<SpiffeId>,
    port: u16,
    connections: usize,
}

/// Keeps a connection in the registry while it lives.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Registry,
    slot: u64,
    live: Arc<Live>,
}

impl Registered {
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.remove(&self.live, self.slot);
    }
}

/// What is put into the registry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) proof: Option<Proof>,
    pub(crate) opened: SystemTime,
    pub(crate) waiting: Waiting,
}

impl Registry {
    /// Adds a connection; it leaves when the returned value is dropped.
    pub(crate) fn register(&self, entry: Entry) -> Registered {
        let proof = entry.proof.map(|proof| lock(&self.inner).intern(proof));
        self.register_of(Entry { proof: None, ..entry }, proof)
    }

    /// Adds a connection of a peer whose proof another connection has shown.
    pub(crate) fn register_of(&self, entry: Entry, proof: Option<Arc<Proof>>) -> Registered {
        let mut inner = lock(&self.inner);
        let live = Arc::new(Live {
            key: entry.key,
            proof,
            opened: entry.opened,
            activity: Activity::new(entry.waiting),
            requests: Mutex::default(),
            cut: OnceLock::new(),
            retired: AtomicBool::new(false),
            finishing: Arc::clone(&self.finishing),
            refused: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            turn: ages::turn(inner.next),
            waker: AtomicWaker::new(),
        });
        let slot = inner.next;
        inner.next += 1;
        inner.groups.entry(live.key.clone()).or_default().insert(slot, Arc::clone(&live));
        Registered { registry: self.clone(), slot, live }
    }

    /// Registers a connection as another kind, once it shows what it is. What has ended it so far ends it still.
    pub(crate) fn again(&self, registered: Registered, role: Role, waiting: Waiting) -> Registered {
        let known = registered.live();
        let key = Key { role, ..known.key.clone() };
        let entry = Entry { key, proof: None, opened: known.opened, waiting };
        let fresh = self.register_of(entry, known.proof.clone());
        if let Some(cut) = known.cut_reason() {
            fresh.live().cut(cut.clone());
        }
        fresh
    }

    /// Returns the number of live connections.
    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).groups.values().map(HashMap::len).sum()
    }

    /// Returns how many connections each peer has open, those with the most first, within a bound.
    pub(crate) fn open(&self) -> Vec<Open> {
        let mut open: HashMap<(Role, Option<SpiffeId>, u16), usize> = HashMap::new();
        for (key, group) in &lock(&self.inner).groups {
            *open.entry((key.role, key.peer.clone(), key.port)).or_default() += group.len();
        }
        let told = |((role, peer, port), connections)| Open { role, peer, port, connections };
        let mut open: Vec<Open> = open.into_iter().map(told).collect();
        open.sort_by(|one, other| {
            other.connections.cmp(&one.connections).then_with(|| one.peer.cmp(&other.peer))
        });
        open.truncate(MAX_OPEN);
        open
    }

    /// Returns the number of live connections that policies decide about.
    pub(crate) fn inbound(&self) -> usize {
        let inner = lock(&self.inner);
        let groups =
            inner.groups.iter().filter(|(key, _)| !matches!(key.role, Role::Outbound | Role::Tunnel));
        groups.map(|(_, group)| group.len()).sum()
    }

    /// Shows each group to `decide` once and returns the live connections that are to end, with the reason.
    ///
    /// The lock is not held while deciding: connections may come and go meanwhile, and those that come see
    /// the new state themselves.
    pub(crate) fn judge<V: Verdict>(&self, decide: impl Fn(&Key) -> Option<V>) -> Vec<Sentence> {
        let keys: Vec<Key> = lock(&self.inner).groups.keys().cloned().collect();
        let mut judged = Vec::new();
        for key in &keys {
            let Some(verdict) = decide(key) else { continue };
            let group = self.group(key);
            group.iter().filter(|live| !live.is_cut()).for_each(|live| verdict.of(live, &mut judged));
        }
        judged
    }

    fn group(&self, key: &Key) -> Vec<Arc<Live>> {
        let inner = lock(&self.inner);
        inner.groups.get(key).map(|group| group.values().cloned().collect()).unwrap_or_default()
    }

    /// Cuts the connections whose peers `holds` no longer accepts, asking once for each distinct certificate. Only the
    /// groups of peers whose trust domain is concerned are looked at.
    pub(crate) fn recheck_proofs(
        &self,
        concerned: impl Fn(&TrustDomain) -> bool,
        holds: impl Fn(&Proof, SystemTime) -> bool,
    ) -> usize {
        let mut seen: HashMap<String, bool> = HashMap::new();
        let mut count = 0;
        for live in self.of_peers(concerned) {
            let Some(proof) = &live.proof else { continue };
            let valid =
                *seen.entry(proof.peer.fingerprint().to_owned()).or_insert_with(|| holds(proof, live.opened));
            if !valid {
                live.cut(Cut::Trust);
                count += 1;
            }
        }
        count
    }

    fn of_peers(&self, concerned: impl Fn(&TrustDomain) -> bool) -> Vec<Arc<Live>> {
        let inner = lock(&self.inner);
        let concerned = |key: &Key| key.peer.as_ref().is_some_and(|peer| concerned(&peer.trust_domain()));
        let groups = inner.groups.iter().filter(|(key, _)| concerned(key));
        groups.flat_map(|(_, group)| group.values().cloned()).collect()
    }

    /// Has every answer from now on say that it is the last on its connection. Idle connections stay.
    pub(crate) fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
    }

    /// Cuts every connection for the same reason.
    pub(crate) fn cut_all(&self, reason: impl Fn() -> Cut) {
        for live in self.all() {
            live.cut(reason());
        }
    }

    /// Cuts the connections that exceed a time limit, and has those finish that have lived long enough.
    pub(crate) fn sweep(&self, limits: &Limits, ages: &Ages, now: SystemTime) {
        let inner = lock(&self.inner);
        for live in inner.groups.values().flat_map(HashMap::values) {
            ages.apply(live, now);
            if let Some(expired) = live.expired(limits) {
                live.cut(Cut::Expired(expired));
            }
        }
    }

    fn all(&self) -> Vec<Arc<Live>> {
        lock(&self.inner).groups.values().flat_map(|group| group.values().cloned()).collect()
    }

    fn remove(&self, live: &Live, slot: u64) {
        let mut inner = lock(&self.inner);
        if let Some(group) = inner.groups.get_mut(&live.key) {
            group.remove(&slot);
            if group.is_empty() {
                inner.groups.remove(&live.key);
            }
        }
    }
}

/// What a group's connections are to be told.
pub(crate) trait Verdict {
    /// Adds what of `live` is to end: all of it, some of its requests, or nothing.
    fn of(&self, live: &Arc<Live>, ends: &mut Vec<Sentence>);
}

impl Inner {
    /// Connections of one peer certificate share the chain.
    fn intern(&mut self, proof: Proof) -> Arc<Proof> {
        if let Some(known) = self.proofs.get(proof.peer.fingerprint()).and_then(std::sync::Weak::upgrade) {
            return known;
        }
        if self.proofs.len() >= SWEEP_PROOFS {
            self.proofs.retain(|_, proof| proof.strong_count() > 0);
        }
        let proof = Arc::new(proof);
        self.proofs.insert(proof.peer.fingerprint().to_owned(), Arc::downgrade(&proof));
        proof
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these maps whole: every change to them is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Peers shown of those that have connections open.
const MAX_OPEN: usize = 1000;
/// Distinct certificates remembered before the forgotten ones are swept out.
const SWEEP_PROOFS: usize = 1024;
