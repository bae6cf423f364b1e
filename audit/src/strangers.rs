//! How many refusals of callers that proved no identity have records of their own.
//!
//! Whoever can connect can be refused, as often as it likes: a record for each would push those of everybody else
//! out of the kept files within minutes. What goes beyond the allowance is summed up, and counted exactly.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    aggregate::network,
    event::{Decision, Event},
};

/// What was spent of the allowances in the present window.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    since: Option<Instant>,
    by_network: HashMap<IpAddr, u32>,
    all: u32,
}

impl Strangers {
    /// Counts the event and says whether it is to be summed up, because its network's allowance, or that of all
    /// networks, is spent. Only refusals of callers without an identity are looked at.
    pub(crate) fn exceeds(&mut self, event: &Event, now: Instant) -> bool {
        let (Decision::Denied, None, Some(ip)) = (event.decision(), &event.source.id, event.source.ip) else {
            return false;
        };
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        if self.all >= OF_ALL {
            return true;
        }
        // One entry for each of at most `OF_ALL` records, so this is bounded.
        let spent = self.by_network.entry(network(ip).0).or_default();
        if *spent >= OF_ONE_NETWORK {
            return true;
        }
        *spent += 1;
        self.all += 1;
        false
    }
}

/// How long an allowance lasts.
const WINDOW: Duration = Duration::from_secs(60);
/// Records of their own for the strangers of one network.
pub(crate) const OF_ONE_NETWORK: u32 = 200;
/// Records of their own for all strangers: kept for hours by the default rotation, however hard they try.
pub(crate) const OF_ALL: u32 = 6_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Kind, Reason, Stage,
        fixtures::{connection, denied, endpoint},
    };

    fn stranger(ip: [u8; 4]) -> Event {
        Event { source: endpoint(ip, 40_000, None), ..denied(Reason::HandshakeFailed("not_tls")) }
    }

    #[test]
    fn a_network_has_an_allowance_for_each_window() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        let mut beyond = |ip, now| strangers.exceeds(&stranger(ip), now);

        assert!((0..OF_ONE_NETWORK).all(|_| !beyond([10, 0, 0, 1], now)));
        assert!(beyond([10, 0, 0, 2], now));
        assert!(!beyond([10, 0, 1, 1], now));
        assert!(!beyond([10, 0, 0, 1], now + WINDOW));
    }

    #[test]
    fn all_networks_share_one_allowance() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());

        let kept = (0..2 * OF_ALL)
            .filter(|n| !strangers.exceeds(&stranger([10, (n >> 8) as u8, *n as u8, 1]), now))
            .count();

        assert_eq!(kept, OF_ALL as usize);
        assert_eq!(strangers.by_network.len(), OF_ALL as usize);
    }

    #[test]
    fn whoever_proved_an_identity_is_no_stranger_and_only_refusals_count() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        let mut opened = connection(Kind::Opened, Stage::Connect);
        opened.source.id = None;

        for _ in 0..2 * OF_ALL {
            assert!(!strangers.exceeds(&denied(Reason::NoAllowMatched), now));
            assert!(!strangers.exceeds(&opened, now));
        }
    }
}
