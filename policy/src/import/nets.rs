//! Networks taken out of others, exactly: what is left is a list of networks again.

use crate::net::Network;

/// What of `wanted` is in none of `spared`.
pub(super) fn without(wanted: &[Network], spared: &[Network]) -> Vec<Network> {
    let mut left = wanted.to_vec();
    for spare in spared {
        left = left.into_iter().flat_map(|network| less(network, *spare)).collect();
    }
    left
}

/// What is in both lists.
pub(super) fn shared(one: &[Network], other: &[Network]) -> Vec<Network> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    let mut both: Vec<Network> = Vec::new();
    for (a, b) in pairs {
        let inner = if within(a, b) { Some(a) } else { within(b, a).then_some(b) };
        both.extend(inner.filter(|network| !both.contains(network)));
    }
    both
}

/// Every address.
pub(super) fn everywhere() -> Vec<Network> {
    [IPV4, IPV6].iter().filter_map(|text| Network::parse(text).ok()).collect()
}

fn within(inner: Network, outer: Network) -> bool {
    let ((inner_is_v4, inner, inner_length), (outer_is_v4, outer, outer_length)) =
        (inner.bits(), outer.bits());
    let width = width(outer_is_v4);
    let shift = u32::from(width - outer_length.min(width));
    inner_is_v4 == outer_is_v4
        && inner_length >= outer_length
        && (shift >= 128 || inner.checked_shr(shift) == outer.checked_shr(shift))
}

// On the way down to what is spared, the other half is left at each step.
fn less(network: Network, spared: Network) -> Vec<Network> {
    let mut left = Vec::new();
    let mut rest = network;
    if !within(spared, rest) {
        return if within(rest, spared) { left } else { vec![network] };
    }
    while rest != spared {
        let Some([low, high]) = halves(rest) else { break };
        let (inner, other) = if within(spared, low) { (low, high) } else { (high, low) };
        left.push(other);
        rest = inner;
    }
    left
}

fn halves(network: Network) -> Option<[Network; 2]> {
    let (is_v4, address, length) = network.bits();
    let longer = length.checked_add(1).filter(|longer| *longer <= width(is_v4))?;
    let bit = 1_u128 << (width(is_v4) - longer);
    Some([of(is_v4, address, longer)?, of(is_v4, address | bit, longer)?])
}

fn of(is_v4: bool, address: u128, length: u8) -> Option<Network> {
    let text = if is_v4 {
        format!("{}/{length}", std::net::Ipv4Addr::from(u32::try_from(address).ok()?))
    } else {
        format!("{}/{length}", std::net::Ipv6Addr::from(address))
    };
    // No sender has an address among those that are IPv4 written as IPv6: it is IPv4, and such a network would be too.
    Network::parse(&text).ok()
}

fn width(is_v4: bool) -> u8 {
    if is_v4 { 32 } else { 128 }
}

const IPV4: &str = "0.0.0.0/0";
const IPV6: &str = "::/0";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| Network::parse(text).unwrap()).collect()
    }

    fn shown(networks: &[Network]) -> Vec<String> {
        networks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_spared_is_cut_out_of_the_middle() {
        let left = without(&nets(&["10.0.0.0/8"]), &nets(&["10.64.0.0/10"]));

        assert_eq!(shown(&left), ["10.128.0.0/9", "10.0.0.0/10"]);
        assert_eq!(without(&nets(&["10.1.0.0/16"]), &nets(&["10.0.0.0/8"])), []);
        assert_eq!(shown(&without(&everywhere(), &nets(&["::/0"]))), ["0.0.0.0/0"]);
        assert_eq!(shown(&without(&everywhere(), &nets(&["0.0.0.0/0"]))), ["::/0"]);
    }

    #[test]
    fn what_is_shared_is_the_smaller_of_two() {
        let both = shared(&nets(&["10.0.0.0/8", "192.0.2.0/24"]), &nets(&["10.1.0.0/16", "::/0"]));

        assert_eq!(shown(&both), ["10.1.0.0/16"]);
    }

    proptest! {
        #[test]
        fn every_address_is_left_or_spared(
            address: u32,
            cuts in proptest::collection::vec((any::<u32>(), 0_u8..=32), 0..5),
        ) {
            let cut = |(base, length): &(u32, u8)| {
                let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
                of(true, u128::from(base & mask), *length).unwrap()
            };
            let spared: Vec<Network> = cuts.iter().map(cut).collect();
            let left = without(&everywhere(), &spared);
            let address = std::net::IpAddr::from(address.to_be_bytes());
            let is_in = |all: &[Network]| all.iter().any(|network| network.contains(address));

            prop_assert_eq!(is_in(&left), !is_in(&spared));
        }
    }
}
