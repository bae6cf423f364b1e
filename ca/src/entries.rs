//! Registration entries as files (`vouchsafe: entries/v1`): text in, specifications out, and what
//! has to change so that the registry says the same.
//!
//! Pure, save for [`directory`]. A file with one flaw yields nothing at all.

use identity::{SpiffeId, TrustDomain};
use policy::strict::{Fields, Node, Problem, Problems, Reader, Source, Span, suggest};

use crate::model::{EntrySpec, Selector, UNIX_KEYS};

pub mod directory;
mod plan;

pub use plan::{Plan, Prune, plan};

/// Reads the entries of one file.
pub fn parse(source: &Source, trust_domain: &TrustDomain) -> Result<Vec<EntrySpec>, Problems> {
    parse_all(std::slice::from_ref(source), trust_domain)
}

/// Reads the entries of several files as one set: an entry that stands twice is a problem, too.
pub fn parse_all(sources: &[Source], trust_domain: &TrustDomain) -> Result<Vec<EntrySpec>, Problems> {
    let mut problems = Problems::default();
    let mut found: Vec<Placed<'_>> = Vec::new();
    for source in sources {
        match parse_one(source, trust_domain) {
            Ok(entries) => found.extend(entries),
            Err(flaws) => problems.extend(flaws),
        }
    }
    found.sort_by(|a, b| a.spec.key().cmp(&b.spec.key()));
    for pair in found.windows(2) {
        if let [first, second] = pair
            && first.spec.key() == second.spec.key()
        {
            problems.push(second.repeats(first));
        }
    }
    if problems.is_empty() {
        Ok(found.into_iter().map(|placed| placed.spec).collect())
    } else {
        Err(problems)
    }
}

struct Placed<'s> {
    spec: EntrySpec,
    source: &'s Source,
    span: Span,
}

impl Placed<'_> {
    fn repeats(&self, first: &Self) -> Problem {
        let place = format!("{}:{}", first.source.name, first.span.start.line);
        let message =
            format!("{} with this parent and these selectors stands at {place} already", self.spec.spiffe_id);
        Problem::at(self.source, self.span, message, Some("remove one of the two".into()))
    }
}

fn parse_one<'s>(source: &'s Source, trust_domain: &TrustDomain) -> Result<Vec<Placed<'s>>, Problems> {
    let (mut read, root) = Reader::open(source);
    let entries = root.as_ref().and_then(|root| {
        let mut map = read.map(root)?;
        map.version(VERSION, &mut read);
        let list = map.required("entries", &mut read).and_then(|node| read.list(node));
        let entries: Vec<_> = list
            .unwrap_or_default()
            .iter()
            .filter_map(|node| entry(node, trust_domain, &mut read).map(|spec| (spec, node.span())))
            .collect();
        map.finish(&mut read);
        Some(entries)
    });
    read.finish()?;
    let placed = |(spec, span)| Placed { spec, source, span };
    Ok(entries.unwrap_or_default().into_iter().map(placed).collect())
}

fn entry(node: &Node, trust_domain: &TrustDomain, read: &mut Reader<'_>) -> Option<EntrySpec> {
    let mut map = read.map(node)?;
    let spiffe_id = map.required("spiffe_id", read).and_then(|node| id(node, read));
    let parent_id = parent(&mut map, trust_domain, read);
    let selectors = map
        .required("selectors", read)
        .and_then(|node| read.each(node, crate::model::MAX_SELECTORS, |read, node| selector(node, read)));
    let rest = options(&mut map, read);
    map.finish(read);
    let mut spec = EntrySpec { ..EntrySpec::new(spiffe_id?, parent_id?, selectors?) };
    rest.write(&mut spec);
    if let Err(flaw) = spec.check(trust_domain) {
        read.problem(node, flaw.to_string(), None);
        return None;
    }
    Some(spec)
}

fn selector(node: &Node, read: &mut Reader<'_>) -> Option<Selector> {
    let text = read.string(node)?;
    let Some(selector) = Selector::parse(text) else {
        let cure = Some("write type:value, like unix:uid:1000");
        read.problem(node, format!("\"{text}\" is not a selector"), cure);
        return None;
    };
    if let Some(key) = selector.unknown_key() {
        let cure = suggest(key, UNIX_KEYS).map_or_else(
            || format!("the keys are {}", UNIX_KEYS.join(", ")),
            |near| format!("did you mean \"unix:{near}:\"?"),
        );
        read.problem(node, format!("no agent makes unix selectors with the key \"{key}\""), Some(&cure));
    }
    Some(selector)
}

