//! The rules that protect one workload, compiled: every dimension of an access is looked up once, and the answers are
//! intersected as bits.
//!
//! Rules are numbered so that those of one section are neighbours, as are the sections that one kind of traffic needs: allow
//! and deny for HTTP, deny and allow for TCP, of which HTTP needs the first three and TCP the last three. Within a section those that enforce come before
//! those in shadow, the latter by the moment at which they will: whether a rule enforces is one comparison, and the
//! first bit set in a section is the rule that decides. Nothing here allocates while deciding.

mod conditional;
mod conditions;
mod connection;
mod hashing;
mod prefixes;
mod request;
mod row;
mod trie;

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use conditional::Conditional;
use conditions::CommonConditions;
use connection::{Candidates, ConnectionIndex};
use request::RequestIndex;
pub(crate) use trie::Trie;

use crate::access::{Connection, Request};
use crate::document::{ConnectionCondition, Effect, Kinds, Layer, Limit, Mode, Rule};
use crate::moment::never;

/// The compiled rules of one workload.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Box<[Option<Arc<Rule>>]>,
    tcp_deny: Section,
    http_deny: Section,
    http_allow: Section,
    tcp_allow: Section,
    connection: ConnectionIndex,
    request: RequestIndex,
    common: CommonConditions,
    size: Size,
    /// The rules with conditions on the connection.
    at_connect: Conditional,
    /// The rules with conditions on the request.
    at_request: Conditional,
}

/// Neighbouring rules of one effect and layer.
#[derive(Debug)]
pub(crate) struct Section {
    words: Range<usize>,
    enforced: usize,
    untils: Box<[SystemTime]>,
}

impl Section {
    /// Whether the rule with this number enforces at `now`.
    fn enforces(&self, rule: usize, now: SystemTime) -> bool {
        let waiting = self.untils.partition_point(|until| *until <= now);
        rule < self.words.start * 64 + self.enforced + waiting
    }
}

/// The first rule of each section that matches a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hits {
    pub(crate) tcp_deny: Option<usize>,
    pub(crate) http_deny: Option<usize>,
    pub(crate) http_allow: Option<usize>,
    pub(crate) tcp_allow: Option<usize>,
}

/// A matching rule, and whether it enforces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit<'i> {
    pub(crate) rule: &'i Rule,
    pub(crate) enforces: bool,
}

impl Index {
    /// Compiles rules, which come in the order in which they are to be named where several match.
    pub(crate) fn build(rules: impl Iterator<Item = Arc<Rule>>) -> Self {
        let mut sections: [Vec<Arc<Rule>>; 4] = Default::default();
        for rule in rules {
            let [http_allow, http_deny, tcp_deny, tcp_allow] = &mut sections;
            match (rule.effect, &rule.layer) {
                (Effect::Deny, Layer::Tcp) => tcp_deny.push(rule),
                (Effect::Deny, Layer::Http(_)) => http_deny.push(rule),
                (Effect::Allow, Layer::Http(_)) => http_allow.push(rule),
                (Effect::Allow, Layer::Tcp) => tcp_allow.push(rule),
            }
        }
        let mut slots = Vec::new();
        let [http_allow, http_deny, tcp_deny, tcp_allow] = sections.map(|rules| section(rules, &mut slots));
        let connection = ConnectionIndex::build(numbered(&slots));
        let request = RequestIndex::build(numbered(&slots));
        let common = CommonConditions::build(numbered(&slots));
        let size = Size::of(slots.len() / 64);
        let at_connect = Conditional::of(&slots, |rule| !rule.at_connect.is_empty());
        let at_request = Conditional::of(&slots, asks_of_request);
        Self {
            slots: slots.into(),
            tcp_deny,
            http_deny,
            http_allow,
            tcp_allow,
            connection,
            request,
            common,
            size,
            at_connect,
            at_request,
        }
    }

    /// Finds the first rules that match a connection to a port that is served as opaque TCP.
    pub(crate) fn tcp(&self, connection: &Connection<'_>) -> Hits {
        match self.size {
            Size::Small => self.tcp_by::<SMALL>(connection),
            Size::Middle => self.tcp_by::<MIDDLE>(connection),
            Size::Large => self.tcp_by::<CHUNK>(connection),
        }
    }

    fn tcp_by<const N: usize>(&self, connection: &Connection<'_>) -> Hits {
        let mut hits = Hits::default();
        let mut spare = [0u64; N];
        for from in (self.http_deny.words.start..self.tcp_allow.words.end).step_by(N) {
            let mut buffer = [0u64; N];
            let (words, spare) = windows(&mut buffer, &mut spare, self.tcp_allow.words.end - from);
            if self.connection.narrow(connection, from, words, spare) == Candidates::None {
                continue;
            }
            let fits = |rule| self.fits_opaque(rule, connection);
            first(&mut hits.tcp_deny, &self.tcp_deny, from, words, fits);
            first(&mut hits.http_deny, &self.http_deny, from, words, fits);
            first(&mut hits.tcp_allow, &self.tcp_allow, from, words, fits);
        }
        hits
    }

