//! The nodes and edges of the picture: what the rules say, and what a log adds.

use std::collections::{BTreeMap, BTreeSet};

use policy::analyse::{self, Terms};
use policy::{PolicySet, RuleRef, WrittenEffect, WrittenRule};
use serde::Serialize;

use crate::commands::policy::past::{PastCall, Was};

/// Who may talk to whom.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<String>,
    pub(super) edges: Vec<Edge>,
    /// Refused calls between more pairs than are drawn.
    pub(super) left_out: u64,
    pub(super) watched: bool,
    rules: Vec<(WrittenRule, Vec<usize>)>,
    denied: BTreeMap<(String, String), BTreeMap<String, u64>>,
}

/// An arrow of the picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Edge {
    #[serde(skip)]
    pub(super) from: usize,
    #[serde(skip)]
    pub(super) to: usize,
    pub(super) kind: Kind,
    /// The rules that allow it, or the reasons of the refusals.
    pub(super) because: Vec<String>,
    /// The calls on record.
    pub(super) calls: u64,
}

/// What an arrow means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// It is allowed; there is no log to tell more.
    Allowed,
    /// It is allowed, and calls are on record.
    Used,
    /// It is allowed, and no call is on record.
    Unused,
    /// Calls were refused.
    Denied,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Used => "used",
            Self::Unused => "unused",
            Self::Denied => "denied",
        }
    }
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(super) enum GraphError {
    #[error("the rules draw more than {MAX_EDGES} arrows: name fewer files")]
    TooMany,
}

impl Graph {
    /// What the allow rules say, save those that deny rules leave nothing of.
    pub(super) fn of(set: &PolicySet) -> Result<Self, GraphError> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut found: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
        let live = Live::of(set);
        let rules: Vec<WrittenRule> =
            set.written_rules().filter(|rule| rule.effect == WrittenEffect::Allow).collect();
        for (number, rule) in rules.iter().enumerate() {
            for pair in pairs(rule).filter(|(from, _)| live.has(rule, from)) {
                names.insert(pair.0.clone());
                names.insert(pair.1.clone());
                found.entry(pair).or_default().push(number);
                if found.len() > MAX_EDGES {
                    return Err(GraphError::TooMany);
                }
            }
        }
        for policy in set.policies() {
            names.extend(policy.protects().iter().map(ToString::to_string));
        }
        let nodes: Vec<String> = names.into_iter().collect();
        let mut rules: Vec<(WrittenRule, Vec<usize>)> =
            rules.into_iter().map(|rule| (rule, Vec::new())).collect();
        let mut edges = Vec::new();
        for ((from, to), numbers) in found {
            let (Ok(from), Ok(to)) = (nodes.binary_search(&from), nodes.binary_search(&to)) else { continue };
            let mut because = Vec::new();
            for number in numbers {
                if let Some((rule, drawn)) = rules.get_mut(number) {
                    drawn.push(edges.len());
                    because.push(in_words(rule));
                }
            }
            edges.push(Edge { from, to, kind: Kind::Allowed, because, calls: 0 });
        }
        Ok(Self { nodes, edges, left_out: 0, watched: false, rules, denied: BTreeMap::new() })
    }

    /// Takes every allowed arrow for unused, until a call is seen.
    pub(super) fn watch(&mut self) {
        self.watched = true;
        self.edges.iter_mut().for_each(|edge| edge.kind = Kind::Unused);
    }

    /// Takes a past call in.
    pub(super) fn take(&mut self, call: &PastCall) {
        let from = call.from.as_ref().map_or_else(|| UNAUTHENTICATED.to_owned(), ToString::to_string);
        if call.was == Was::Denied {
            let pair = (from, call.to.to_string());
            if self.denied.len() >= MAX_DENIED && !self.denied.contains_key(&pair) {
                self.left_out = self.left_out.saturating_add(call.count);
                return;
            }
            let reason = call.reason.clone().unwrap_or_default();
            let count = self.denied.entry(pair).or_default().entry(reason).or_default();
            *count = count.saturating_add(call.count);
            return;
        }
        for (rule, drawn) in &self.rules {
            if !rule.concerns(call.from.as_ref(), &call.to, call.port) {
                continue;
            }
            for number in drawn {
                let Some(edge) = self.edges.get_mut(*number) else { continue };
                let meant = meant(self.nodes.get(edge.from), call.from.as_ref())
                    && meant(self.nodes.get(edge.to), Some(&call.to));
                if meant {
                    edge.kind = Kind::Used;
                    edge.calls = edge.calls.saturating_add(call.count);
                }
            }
        }
    }

    /// Draws what was refused.
    pub(super) fn settle(&mut self) {
        let denied = std::mem::take(&mut self.denied);
        for ((from, to), reasons) in denied {
            let (from, to) = (self.node(from), self.node(to));
            let calls = reasons.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
            let because = reasons.into_iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
            self.edges.push(Edge { from, to, kind: Kind::Denied, because, calls });
        }
    }

    fn node(&mut self, name: String) -> usize {
        match self.nodes.iter().position(|node| *node == name) {
            Some(number) => number,
            None => {
                self.nodes.push(name);
                self.nodes.len().saturating_sub(1)
            }
        }
    }

    /// The name of a node.
    pub(super) fn name(&self, node: usize) -> &str {
        self.nodes.get(node).map_or("", String::as_str)
    }
}