fn parent(map: &mut Fields<'_>, trust_domain: &TrustDomain, read: &mut Reader<'_>) -> Option<SpiffeId> {
    match (map.optional("parent_id"), map.optional("node")) {
        (Some(node), None) => id(node, read),
        (None, Some(node)) => {
            let name = read.string(node)?;
            let alias = node_alias(trust_domain, name);
            if alias.is_none() {
                read.problem(node, format!("\"{name}\" cannot be part of a SPIFFE ID"), None);
            }
            alias
        }
        (Some(_), Some(node)) => {
            read.problem(node, "an entry has either parent_id or node", Some("remove one of the two"));
            None
        }
        (None, None) => {
            let cure =
                "give parent_id with a SPIFFE ID, or node with the name a join token was made for".to_owned();
            read.place(map.span(), "the key \"parent_id\" or \"node\" is missing", Some(cure));
            None
        }
    }
}

/// The identity that stands for every agent called `name`: `spiffe://<trust domain>/node/<name>`.
pub fn node_alias(trust_domain: &TrustDomain, name: &str) -> Option<SpiffeId> {
    if name.contains('/') {
        return None;
    }
    SpiffeId::new(trust_domain, &format!("{NODE_PATH}{name}")).ok()
}

fn id(node: &Node, read: &mut Reader<'_>) -> Option<SpiffeId> {
    read.parsed(node, "a SPIFFE ID like spiffe://prod.example/web")
}

/// The keys that may be left out.
#[derive(Default)]
struct Options {
    x509_svid_ttl: i32,
    jwt_svid_ttl: i32,
    dns_names: Vec<String>,
    federates_with: Vec<TrustDomain>,
    hint: String,
    admin: bool,
    downstream: bool,
    store_svid: bool,
    on_demand: bool,
}

impl Options {
    fn write(self, spec: &mut EntrySpec) {
        spec.x509_svid_ttl = self.x509_svid_ttl;
        spec.jwt_svid_ttl = self.jwt_svid_ttl;
        spec.dns_names = self.dns_names;
        spec.federates_with = self.federates_with;
        spec.hint = self.hint;
        spec.admin = self.admin;
        spec.downstream = self.downstream;
        spec.store_svid = self.store_svid;
        spec.on_demand = self.on_demand;
    }
}

fn options(map: &mut Fields<'_>, read: &mut Reader<'_>) -> Options {
    let federates_with = map.optional("federates_with").and_then(|node| {
        read.each(node, crate::model::MAX_FEDERATES_WITH, |read, node| {
            read.parsed(node, "a trust domain like partner.example")
        })
    });
    let dns_names =
        map.optional("dns_names").and_then(|node| read.strings(node, crate::model::MAX_DNS_NAMES));
    Options {
        x509_svid_ttl: ttl(map, "x509_svid_ttl", read),
        jwt_svid_ttl: ttl(map, "jwt_svid_ttl", read),
        dns_names: dns_names.unwrap_or_default().into_iter().map(str::to_owned).collect(),
        federates_with: federates_with.unwrap_or_default(),
        hint: map.optional("hint").and_then(|node| read.string(node)).unwrap_or_default().to_owned(),
        admin: flag(map, "admin", read),
        downstream: flag(map, "downstream", read),
        store_svid: flag(map, "store_svid", read),
        on_demand: flag(map, "on_demand", read),
    }
}

fn ttl(map: &mut Fields<'_>, name: &'static str, read: &mut Reader<'_>) -> i32 {
    let longest = std::time::Duration::from_secs(crate::model::MAX_TTL_SECONDS.unsigned_abs().into());
    let range = crate::config::MIN_SVID_TTL..=longest;
    let ttl = map.optional(name).and_then(|node| read.duration_within(node, range));
    ttl.map_or(0, |ttl| i32::try_from(ttl.as_secs()).unwrap_or(i32::MAX))
}

fn flag(map: &mut Fields<'_>, name: &'static str, read: &mut Reader<'_>) -> bool {
    map.optional(name).and_then(|node| read.boolean(node)).unwrap_or_default()
}

/// The first key of the file.
pub const VERSION: &str = "entries/v1";
/// Where node names live among SPIFFE IDs.
pub const NODE_PATH: &str = "/node/";

#[cfg(test)]
mod tests;