    /// Finds the rules that match a connection to a port that is served as HTTP, as far as they can be known before
    /// the request, and writes those that depend on it to `residual`.
    pub(crate) fn http_connection(&self, connection: &Connection<'_>, residual: &mut [u64]) -> Hits {
        match self.size {
            Size::Small => self.http_connection_by::<SMALL>(connection, residual),
            Size::Middle => self.http_connection_by::<MIDDLE>(connection, residual),
            Size::Large => self.http_connection_by::<CHUNK>(connection, residual),
        }
    }

    fn http_connection_by<const N: usize>(&self, connection: &Connection<'_>, residual: &mut [u64]) -> Hits {
        let mut hits = Hits::default();
        let mut spare = [0u64; N];
        let (http, end) = (self.http_words(), self.tcp_deny.words.end);
        for from in (http.start..end).step_by(N) {
            let mut buffer = [0u64; N];
            let (words, spare) = windows(&mut buffer, &mut spare, end - from);
            if self.connection.narrow(connection, from, words, spare) == Candidates::Some {
                self.at_connect.retain(from, words, |rule| self.fits_connection(rule, connection));
                first(&mut hits.tcp_deny, &self.tcp_deny, from, words, |_| true);
                first(&mut hits.http_allow, &self.http_allow, from, words, |_| true);
            }
            for (out, word) in residual.iter_mut().skip(from - http.start).zip(words.iter()) {
                *out = *word;
            }
        }
        hits
    }

    /// Finds the first rules that match a request, among those left over from its connection.
    pub(crate) fn http_request(&self, residual: &[u64], request: &Request<'_>) -> Hits {
        match self.size {
            Size::Small => self.http_request_by::<SMALL>(residual, request),
            Size::Middle => self.http_request_by::<MIDDLE>(residual, request),
            Size::Large => self.http_request_by::<CHUNK>(residual, request),
        }
    }

    fn http_request_by<const N: usize>(&self, residual: &[u64], request: &Request<'_>) -> Hits {
        let mut hits = Hits::default();
        let (mut buffer, mut spare) = ([0u64; N], [0u64; N]);
        for (chunk, source) in residual.chunks(N).enumerate() {
            let from = self.http_words().start + chunk * N;
            let (words, spare) = windows(&mut buffer, &mut spare, source.len());
            for (word, source) in words.iter_mut().zip(source) {
                *word = *source;
            }
            self.request.narrow(request, from, words, spare);
            self.common.narrow(request, from, words, spare);
            let fits = |rule| self.fits_request(rule, request);
            first(&mut hits.http_deny, &self.http_deny, from, words, fits);
            first(&mut hits.http_allow, &self.http_allow, from, words, fits);
        }
        hits
    }

    /// Finds the first rules that match a connection and a request on it.
    pub(crate) fn http_whole(&self, connection: &Connection<'_>, request: &Request<'_>) -> Hits {
        match self.size {
            Size::Small => self.http_whole_by::<SMALL>(connection, request),
            Size::Middle => self.http_whole_by::<MIDDLE>(connection, request),
            Size::Large => self.http_whole_by::<CHUNK>(connection, request),
        }
    }

    fn http_whole_by<const N: usize>(&self, connection: &Connection<'_>, request: &Request<'_>) -> Hits {
        let mut hits = Hits::default();
        let mut spare = [0u64; N];
        let (http, end) = (self.http_words(), self.tcp_deny.words.end);
        for from in (http.start..end).step_by(N) {
            let mut buffer = [0u64; N];
            let (words, spare) = windows(&mut buffer, &mut spare, end - from);
            if self.connection.narrow(connection, from, words, spare) == Candidates::None {
                continue;
            }
            first(&mut hits.tcp_deny, &self.tcp_deny, from, words, |rule| {
                self.fits_connection(rule, connection)
            });
            let asked = http.end.saturating_sub(from).min(words.len());
            let ((requests, _), (spare, _)) = (words.split_at_mut(asked), spare.split_at_mut(asked));
            self.request.narrow(request, from, requests, spare);
            self.common.narrow(request, from, requests, spare);
            let fits = |rule| self.fits_connection(rule, connection) && self.fits_request(rule, request);
            first(&mut hits.http_deny, &self.http_deny, from, words, fits);
            first(&mut hits.http_allow, &self.http_allow, from, words, fits);
        }
        hits
    }

    /// The words of the rules that look at requests.
    pub(crate) fn http_words(&self) -> Range<usize> {
        self.http_allow.words.start..self.http_deny.words.end
    }

