//! How often one address may attest: a token bucket each, in a bounded table. Pure, over `now`.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Buckets by source address. IPv6 sources count by their /64, which is what one host gets.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    buckets: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// When the bucket would be full: each take moves it one interval on.
    full_at: Instant,
}

/// What the caller has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Go on after this pause.
    After(Duration),
    /// Too many are waiting already.
    Refuse,
}

impl Buckets {
    /// Takes one for `source` at `now`.
    pub(crate) fn take(&mut self, source: IpAddr, now: Instant) -> Admission {
        let source = network(source);
        if self.buckets.len() >= MAX_SOURCES && !self.buckets.contains_key(&source) {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
            if self.buckets.len() >= MAX_SOURCES {
                return Admission::Refuse;
            }
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket { full_at: now });
        let full_at = bucket.full_at.max(now) + INTERVAL;
        let wait = full_at.duration_since(now).saturating_sub(INTERVAL * BURST);
        if wait > LONGEST_WAIT {
            return Admission::Refuse;
        }
        bucket.full_at = full_at;
        Admission::After(wait)
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64.
pub(crate) fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// spiffe.md 2.1: one attestation a second and address.
const INTERVAL: Duration = Duration::from_secs(1);
/// So many at once after a quiet time: a rack behind one address starts together.
const BURST: u32 = 10;
/// Who would wait longer is refused.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Addresses remembered at once; beyond that strangers are refused until some are forgotten.
const MAX_SOURCES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_waits_then_is_refused_and_recovers() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let mut take = |at| buckets.take(source("10.0.0.1"), at);

        for _ in 0..BURST {
            assert_eq!(take(now), Admission::After(Duration::ZERO));
        }
        assert_eq!(take(now), Admission::After(INTERVAL));
        for _ in 0..4 {
            take(now);
        }
        assert_eq!(take(now), Admission::Refuse);
        assert_eq!(take(now + INTERVAL), Admission::After(LONGEST_WAIT));
        assert_eq!(take(now + 60 * INTERVAL), Admission::After(Duration::ZERO));
    }

    #[test]
    fn addresses_do_not_disturb_each_other_but_a_64_is_one() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for _ in 0..BURST {
            buckets.take(source("2001:db8::1"), now);
        }

        assert_eq!(buckets.take(source("2001:db8::2"), now), Admission::After(INTERVAL));
        assert_eq!(buckets.take(source("2001:db8:0:1::1"), now), Admission::After(Duration::ZERO));
        assert_eq!(buckets.take(source("10.0.0.1"), now), Admission::After(Duration::ZERO));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_quiet() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for n in 0..u32::try_from(MAX_SOURCES).unwrap() {
            buckets.take(IpAddr::V4(std::net::Ipv4Addr::from_bits(n)), now);
        }

        assert_eq!(buckets.take(source("203.0.113.1"), now), Admission::Refuse);
        assert_eq!(buckets.take(source("203.0.113.1"), now + INTERVAL * 2), Admission::After(Duration::ZERO));
        assert_eq!(buckets.buckets.len(), 1);
    }

    fn source(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
