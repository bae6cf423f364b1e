//! How long a connection may live: until what its peer proved is true no longer, or until it is old.
//!
//! Connections that can be made again without loss are asked to finish, each at a moment of its own shortly before the time,
//! and cut some time after it. Opaque bytes cannot be asked for a new proof: those are cut where the configuration says so.

use std::time::{Duration, SystemTime};

use super::{Cut, Live, Role};
use crate::activity::{Expired, Waiting};

/// What ends a connection that nobody objects to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ages {
    /// Whether opaque connections end with the SVID that their peer proved itself with.
    pub(crate) cut_at_expiry: bool,
    /// The age at which every connection is to be made again.
    pub(crate) oldest: Option<Duration>,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    /// It takes no further request.
    Finishes,
    Ends(Expired),
}

impl Ages {
    pub(super) fn apply(&self, live: &Live, now: SystemTime) {
        match self.fate(live, now) {
            Fate::Lives => {}
            Fate::Finishes => live.retire(),
            Fate::Ends(expired) => {
                live.cut(Cut::Expired(expired));
            }
        }
    }

    fn fate(&self, live: &Live, now: SystemTime) -> Fate {
        let expiry = live.proof.as_ref().and_then(|proof| {
            let life = proof.peer.not_after().duration_since(proof.peer.not_before()).unwrap_or_default();
            fate(live, now, proof.peer.not_after(), life, Expired::Peer)
        });
        let expiry = expiry.filter(|_| self.cut_at_expiry || !is_opaque(live));
        // A tunnel takes its streams along: those of opaque bytes go on as they would without it.
        let stays = live.key.role == Role::Tunnel && !self.cut_at_expiry;
        let expiry = expiry.map(|fate| if stays { Fate::Finishes } else { fate });
        let age = self.oldest.and_then(|oldest| fate(live, now, live.opened + oldest, oldest, Expired::Age));
        match (expiry, age) {
            (Some(ends @ Fate::Ends(_)), _) | (_, Some(ends @ Fate::Ends(_))) => ends,
            (Some(fate), _) | (None, Some(fate)) => fate,
            (None, None) => Fate::Lives,
        }
    }
}

/// What a time that is over, or nearly, means for a connection.
fn fate(live: &Live, now: SystemTime, end: SystemTime, life: Duration, why: Expired) -> Option<Fate> {
    if is_opaque(live) {
        return (end <= now).then_some(Fate::Ends(why));
    }
    let early = (life / EARLY_SHARE).min(EARLIEST) * u32::from(live.turn) / u32::from(u8::MAX);
    if end + GRACE <= now {
        return Some(Fate::Ends(why));
    }
    (end - early <= now).then_some(Fate::Finishes)
}

/// Whether a connection carries bytes that nobody here understands.
fn is_opaque(live: &Live) -> bool {
    match live.key.role {
        Role::InboundTcp => true,
        // A tunnel can be made again; what it carries is looked at by itself.
        Role::InboundHttp | Role::Tunnel => false,
        Role::Outbound => live.activity.is(Waiting::Relay) || live.activity.is(Waiting::Half),
    }
}

/// Returns the turn of the connection that came as the `number`th: neighbours are far apart.
pub(super) fn turn(number: u64) -> u8 {
    u8::try_from(number.wrapping_mul(GOLDEN) >> 56).unwrap_or(u8::MAX)
}

/// Connections begin to finish when a twentieth of the life is left...
const EARLY_SHARE: u32 = 20;
/// ...or this, if that is less.
const EARLIEST: Duration = Duration::from_secs(30);
/// What finishes gets this long after the time.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        live::{Entry, Key, Proof, Registered, Registry},
        testing::{Authority, WEB},
    };

    fn registered(role: Role, waiting: Waiting) -> Registered {
        let authority = Authority::new("a");
        let chain = authority.svid(WEB).chain().to_vec();
        let credentials = authority.credentials(WEB);
        let now = SystemTime::now();
        let peer =
            identity::verify(&chain[0], &[], credentials.anchors(), identity::Role::Client, now).unwrap();
        let key = Key::new(role, Some(peer.id().clone()), None, 1);
        let entry = Entry { key, proof: Some(Proof { peer, chain }), opened: now, waiting };
        Registry::default().register(entry)
    }

    fn at(live: &Arc<Live>, ages: Ages, seconds: i64) -> Fate {
        let expiry = live.proof.as_ref().unwrap().peer.not_after();
        let offset = Duration::from_secs(seconds.unsigned_abs());
        ages.fate(live, if seconds < 0 { expiry - offset } else { expiry + offset })
    }

    #[test]
    fn what_can_be_made_again_finishes_about_the_expiry_of_its_peer_and_ends_a_while_after() {
        let registered = registered(Role::InboundHttp, Waiting::Request);
        let live = registered.live();
        let grace = i64::try_from(GRACE.as_secs()).unwrap();

        assert_eq!(at(live, Ages::default(), -31), Fate::Lives);
        assert_eq!(at(live, Ages::default(), 0), Fate::Finishes);
        assert_eq!(at(live, Ages::default(), grace), Fate::Ends(Expired::Peer));
    }

    #[test]
    fn opaque_bytes_go_on_after_the_expiry_of_their_peer_unless_they_are_to_be_cut() {
        for (role, waiting) in [(Role::InboundTcp, Waiting::Relay), (Role::Outbound, Waiting::Relay)] {
            let registered = registered(role, waiting);
            let cut = Ages { cut_at_expiry: true, oldest: None };

            assert_eq!(at(registered.live(), Ages::default(), 1000), Fate::Lives);
            assert_eq!(at(registered.live(), cut, -1), Fate::Lives);
            assert_eq!(at(registered.live(), cut, 0), Fate::Ends(Expired::Peer));
        }
    }

    #[test]
    fn an_old_connection_ends_whatever_it_carries() {
        let ages = Ages { cut_at_expiry: false, oldest: Some(Duration::from_secs(60)) };
        let opaque = registered(Role::InboundTcp, Waiting::Relay);
        let http = registered(Role::InboundHttp, Waiting::Request);
        let after = |registered: &Registered, seconds| {
            ages.fate(registered.live(), registered.live().opened + Duration::from_secs(seconds))
        };

        assert_eq!((after(&opaque, 50), after(&opaque, 60)), (Fate::Lives, Fate::Ends(Expired::Age)));
        assert_eq!((after(&http, 50), after(&http, 60)), (Fate::Lives, Fate::Finishes));
        assert_eq!(after(&http, 60 + GRACE.as_secs()), Fate::Ends(Expired::Age));
    }

    #[test]
    fn connections_take_turns() {
        let mut turns: Vec<u8> = (0..200).map(turn).collect();
        turns.sort_unstable();
        turns.dedup();

        assert!(turns.len() > 100 && turns[0] < 10 && turns[turns.len() - 1] > 245, "{turns:?}");
    }
}
