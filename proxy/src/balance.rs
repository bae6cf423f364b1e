//! Which endpoint a call goes to, and what failures lead to: state machines over values, without sockets or clocks.
//!
//! A `Balancer` holds what is known of one service's endpoints. It is told of each call's begin and end, takes the
//! time and chance as values, and never waits.

mod backoff;
mod breaker;
mod budget;
mod choice;
mod draw;
mod ejection;
mod health;
mod latency;
mod locality;
mod ring;
mod settings;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub(crate) use backoff::wait;
pub(crate) use breaker::Load;
pub(crate) use draw::Draw;
pub(crate) use ejection::Cause;
pub(crate) use health::next_question;
pub(crate) use locality::Distance;
pub use locality::{Locality, LocalityError};
pub(crate) use ring::hash;
pub use settings::{Breakers, Check, Ejection, HashBy, Health, Method, Probe, Retries, Settings, Via};

use breaker::UnderWay;
use budget::Budget;
use choice::Group;
use ejection::Standing;
use health::Checked;
use latency::Latency;
use ring::Ring;

/// An endpoint as the balancer knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    pub(crate) distance: Distance,
    pub(crate) via: Via,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ask<'a> {
    /// What calls that belong together have in common.
    pub(crate) key: Option<u64>,
    /// Where the call has been tried.
    pub(crate) tried: &'a [SocketAddr],
}

/// The endpoint of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picked {
    pub(crate) address: SocketAddr,
    pub(crate) via: Via,
    /// Tells it from an endpoint at the same address that was gone in between.
    id: u64,
}

/// Why there is no endpoint for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoEndpoint {
    #[error("the service has no endpoint")]
    None,
    #[error("every endpoint has been tried")]
    Tried,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered, after so long.
    Answered(Duration),
    /// It was not, and the endpoint is to blame.
    Failed(Duration),
    /// The endpoint proved another identity than the service's.
    Impostor,
}

/// What changed for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Ejected {
        address: SocketAddr,
        cause: Cause,
        lasting: Duration,
    },
    Returned {
        address: SocketAddr,
    },
    /// The regular questions changed their verdict.
    Unhealthy {
        address: SocketAddr,
    },
    Healthy {
        address: SocketAddr,
    },
}

/// An endpoint as others may see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    pub(crate) member: Member,
    pub(crate) active: u32,
    pub(crate) state: &'static str,
    /// Seconds that a call is expected to take.
    pub(crate) expected: f64,
}

/// The endpoints of one service, and what is known of them.
#[derive(Debug)]
pub(crate) struct Balancer {
    settings: Settings,
    slots: Vec<Slot>,
    places: HashMap<SocketAddr, usize>,
    groups: Vec<Group>,
    ring: Ring,
    /// When the first of the ejections ends.
    returns: Option<Instant>,
    under_way: UnderWay,
    budget: Budget,
    turn: usize,
    next: u64,
    changes: Vec<Change>,
}

/// One endpoint, and what is held for and against it.
#[derive(Debug, Clone)]
struct Slot {
    id: u64,
    member: Member,
    active: u32,
    latency: Latency,
    standing: Standing,
    checked: Checked,
    /// What it is owed in turns.
    credit: i64,
}

impl Slot {
    fn is_callable(&self) -> bool {
        !self.standing.is_out() && self.checked.is_healthy()
    }

    fn state(&self) -> &'static str {
        match (self.standing.is_out(), self.checked.is_healthy()) {
            (true, _) => "ejected",
            (false, false) => "unhealthy",
            (false, true) => "in",
        }
    }
}

