//! What can be known of a rule before a request is read: the peer, the port, the network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::hashing::ShortHash;
use super::prefixes::{Prefixes, PrefixesBuilder};
use super::row::{Row, Rows};
use super::trie::Trie;
use crate::access::{Connection, PeerIdentity};
use crate::document::{Effect, Limit, Rule};
use crate::pattern::{IdPattern, without_scheme};

/// Rules by the dimensions of a connection.
#[derive(Debug)]
pub(crate) struct ConnectionIndex {
    anyone: Row,
    unauthenticated: Row,
    from: Identities,
    except: Identities,
    port_any: Row,
    ports: Prefixes,
    every_port: bool,
    net_any: Row,
    v4: Prefixes,
    v6: Prefixes,
    every_net: bool,
}

/// Whether rules are left that may match. If there are none, nothing else need be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidates {
    None,
    Some,
}

impl ConnectionIndex {
    pub(super) fn build<'r>(rules: impl Iterator<Item = (u32, &'r Rule)>) -> Self {
        let mut build = Builder::default();
        for (number, rule) in rules {
            build.peers(number, rule);
            build.port(number, rule);
            build.net(number, rule);
        }
        build.finish()
    }

    /// Writes the rules that match the connection to `out`, which is empty; its first word is the word `from` of the whole.
    /// `spare` is as long, and holds nothing that is of use. Answers whether a rule names the peer.
    pub(super) fn narrow(
        &self,
        connection: &Connection<'_>,
        from: usize,
        out: &mut [u64],
        spare: &mut [u64],
    ) -> Candidates {
        let mut named = Candidates::None;
        match connection.peer {
            PeerIdentity::Authenticated(id) => {
                let (name, segments) = (id.as_str(), without_scheme(id));
                let mut add = |row: &Row| {
                    named = Candidates::Some;
                    row.add_to(from, out);
                };
                if !self.anyone.is_empty() {
                    add(&self.anyone);
                }
                self.from.each(name, segments, &mut add);
                if named == Candidates::Some && !self.except.is_empty() {
                    remove(out, spare, |spared| {
                        self.except.each(name, segments, &mut |row| row.add_to(from, spared));
                    });
                }
            }
            PeerIdentity::Unauthenticated if self.unauthenticated.is_empty() => {}
            PeerIdentity::Unauthenticated => {
                named = Candidates::Some;
                self.unauthenticated.add_to(from, out);
            }
        }
        if named == Candidates::None || out.iter().all(|word| *word == 0) {
            return Candidates::None;
        }
        if !self.every_port {
            let mut fitting = Rows::new(from, spare);
            fitting.add(&self.port_any);
            self.ports.each(u128::from(connection.port), &mut |row| fitting.add(row));
            fitting.keep_in(out);
        }
        if !self.every_net {
            let mut fitting = Rows::new(from, spare);
            fitting.add(&self.net_any);
            match connection.source.to_canonical() {
                IpAddr::V4(source) => {
                    self.v4.each(u128::from(u32::from(source)), &mut |row| fitting.add(row));
                }
                IpAddr::V6(source) => self.v6.each(u128::from(source), &mut |row| fitting.add(row)),
            }
            fitting.keep_in(out);
        }
        Candidates::Some
    }
}

fn remove(out: &mut [u64], spare: &mut [u64], fill: impl FnOnce(&mut [u64])) {
    spare.fill(0);
    fill(spare);
    for (word, spared) in out.iter_mut().zip(spare) {
        *word &= !*spared;
    }
}

/// Rules by the identities they name.
#[derive(Debug)]
struct Identities {
    literals: HashMap<Arc<str>, Row, ShortHash>,
    patterns: Trie<Row>,
    has_patterns: bool,
}

impl Identities {
    fn is_empty(&self) -> bool {
        self.literals.is_empty() && !self.has_patterns
    }

    /// Shows the rules that name an identity.
    fn each(&self, name: &str, segments: &str, see: &mut dyn FnMut(&Row)) {
        if let Some(row) = self.literals.get(name) {
            see(row);
        }
        if self.has_patterns {
            self.patterns.visit(segments, &mut |row| see(row));
        }
    }
}

struct IdentitiesBuilder {
    literals: HashMap<Arc<str>, Vec<u32>, ShortHash>,
    patterns: Trie<Vec<u32>>,
    has_patterns: bool,
}

impl Default for IdentitiesBuilder {
    fn default() -> Self {
        Self { literals: HashMap::default(), patterns: Trie::new(), has_patterns: false }
    }
}

impl IdentitiesBuilder {
    fn insert(&mut self, pattern: &IdPattern, rule: u32) {
        if pattern.segments().is_literal() {
            self.literals.entry(pattern.as_str().into()).or_default().push(rule);
        } else if let Some(rules) = self.patterns.at(pattern.segments()) {
            self.has_patterns = true;
            rules.push(rule);
        }
    }

    fn finish(self) -> Identities {
        let literals = self.literals.into_iter().map(|(id, rules)| (id, Row::new(rules))).collect();
        Identities { literals, patterns: self.patterns.map(Row::new), has_patterns: self.has_patterns }
    }
}

#[derive(Default)]
struct Builder {
    anyone: Vec<u32>,
    unauthenticated: Vec<u32>,
    from: IdentitiesBuilder,
    except: IdentitiesBuilder,
    port_any: Vec<u32>,
    ports: PrefixesBuilder,
    every_port: Restriction,
    net_any: Vec<u32>,
    v4: PrefixesBuilder,
    v6: PrefixesBuilder,
    every_net: Restriction,
}

/// Whether any rule restricts a dimension; if none does, it need not be looked at.
#[derive(Default, PartialEq, Eq)]
enum Restriction {
    #[default]
    None,
    Some,
}

impl Builder {
    fn peers(&mut self, number: u32, rule: &Rule) {
        if rule.from.anyone {
            self.anyone.push(number);
        }
        // "anyone" refuses those without an identity too, and grants nothing to them.
        if rule.from.unauthenticated || (rule.from.anyone && rule.effect == Effect::Deny) {
            self.unauthenticated.push(number);
        }
        rule.from.patterns.iter().for_each(|pattern| self.from.insert(pattern, number));
        rule.except.iter().for_each(|pattern| self.except.insert(pattern, number));
    }

    fn port(&mut self, number: u32, rule: &Rule) {
        match &rule.ports {
            Limit::Any => self.port_any.push(number),
            Limit::Only(ranges) => {
                self.every_port = Restriction::Some;
                ranges.iter().for_each(|range| self.ports.insert_ports(range, number));
            }
        }
    }

    fn net(&mut self, number: u32, rule: &Rule) {
        match &rule.source_net {
            Limit::Any => self.net_any.push(number),
            Limit::Only(networks) => {
                self.every_net = Restriction::Some;
                for network in networks {
                    match network.bits() {
                        (true, value, length) => self.v4.insert(32, value, length, number),
                        (false, value, length) => self.v6.insert(128, value, length, number),
                    }
                }
            }
        }
    }

    fn finish(self) -> ConnectionIndex {
        ConnectionIndex {
            anyone: Row::new(self.anyone),
            unauthenticated: Row::new(self.unauthenticated),
            from: self.from.finish(),
            except: self.except.finish(),
            port_any: Row::new(self.port_any),
            ports: self.ports.finish(16),
            every_port: self.every_port == Restriction::None,
            net_any: Row::new(self.net_any),
            v4: self.v4.finish(32),
            v6: self.v6.finish(128),
            every_net: self.every_net == Restriction::None,
        }
    }
}