/// The callers whom deny rules leave a way in, by rule; none where that could not be settled, so that everything is drawn.
struct Live(Option<BTreeMap<RuleRef, BTreeSet<String>>>);

impl Live {
    fn of(set: &PolicySet) -> Self {
        let reach = analyse::reach(set, None, None, Terms::default());
        if !reach.unsettled.is_empty() || reach.left_out > 0 {
            return Self(None);
        }
        let mut live: BTreeMap<RuleRef, BTreeSet<String>> = BTreeMap::new();
        for way in reach.ways {
            if let Some(rule) = way.rule {
                live.entry(rule).or_default().extend(way.from);
            }
        }
        Self(Some(live))
    }

    fn has(&self, rule: &WrittenRule, from: &str) -> bool {
        let Some(live) = &self.0 else { return true };
        // Whom it is for is told by labels, which the analysis does not look at.
        if rule.to.is_empty() {
            return true;
        }
        let keyword = matches!(from, ANYONE | UNAUTHENTICATED);
        live.get(&rule.rule).is_some_and(|callers| keyword || callers.contains(from))
    }
}

fn pairs(rule: &WrittenRule) -> impl Iterator<Item = (String, String)> {
    let mut from: Vec<String> = Vec::new();
    from.extend(rule.anyone.then(|| ANYONE.to_owned()));
    from.extend(rule.unauthenticated.then(|| UNAUTHENTICATED.to_owned()));
    from.extend(rule.from.iter().map(ToString::to_string));
    let to: Vec<String> = if rule.to.is_empty() {
        vec![format!("the workloads of {}", rule.rule.policy)]
    } else {
        rule.to.iter().map(ToString::to_string).collect()
    };
    from.into_iter().flat_map(move |from| to.clone().into_iter().map(move |to| (from.clone(), to)))
}

fn meant(node: Option<&String>, id: Option<&identity::SpiffeId>) -> bool {
    let Some(node) = node else { return false };
    match id {
        Some(id) if node == ANYONE => id.as_str() != ANYONE,
        Some(id) => policy::pattern::IdPattern::parse(node).is_ok_and(|pattern| pattern.matches(id)),
        None => node == UNAUTHENTICATED,
    }
}

fn in_words(rule: &WrittenRule) -> String {
    let ports: Vec<String> = rule
        .ports
        .iter()
        .map(|range| match (range.start(), range.end()) {
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low}-{high}"),
        })
        .collect();
    let ports = if ports.is_empty() { "any port".to_owned() } else { format!("port {}", ports.join(", ")) };
    let what = match &rule.http {
        None => "tcp".to_owned(),
        Some(http) if http.methods.is_empty() => "http".to_owned(),
        Some(http) => http.methods.join(" "),
    };
    let more = if rule.conditional { ", under conditions" } else { "" };
    format!("{}: {what}, {ports}{more}", rule.rule)
}

const ANYONE: &str = "anyone";
const UNAUTHENTICATED: &str = "unauthenticated";

