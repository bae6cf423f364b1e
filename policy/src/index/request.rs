//! What a request adds: kind, method, host, path.

use std::collections::HashMap;
use std::sync::Arc;

use super::hashing::ShortHash;
use super::row::{Row, Rows};
use super::trie::Trie;
use crate::access::{Request, RequestKind};
use crate::document::{Effect, HttpLimits, Kinds, Layer, Limit, Rule};
use crate::pattern::{HostKind, HostPattern, PathPattern, parent_of, without_root};

/// Rules by the dimensions of a request.
#[derive(Debug)]
pub(crate) struct RequestIndex {
    method_any: Row,
    methods: HashMap<Arc<str>, Row, ShortHash>,
    host_any: Row,
    host_absent: Row,
    hosts: HashMap<Arc<str>, Row, ShortHash>,
    hosts_below: HashMap<Arc<str>, Row, ShortHash>,
    path_any: Row,
    path_absent: Row,
    paths: Trie<Row>,
    has_paths: bool,
    plain: Row,
    connect: Row,
    upgrade: Row,
    every_plain: bool,
}

impl RequestIndex {
    pub(super) fn build<'r>(rules: impl Iterator<Item = (u32, &'r Rule)>) -> Self {
        let mut build = Builder::default();
        for (number, rule) in rules {
            if let Layer::Http(limits) = &rule.layer {
                build.insert(number, rule.effect, limits);
            }
        }
        build.finish()
    }

    /// Keeps in `out` the rules that match the request.
    pub(super) fn narrow(&self, request: &Request<'_>, from: usize, out: &mut [u64], spare: &mut [u64]) {
        if out.iter().all(|word| *word == 0) {
            return;
        }
        self.narrow_by_kind(request.kind, from, out, spare);
        if !self.methods.is_empty() {
            let mut fitting = Rows::new(from, spare);
            fitting.add(&self.method_any);
            self.methods.get(request.method).into_iter().for_each(|row| fitting.add(row));
            fitting.keep_in(out);
        }
        if !self.hosts.is_empty() || !self.hosts_below.is_empty() {
            let mut fitting = Rows::new(from, spare);
            match request.host {
                Some(host) => {
                    let below = parent_of(host).and_then(|parent| self.hosts_below.get(parent));
                    let rows = [Some(&self.host_any), self.hosts.get(host.as_str()), below];
                    rows.into_iter().flatten().for_each(|row| fitting.add(row));
                }
                None => fitting.add(&self.host_absent),
            }
            fitting.keep_in(out);
        }
        if self.has_paths {
            let mut fitting = Rows::new(from, spare);
            match request.kind {
                RequestKind::Connect { .. } => fitting.add(&self.path_absent),
                RequestKind::Plain | RequestKind::Upgrade { .. } => {
                    fitting.add(&self.path_any);
                    self.paths.visit(without_root(request.path), &mut |row| fitting.add(row));
                }
            }
            fitting.keep_in(out);
        }
    }

    fn narrow_by_kind(&self, kind: RequestKind<'_>, from: usize, out: &mut [u64], spare: &mut [u64]) {
        let fitting = match kind {
            RequestKind::Plain if self.every_plain => return,
            RequestKind::Plain => &self.plain,
            RequestKind::Connect { .. } => &self.connect,
            RequestKind::Upgrade { .. } => &self.upgrade,
        };
        let mut rows = Rows::new(from, spare);
        rows.add(fitting);
        rows.keep_in(out);
    }
}

struct Builder {
    method_any: Vec<u32>,
    methods: HashMap<Arc<str>, Vec<u32>, ShortHash>,
    host_any: Vec<u32>,
    host_absent: Vec<u32>,
    hosts: HashMap<Arc<str>, Vec<u32>, ShortHash>,
    hosts_below: HashMap<Arc<str>, Vec<u32>, ShortHash>,
    path_any: Vec<u32>,
    path_absent: Vec<u32>,
    paths: Trie<Vec<u32>>,
    has_paths: bool,
    plain: Vec<u32>,
    connect: Vec<u32>,
    upgrade: Vec<u32>,
    every_plain: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            method_any: Vec::new(),
            methods: HashMap::default(),
            host_any: Vec::new(),
            host_absent: Vec::new(),
            hosts: HashMap::default(),
            hosts_below: HashMap::default(),
            path_any: Vec::new(),
            path_absent: Vec::new(),
            paths: Trie::new(),
            has_paths: false,
            plain: Vec::new(),
            connect: Vec::new(),
            upgrade: Vec::new(),
            every_plain: true,
        }
    }
}

impl Builder {
    fn insert(&mut self, number: u32, effect: Effect, limits: &HttpLimits) {
        match &limits.methods {
            Limit::Any => self.method_any.push(number),
            Limit::Only(methods) => {
                methods
                    .iter()
                    .for_each(|method| self.methods.entry(Arc::clone(method)).or_default().push(number));
            }
        }
        match &limits.hosts {
            Limit::Any => self.host_any.push(number),
            Limit::Only(hosts) => hosts.iter().for_each(|host| self.host(number, host)),
        }
        // What is absent grants nothing, and escapes no denial. A tunnel has no path (RFC 9112 3.2.3).
        if effect == Effect::Deny || limits.hosts == Limit::Any {
            self.host_absent.push(number);
        }
        if effect == Effect::Deny || limits.paths == Limit::Any {
            self.path_absent.push(number);
        }
        self.kinds(number, &limits.kinds);
        match &limits.paths {
            Limit::Any => self.path_any.push(number),
            Limit::Only(paths) => paths.iter().for_each(|path| self.path(number, path)),
        }
    }

    fn kinds(&mut self, number: u32, kinds: &Kinds) {
        self.every_plain &= matches!(kinds, Kinds::Plain | Kinds::Every);
        match kinds {
            Kinds::Plain => self.plain.push(number),
            Kinds::Connect { .. } => self.connect.push(number),
            Kinds::Upgrade { .. } => self.upgrade.push(number),
            Kinds::Every => {
                for rules in [&mut self.plain, &mut self.connect, &mut self.upgrade] {
                    rules.push(number);
                }
            }
        }
    }

    fn host(&mut self, number: u32, host: &HostPattern) {
        let (map, name) = match host.kind() {
            HostKind::Exact(name) => (&mut self.hosts, name),
            HostKind::Below(parent) => (&mut self.hosts_below, parent),
        };
        map.entry(Arc::clone(name)).or_default().push(number);
    }

    fn path(&mut self, number: u32, path: &PathPattern) {
        if let Some(rules) = self.paths.at(path.segments()) {
            self.has_paths = true;
            rules.push(number);
        }
    }

    fn finish(self) -> RequestIndex {
        let rows = |map: HashMap<Arc<str>, Vec<u32>, ShortHash>| {
            map.into_iter().map(|(key, rules)| (key, Row::new(rules))).collect::<HashMap<_, _, ShortHash>>()
        };
        RequestIndex {
            method_any: Row::new(self.method_any),
            methods: rows(self.methods),
            host_any: Row::new(self.host_any),
            host_absent: Row::new(self.host_absent),
            hosts: rows(self.hosts),
            hosts_below: rows(self.hosts_below),
            path_any: Row::new(self.path_any),
            path_absent: Row::new(self.path_absent),
            paths: self.paths.map(Row::new),
            has_paths: self.has_paths,
            plain: Row::new(self.plain),
            connect: Row::new(self.connect),
            upgrade: Row::new(self.upgrade),
            every_plain: self.every_plain,
        }
    }
}
