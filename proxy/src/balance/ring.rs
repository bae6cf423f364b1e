//! A ring of points: the key of a call lies between two of them, and the next one's endpoint gets it.
//!
//! An endpoint that comes or goes moves only the keys next to its own points, and every sidecar that knows the same
//! endpoints sends a key to the same one.

use std::net::SocketAddr;

use super::draw::mix;

/// The points of all endpoints, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Ring {
    points: Vec<(u64, usize)>,
}

impl Ring {
    /// Makes the ring of endpoints with their weights; a point names an endpoint by its place in the list.
    pub(super) fn new(endpoints: &[(SocketAddr, u32)]) -> Self {
        let total: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let each = points_of_one(total);
        let mut points = Vec::new();
        for (place, (address, weight)) in endpoints.iter().enumerate() {
            let start = hash(address.to_string().as_bytes());
            let numbers = 0..share(*weight, each, total);
            points.extend(numbers.map(|number| (mix(start ^ mix(number)), place)));
        }
        points.sort_unstable();
        Self { points }
    }

    /// Returns the places of endpoints from the key's point on, once around the ring.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let first = self.points.partition_point(|(point, _)| *point < key);
        let (before, after) = self.points.split_at_checked(first).unwrap_or((&[], &self.points));
        after.iter().chain(before).map(|(_, place)| *place)
    }
}

/// Returns how many points a weight of one has. It does not change with each endpoint that comes or goes: all keys would
/// move then.
fn points_of_one(total: u64) -> u64 {
    let mut each = POINTS_OF_ONE;
    while each > 1 && each.saturating_mul(total) > MOST_POINTS {
        each /= 2;
    }
    each
}

/// Returns how many points an endpoint has. Where weights are so large that not every part of them can have a point, they
/// are shared out.
fn share(weight: u32, each: u64, total: u64) -> u64 {
    let weight = u64::from(weight);
    if total <= MOST_POINTS { each * weight } else { (weight * MOST_POINTS / total).max(1) }
}

/// Returns the key of a text. It is the same in every sidecar of every version.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    // FNV-1a, whose last bytes would otherwise change only a part of the result.
    let plain = bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    mix(plain)
}

/// The parameters of FNV-1a.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;
/// Points of a weight of one: with ten endpoints each one's share is right to about a tenth.
const POINTS_OF_ONE: u64 = 128;
/// Points of all endpoints together, as long as each has one.
const MOST_POINTS: u64 = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u16) -> Vec<(SocketAddr, u32)> {
        (0..count).map(|number| (SocketAddr::from(([10, 0, 0, 1], 1_000 + number)), 1)).collect()
    }

    fn chosen(ring: &Ring, endpoints: &[(SocketAddr, u32)], key: u64) -> SocketAddr {
        endpoints[ring.from(hash(&key.to_be_bytes())).next().unwrap()].0
    }

    #[test]
    fn keys_are_spread_as_the_weights_say() {
        let mut all = endpoints(4);
        all[3].1 = 3;
        let ring = Ring::new(&all);
        let mut counts = [0u32; 4];

        for key in 0..60_000u64 {
            counts[ring.from(hash(&key.to_be_bytes())).next().unwrap()] += 1;
        }

        for (count, wanted) in counts.iter().zip([10_000, 10_000, 10_000, 30_000]) {
            assert!(count.abs_diff(wanted) < wanted / 4, "{counts:?}");
        }
    }

    #[test]
    fn the_loss_of_an_endpoint_moves_only_its_own_keys() {
        let (all, mut fewer) = (endpoints(10), endpoints(10));
        let gone = fewer.remove(3).0;
        let (before, after) = (Ring::new(&all), Ring::new(&fewer));

        for key in 0..20_000 {
            let was = chosen(&before, &all, key);
            if was != gone {
                assert_eq!(chosen(&after, &fewer, key), was, "{key}");
            }
        }
    }

    #[test]
    fn a_key_has_the_same_hash_for_ever() {
        assert_eq!(hash(b"alice"), 0xc5d1_556d_6677_4a5c);
    }
}