/// Most arrows that rules may draw.
const MAX_EDGES: usize = 20_000;
/// Most pairs of refused calls.
const MAX_DENIED: usize = 1_000;

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use policy::strict::Source;

    use super::*;
    use crate::commands::policy::past::PastAsked;

    #[test]
    fn each_pair_of_caller_and_callee_is_one_arrow() {
        let graph = graph(RULES);

        let drawn: Vec<_> =
            graph.edges.iter().map(|edge| (graph.name(edge.from), graph.name(edge.to))).collect();
        assert_eq!(drawn, [("spiffe://a.test/batch/*", API), ("spiffe://a.test/web", API)]);
        assert_eq!(graph.edges[1].because, ["p/a (p.yaml:5): GET, port 80", "p/b (p.yaml:6): tcp, port 90"]);
    }

    #[test]
    fn a_rule_that_is_denied_whole_draws_nothing() {
        let denied = format!(
            "{RULES}deny:\n  - {{name: stop, from: [spiffe://a.test/batch/*], tcp: {{port: any}}}}\n"
        );

        assert_eq!(graph(&denied).edges.len(), 1);
    }

    #[test]
    fn a_log_tells_used_unused_and_denied_apart() {
        let mut graph = graph(RULES);

        graph.watch();
        graph.take(&call("spiffe://a.test/web", 90, Was::Allowed));
        graph.take(&call("spiffe://a.test/dev", 90, Was::Denied));
        graph.take(&call("spiffe://a.test/dev", 80, Was::Denied));
        graph.settle();

        let kinds: Vec<_> =
            graph.edges.iter().map(|edge| (graph.name(edge.from), edge.kind, edge.calls)).collect();
        assert_eq!(
            kinds,
            [
                ("spiffe://a.test/batch/*", Kind::Unused, 0),
                ("spiffe://a.test/web", Kind::Used, 1),
                ("spiffe://a.test/dev", Kind::Denied, 2),
            ]
        );
    }

    #[test]
    fn pairs_of_refused_calls_are_drawn_to_their_limit() {
        let mut graph = graph(RULES);
        for number in 0..=MAX_DENIED {
            graph.take(&call(&format!("spiffe://a.test/x{number}"), 90, Was::Denied));
        }
        graph.settle();

        assert_eq!(graph.edges.len(), MAX_DENIED + 2);
        assert_eq!(graph.left_out, 1);
    }

    #[test]
    fn more_arrows_than_the_limit_are_refused() {
        let ids = |letter: char, count: usize| {
            (0..count)
                .map(|number| format!("spiffe://a.test/{letter}{number}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let text = format!(
            "vouchsafe: policy/v1\nname: p\nprotects: [{}]\nallow:\n  - {{name: a, from: [{}], tcp: {{port: 1}}}}\n",
            ids('t', 201),
            ids('f', 100)
        );
        let set = policy::compile(&[Source::new("p.yaml", text)]).unwrap();

        assert!(matches!(Graph::of(&set), Err(GraphError::TooMany)));
    }

    pub(in super::super) fn graph(text: &str) -> Graph {
        Graph::of(&policy::compile(&[Source::new("p.yaml", text)]).unwrap()).unwrap()
    }

    fn call(from: &str, port: u16, was: Was) -> PastCall {
        PastCall {
            from: Some(from.parse().unwrap()),
            to: API.parse().unwrap(),
            port,
            source: [10, 0, 0, 1].into(),
            destination: None,
            sni: None,
            time: SystemTime::UNIX_EPOCH,
            was,
            reason: Some("no_allow_matched".to_owned()),
            asked: PastAsked::Connection,
            count: 1,
            alike: true,
            place: String::new(),
        }
    }

    const API: &str = "spiffe://a.test/api";

    pub(in super::super) const RULES: &str = "\
vouchsafe: policy/v1
name: p
protects: spiffe://a.test/api
allow:
  - {name: a, from: [spiffe://a.test/web], http: {port: 80, methods: [GET]}}
  - {name: b, from: [spiffe://a.test/web, spiffe://a.test/batch/*], tcp: {port: 90}}
";
}
