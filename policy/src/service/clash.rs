//! What cannot stand beside each other in one set: for one and the same sidecar, a name, a destination or a port has one
//! meaning.

use std::collections::BTreeMap;

use identity::TrustDomain;

use super::{Entry, EntryKind, MAX_ENTRIES, read};
use crate::pattern::IdPattern;
use crate::strict::{Problem, Problems, Source, Span};

/// An entry of an operator's file, and where it stands.
#[derive(Clone, Debug)]
pub struct Placed<'s> {
    /// The entry.
    pub entry: Entry,
    source: &'s Source,
    span: Span,
}

impl Placed<'_> {
    /// Says at the place of the entry what is wrong with it.
    pub fn problem(&self, message: impl Into<String>, cure: Option<String>) -> Problem {
        Problem::at(self.source, self.span, message, cure)
    }
}

/// Two entries that cannot stand beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The place of the later one in the list.
    pub later: usize,
    /// Why.
    pub reason: String,
}

/// Reads an operator's files with the places of what they hold.
pub fn placed<'s>(sources: &'s [Source], trust_domain: &TrustDomain) -> Result<Vec<Placed<'s>>, Problems> {
    let (mut problems, mut found) = (Problems::default(), Vec::new());
    for source in sources {
        match read::operators(source, trust_domain) {
            Ok(entries) => {
                found.extend(entries.into_iter().map(|(entry, span)| Placed { entry, source, span }));
            }
            Err(flaws) => problems.extend(flaws),
        }
    }
    let entries: Vec<&Entry> = found.iter().map(|placed| &placed.entry).collect();
    for Clash { later, reason } in clashes(&entries) {
        if let Some(placed) = found.get(later) {
            problems.push(placed.problem(reason, None));
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// Finds what cannot stand beside each other.
pub fn clashes(entries: &[&Entry]) -> Vec<Clash> {
    let mut clashes = Vec::new();
    if entries.len() > MAX_ENTRIES {
        let reason = format!("there are {} entries, at most {MAX_ENTRIES} are accepted", entries.len());
        clashes.push(Clash { later: MAX_ENTRIES, reason });
    }
    let mut names: BTreeMap<(EntryKind, &str), usize> = BTreeMap::new();
    let mut taken: BTreeMap<Taken<'_>, Vec<usize>> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if names.insert((entry.kind(), entry.name()), at).is_some() {
            let reason = format!("there is another {} called \"{}\"", entry.kind(), entry.name());
            clashes.push(Clash { later: at, reason });
            continue;
        }
        for place in places(entry) {
            let others = taken.entry(place).or_default();
            let meets = |other: &&usize| entries.get(**other).is_some_and(|other| overlap(entry, other));
            if let Some(other) = others.iter().find(meets).and_then(|other| entries.get(*other)) {
                clashes.push(Clash { later: at, reason: place.reason(other.name()) });
            }
            others.push(at);
        }
    }
    clashes
}

/// What has one meaning for one sidecar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken<'e> {
    /// A destination of calls.
    Destination(&'e str, u16),
    /// A port that is served.
    Served(u16),
}

impl Taken<'_> {
    fn reason(self, other: &str) -> String {
        match self {
            Self::Destination(host, port) => {
                format!(
                    "calls to {host}:{port} go to the service \"{other}\", which the same workloads may see"
                )
            }
            Self::Served(port) => {
                format!(
                    "port {port} is served as the sidecar \"{other}\" says, which applies to the same workloads"
                )
            }
        }
    }
}

fn places(entry: &Entry) -> Vec<Taken<'_>> {
    match entry {
        Entry::Service(service) => {
            let mut places = Vec::with_capacity(service.hosts.len() * service.ports.len());
            for host in &service.hosts {
                places.extend(service.ports.iter().map(|port| Taken::Destination(host, *port)));
            }
            places
        }
        Entry::Sidecar(sidecar) => {
            sidecar.inbound.iter().map(|inbound| Taken::Served(inbound.port)).collect()
        }
    }
}

/// Whether one workload may get both.
fn overlap(a: &Entry, b: &Entry) -> bool {
    a.audience().iter().any(|a| b.audience().iter().any(|b| meet(a, b)))
}

/// Whether one ID matches both patterns.
fn meet(a: &IdPattern, b: &IdPattern) -> bool {
    let (mut a, mut b) = (a.as_str().split('/').skip(2), b.as_str().split('/').skip(2));
    loop {
        match (a.next(), b.next()) {
            (Some("**"), _) | (_, Some("**")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => return false,
        }
    }
}