    /// The rule with a number found in a section.
    pub(crate) fn hit(&self, number: Option<usize>, now: SystemTime) -> Option<Hit<'_>> {
        let number = number?;
        let rule = self.rule(number)?;
        let section = match (rule.effect, &rule.layer) {
            (Effect::Deny, Layer::Tcp) => &self.tcp_deny,
            (Effect::Deny, Layer::Http(_)) => &self.http_deny,
            (Effect::Allow, Layer::Http(_)) => &self.http_allow,
            (Effect::Allow, Layer::Tcp) => &self.tcp_allow,
        };
        Some(Hit { rule, enforces: section.enforces(number, now) })
    }

    // The conditions of a rule whose bit is set. What the index does not know is no rule and matches nothing.
    fn fits_connection(&self, number: usize, connection: &Connection<'_>) -> bool {
        !self.at_connect.has(number)
            || self
                .rule(number)
                .is_some_and(|rule| rule.at_connect.iter().all(|condition| condition.holds(connection)))
    }

    fn fits_opaque(&self, number: usize, connection: &Connection<'_>) -> bool {
        !self.at_connect.has(number)
            || self.rule(number).is_some_and(|rule| {
                let mut conditions = rule.at_connect.iter();
                conditions
                    .all(|condition| *condition != ConnectionCondition::Http && condition.holds(connection))
            })
    }

    fn fits_request(&self, number: usize, request: &Request<'_>) -> bool {
        !self.at_request.has(number)
            || self.rule(number).is_some_and(|rule| {
                let Layer::Http(limits) = &rule.layer else { return false };
                limits.kinds.fit(request.kind, rule.effect)
                    && rule.at_request.iter().all(|condition| condition.holds(request))
            })
    }

    fn rule(&self, number: usize) -> Option<&Rule> {
        self.slots.get(number)?.as_deref()
    }
}

// Which kind a request is of is looked up; to which port and in which protocol is not.
fn asks_of_request(rule: &Rule) -> bool {
    let Layer::Http(limits) = &rule.layer else { return false };
    let of_kind = match &limits.kinds {
        Kinds::Plain | Kinds::Every => false,
        Kinds::Connect { to_ports } => *to_ports != Limit::Any,
        Kinds::Upgrade { protocols } => *protocols != Limit::Any,
    };
    of_kind || !rule.at_request.is_empty()
}

fn section(mut rules: Vec<Arc<Rule>>, slots: &mut Vec<Option<Arc<Rule>>>) -> Section {
    let until = |rule: &Arc<Rule>| match rule.mode {
        Mode::Enforce => None,
        Mode::Shadow { until } => Some(until),
        Mode::DryRun => Some(never()),
    };
    rules.sort_by_key(until);
    let untils: Box<[SystemTime]> = rules.iter().filter_map(until).collect();
    let (start, enforced) = (slots.len() / 64, rules.len() - untils.len());
    slots.extend(rules.into_iter().map(Some));
    slots.resize(slots.len().next_multiple_of(64), None);
    Section { words: start..slots.len() / 64, enforced, untils }
}

fn numbered(slots: &[Option<Arc<Rule>>]) -> impl Iterator<Item = (u32, &Rule)> {
    (0u32..).zip(slots).filter_map(|(number, slot)| slot.as_deref().map(|rule| (number, rule)))
}

fn windows<'b>(buffer: &'b mut [u64], spare: &'b mut [u64], left: usize) -> (&'b mut [u64], &'b mut [u64]) {
    let length = left.min(buffer.len());
    (buffer.get_mut(..length).unwrap_or_default(), spare.get_mut(..length).unwrap_or_default())
}

fn first(
    found: &mut Option<usize>,
    section: &Section,
    from: usize,
    words: &[u64],
    fits: impl Fn(usize) -> bool,
) {
    if found.is_some() {
        return;
    }
    let begin = section.words.start.max(from);
    let end = section.words.end.min(from + words.len());
    let Some(part) = begin.checked_sub(from).and_then(|skip| words.get(skip..end.checked_sub(from)?)) else {
        return;
    };
    for (number, word) in (begin..).zip(part) {
        let mut left = *word;
        while left != 0 {
            let bit = usize::try_from(left.trailing_zeros()).unwrap_or_default();
            if fits(number * 64 + bit) {
                *found = Some(number * 64 + bit);
                return;
            }
            left &= left - 1;
        }
    }
}

/// How many words a pass takes: as many as there are, up to [`CHUNK`]; clearing more would cost more than the decision.
#[derive(Clone, Copy, Debug)]
enum Size {
    Small,
    Middle,
    Large,
}

impl Size {
    fn of(words: usize) -> Self {
        match words {
            words if words <= SMALL => Self::Small,
            words if words <= MIDDLE => Self::Middle,
            _ => Self::Large,
        }
    }
}

/// Words of a pass for a thousand rules.
const SMALL: usize = 16;

/// Words of a pass for four thousand rules.
const MIDDLE: usize = 64;

/// Words of a pass for more: enough for thirty thousand rules, little enough for the stack.
const CHUNK: usize = 512;

#[cfg(test)]
mod tests;
