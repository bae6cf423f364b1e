//! One of the endpoints that can be called.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use super::{Ask, Balancer, Distance, Draw, Method, NoEndpoint, Slot, locality};

/// The endpoints at one distance.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The places of those that can be called, each with the sum of the weights up to and with it.
    callable: Vec<(usize, u64)>,
    /// Whether all that can be called have the same weight.
    even: bool,
    /// The share of all calls that goes here.
    share: f64,
}

/// Sorts endpoints by their distance, nearest first.
pub(super) fn groups(slots: &[Slot]) -> Vec<Group> {
    let mut sorted: BTreeMap<Distance, (Vec<(usize, u64)>, u64)> = BTreeMap::new();
    for (place, slot) in slots.iter().enumerate() {
        let (callable, all) = sorted.entry(slot.member.distance).or_default();
        let weight = u64::from(slot.member.weight);
        *all += weight;
        if slot.is_callable() {
            let before = callable.last().map_or(0, |(_, sum)| *sum);
            callable.push((place, before + weight));
        }
    }
    let sum = |callable: &[(usize, u64)]| callable.last().map_or(0, |(_, sum)| *sum);
    let weights: Vec<_> = sorted.values().map(|(callable, all)| (sum(callable), *all)).collect();
    let shares = locality::shares(&weights);
    let group = |(callable, share): (Vec<(usize, u64)>, f64)| {
        let even = callable.iter().enumerate().all(|(number, (_, sum))| {
            callable.first().is_some_and(|(_, first)| *sum == first * (number as u64 + 1))
        });
        Group { callable, even, share }
    };
    sorted.into_values().map(|(callable, _)| callable).zip(shares).map(group).collect()
}

impl Balancer {
    /// Returns the place of the endpoint that a call goes to.
    pub(super) fn choose(
        &mut self,
        ask: Ask<'_>,
        now: Instant,
        draw: &mut Draw,
    ) -> Result<usize, NoEndpoint> {
        if self.slots.is_empty() {
            return Err(NoEndpoint::None);
        }
        if self.groups.iter().all(|group| group.callable.is_empty()) {
            return self.desperate(ask.tried, draw);
        }
        if let (Method::RingHash(_), Some(key)) = (&self.settings.method, ask.key) {
            return self.on_ring(key, ask.tried).ok_or(NoEndpoint::Tried);
        }
        let drawn = self.drawn_group(draw);
        // Where all of the drawn distance have been tried, the others are asked, nearest first.
        let order = std::iter::once(drawn).chain((0..self.groups.len()).filter(|group| *group != drawn));
        let order: Vec<usize> = order.collect();
        order.into_iter().find_map(|group| self.within(group, ask.tried, now, draw)).ok_or(NoEndpoint::Tried)
    }

    fn drawn_group(&self, draw: &mut Draw) -> usize {
        if self.groups.len() < 2 {
            return 0;
        }
        let mut left = draw.fraction();
        for (place, group) in self.groups.iter().enumerate() {
            if left < group.share {
                return place;
            }
            left -= group.share;
        }
        0
    }

    fn within(&mut self, group: usize, tried: &[SocketAddr], now: Instant, draw: &mut Draw) -> Option<usize> {
        match self.settings.method {
            Method::RoundRobin => self.next_turn(group, tried),
            // Without a key, chance decides.
            Method::LeastRequest | Method::RingHash(_) => {
                self.better_of_two(group, tried, draw, |slot| f64::from(slot.active))
            }
            Method::PeakEwma => self.better_of_two(group, tried, draw, |slot| {
                slot.latency.expected(now) * (f64::from(slot.active) + 1.0)
            }),
        }
    }

    fn next_turn(&mut self, group: usize, tried: &[SocketAddr]) -> Option<usize> {
        let group = self.groups.get(group)?;
        if group.even {
            let start = self.turn % group.callable.len().max(1);
            self.turn = self.turn.wrapping_add(1);
            let (before, after) = group.callable.split_at_checked(start)?;
            let mut order = after.iter().chain(before).map(|(place, _)| *place);
            return order.find(|place| is_open(&self.slots, *place, tried));
        }
        // Smooth weighted turns (nginx): everybody earns their weight, the richest pays for all.
        let (mut best, mut total) = (None, 0);
        for (place, _) in &group.callable {
            if !is_open(&self.slots, *place, tried) {
                continue;
            }
            let Some(slot) = self.slots.get_mut(*place) else { continue };
            slot.credit += i64::from(slot.member.weight);
            total += i64::from(slot.member.weight);
            if best.is_none_or(|(_, credit)| slot.credit > credit) {
                best = Some((*place, slot.credit));
            }
        }
        let (place, _) = best?;
        self.slots.get_mut(place)?.credit -= total;
        Some(place)
    }

    /// Draws two, as their weights say, and takes the one with the lower cost for its weight.
    fn better_of_two(
        &self,
        group: usize,
        tried: &[SocketAddr],
        draw: &mut Draw,
        cost: impl Fn(&Slot) -> f64,
    ) -> Option<usize> {
        let group = self.groups.get(group)?;
        let first = self.drawn(group, tried, None, draw)?;
        let Some(second) = self.drawn(group, tried, Some(first), draw) else { return Some(first) };
        let cost = |place: usize| {
            self.slots.get(place).map_or(f64::MAX, |slot| cost(slot) / f64::from(slot.member.weight.max(1)))
        };
        Some(if cost(second) < cost(first) { second } else { first })
    }

    fn drawn(
        &self,
        group: &Group,
        tried: &[SocketAddr],
        but: Option<usize>,
        draw: &mut Draw,
    ) -> Option<usize> {
        let (_, total) = group.callable.last()?;
        let ticket = draw.below(usize::try_from(*total).unwrap_or(usize::MAX)) as u64;
        let start = group.callable.partition_point(|(_, sum)| *sum <= ticket);
        let (before, after) = group.callable.split_at_checked(start).unwrap_or((&[], &group.callable));
        let mut order = after.iter().chain(before).map(|(place, _)| *place);
        order.find(|place| Some(*place) != but && is_open(&self.slots, *place, tried))
    }

    fn on_ring(&self, key: u64, tried: &[SocketAddr]) -> Option<usize> {
        let callable = |place: &usize| self.slots.get(*place).is_some_and(Slot::is_callable);
        self.ring.from(key).find(|place| callable(place) && is_open(&self.slots, *place, tried))
    }

    /// Nobody can be called: an endpoint that failed before is better than none. One that proved another identity is
    /// asked last, and has to prove itself like any other.
    fn desperate(&self, tried: &[SocketAddr], draw: &mut Draw) -> Result<usize, NoEndpoint> {
        let open = |place: &usize| is_open(&self.slots, *place, tried);
        let impostor = |place: &usize| self.slots.get(*place).is_some_and(|slot| slot.standing.is_impostor());
        let places: Vec<usize> = (0..self.slots.len()).filter(open).collect();
        let honest: Vec<usize> = places.iter().copied().filter(|place| !impostor(place)).collect();
        let among = if honest.is_empty() { places } else { honest };
        among.get(draw.below(among.len())).copied().ok_or(NoEndpoint::Tried)
    }
}

fn is_open(slots: &[Slot], place: usize, tried: &[SocketAddr]) -> bool {
    slots.get(place).is_some_and(|slot| !tried.contains(&slot.member.address))
}