impl Balancer {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            slots: Vec::new(),
            places: HashMap::new(),
            groups: Vec::new(),
            ring: Ring::default(),
            returns: None,
            under_way: UnderWay::default(),
            budget: Budget::new(now),
            turn: 0,
            next: 0,
            changes: Vec::new(),
        }
    }

    #[cfg(test)]
    fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes other settings and endpoints. What is known of those that stay, stays. Returns those that are gone.
    pub(crate) fn update(&mut self, settings: Settings, members: &[Member], now: Instant) -> Vec<SocketAddr> {
        let mut known: HashMap<SocketAddr, Slot> =
            std::mem::take(&mut self.slots).into_iter().map(|slot| (slot.member.address, slot)).collect();
        self.settings = settings;
        self.places.clear();
        for member in members {
            if self.places.contains_key(&member.address) {
                continue;
            }
            let slot = match known.remove(&member.address) {
                Some(slot) => Slot { member: *member, ..slot },
                None => self.fresh(*member, now),
            };
            self.places.insert(member.address, self.slots.len());
            self.slots.push(slot);
        }
        if matches!(self.settings.health, Health::ByCalls) {
            for slot in &mut self.slots {
                slot.checked = Checked::default();
            }
        }
        self.ring = match self.settings.method {
            Method::RingHash(_) => self.points(),
            Method::RoundRobin | Method::LeastRequest | Method::PeakEwma => Ring::default(),
        };
        self.regroup();
        known.into_keys().collect()
    }

    /// Chooses the endpoint of a call, which then counts as under way there until [`Balancer::release`].
    pub(crate) fn pick(&mut self, ask: Ask<'_>, now: Instant, draw: &mut Draw) -> Result<Picked, NoEndpoint> {
        self.welcome_back(now);
        let place = self.choose(ask, now, draw)?;
        let slot = self.slots.get_mut(place).ok_or(NoEndpoint::None)?;
        slot.active = slot.active.saturating_add(1);
        Ok(Picked { address: slot.member.address, via: slot.member.via, id: slot.id })
    }

    /// Notes how a call at an endpoint went.
    pub(crate) fn report(&mut self, picked: &Picked, outcome: Outcome, now: Instant, draw: &mut Draw) {
        let Some(place) = self.place(picked) else { return };
        let rules = self.settings.ejection.clone();
        let Some(slot) = self.slots.get_mut(place) else { return };
        let cause = match outcome {
            Outcome::Answered(elapsed) => {
                slot.latency.observe(elapsed, now);
                slot.standing.succeeded(now);
                None
            }
            Outcome::Failed(elapsed) => {
                slot.latency.observe(elapsed.max(latency::FAILED), now);
                slot.standing.failed(&rules, now)
            }
            Outcome::Impostor => Some(Cause::Identity),
        };
        if let Some(cause) = cause
            && self.may_eject(place, cause)
        {
            self.eject(place, cause, &rules, now, draw);
        }
    }

    /// Notes the end of a call, or of a connection, at an endpoint.
    pub(crate) fn release(&mut self, picked: &Picked) {
        if let Some(slot) = self.place(picked).and_then(|place| self.slots.get_mut(place)) {
            slot.active = slot.active.saturating_sub(1);
        }
    }

    /// Notes what a regular question to an endpoint came to.
    pub(crate) fn checked(&mut self, address: SocketAddr, passed: bool) {
        let Health::Checked(check) = &self.settings.health else { return };
        let Some(slot) = self.places.get(&address).and_then(|place| self.slots.get_mut(*place)) else {
            return;
        };
        if slot.checked.note(passed, check) {
            self.changes.push(if passed {
                Change::Healthy { address }
            } else {
                Change::Unhealthy { address }
            });
            self.regroup();
        }
    }

    /// Makes room for one more of a kind, or names the limit that leaves none.
    pub(crate) fn add(&mut self, load: Load) -> Result<(), Load> {
        self.under_way.add(load, &self.settings.breakers)
    }

    pub(crate) fn end(&mut self, load: Load) {
        self.under_way.end(load);
    }

    pub(crate) fn under_way(&self, load: Load) -> u32 {
        self.under_way.count(load)
    }

    /// Notes a call, from which the right to retries follows.
    pub(crate) fn called(&mut self, now: Instant) {
        self.budget.called(now);
    }

    /// Takes one of the retries that the service has left.
    pub(crate) fn retry(&mut self, now: Instant) -> bool {
        self.budget.take(&self.settings.retries, now)
    }

    /// Returns what changed since it was asked last.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        self.places.contains_key(&address)
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.slots.iter().map(|slot| slot.member.address)
    }

    pub(crate) fn views(&self, now: Instant) -> Vec<View> {
        let view = |slot: &Slot| View {
            member: slot.member,
            active: slot.active,
            state: slot.state(),
            expected: slot.latency.expected(now),
        };
        self.slots.iter().map(view).collect()
    }

    fn fresh(&mut self, member: Member, now: Instant) -> Slot {
        self.next += 1;
        Slot {
            id: self.next,
            member,
            active: 0,
            latency: Latency::new(now),
            standing: Standing::new(now),
            checked: Checked::default(),
            credit: 0,
        }
    }

    fn points(&self) -> Ring {
        let weighted: Vec<_> =
            self.slots.iter().map(|slot| (slot.member.address, slot.member.weight)).collect();
        Ring::new(&weighted)
    }

    fn place(&self, picked: &Picked) -> Option<usize> {
        let place = *self.places.get(&picked.address)?;
        self.slots.get(place).filter(|slot| slot.id == picked.id).map(|_| place)
    }

    /// Whoever proved another identity is out at once. For a failure nobody is ejected beyond the share that may be
    /// out, nor the last one that can be called.
    fn may_eject(&self, place: usize, cause: Cause) -> bool {
        let Some(slot) = self.slots.get(place) else { return false };
        if cause == Cause::Identity {
            return !slot.standing.is_impostor();
        }
        let out = self.slots.iter().filter(|slot| slot.standing.is_out()).count();
        let others = self.slots.iter().filter(|other| other.id != slot.id && other.is_callable()).count();
        let share = usize::try_from(self.settings.ejection.share).unwrap_or(100);
        let most = (self.slots.len() * share / 100).max(1);
        others > 0 && out < most
    }

    fn eject(&mut self, place: usize, cause: Cause, rules: &Ejection, now: Instant, draw: &mut Draw) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        let lasting = slot.standing.eject(cause, rules, now, draw);
        self.changes.push(Change::Ejected { address: slot.member.address, cause, lasting });
        self.regroup();
    }

    fn welcome_back(&mut self, now: Instant) {
        if self.returns.is_none_or(|returns| now < returns) {
            return;
        }
        let rules = &self.settings.ejection;
        for slot in &mut self.slots {
            if slot.standing.come_back(rules, now) {
                self.changes.push(Change::Returned { address: slot.member.address });
            }
        }
        self.regroup();
    }

    /// Sorts the endpoints by distance and by whether they can be called.
    fn regroup(&mut self) {
        self.groups = choice::groups(&self.slots);
        self.returns = self.slots.iter().filter_map(|slot| slot.standing.until()).min();
    }
}
