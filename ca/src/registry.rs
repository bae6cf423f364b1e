//! The registry in memory: every entry and agent, indexed, and who may see which.
//!
//! Only committed changes arrive here, in the order of their commits, from the store's writer
//! thread; everything else reads. What an agent may hand out follows SPIRE: entries below the
//! agent, below the aliases its node selectors give it, and below those entries in turn.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use identity::SpiffeId;

use crate::model::{Change, Entry, EntryId, Node, Selector, Standing};

mod filter;
mod shared;

pub use filter::{EntryFilter, Match, NodeFilter};
pub use shared::{SharedRegistry, Subscription};

/// All entries and agents. One writer; see [`SharedRegistry`].
#[derive(Debug, Default)]
pub struct Registry {
    entries: BTreeMap<EntryId, Arc<Entry>>,
    by_parent: HashMap<SpiffeId, BTreeSet<EntryId>>,
    by_spiffe_id: HashMap<SpiffeId, BTreeSet<EntryId>>,
    /// Alias entries under their first selector: an agent without it cannot have the alias.
    aliases: HashMap<Selector, BTreeSet<EntryId>>,
    nodes: BTreeMap<SpiffeId, Arc<Node>>,
    /// Agents under each of their node selectors.
    nodes_by_selector: HashMap<Selector, BTreeSet<SpiffeId>>,
}

impl Registry {
    /// Takes over one change; returns the agents whose authorised entries or standing it touches.
    pub fn apply(&mut self, change: Change) -> HashSet<SpiffeId> {
        match change {
            Change::EntryPut(entry) => self.put_entry(entry),
            Change::EntryGone(id) => self.remove_entry(&id),
            Change::NodePut(node) => self.put_node(node),
            Change::NodeGone(id) => self.remove_node(&id),
        }
    }

    /// The entry of that name.
    pub fn entry(&self, id: &EntryId) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// The agent of that identity.
    pub fn node(&self, id: &SpiffeId) -> Option<&Arc<Node>> {
        self.nodes.get(id)
    }

    /// How many entries there are.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// How many agents there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Every agent that is not shut out.
    pub fn active_agents(&self) -> Vec<SpiffeId> {
        let active = self.nodes.values().filter(|node| node.standing == Standing::Active);
        active.map(|node| node.id.clone()).collect()
    }

    /// Entries that `filter` accepts, in the order of their names, after `after`.
    pub fn entries(&self, filter: &EntryFilter, after: Option<&EntryId>, limit: usize) -> Vec<Arc<Entry>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let matching = |entry: &&Arc<Entry>| filter.accepts(&entry.spec);
        match self.narrowest(filter) {
            Some(ids) => ids
                .range::<EntryId, _>((start, Bound::Unbounded))
                .filter_map(|id| self.entries.get(id))
                .filter(matching)
                .take(limit)
                .cloned()
                .collect(),
            None => self
                .entries
                .range::<EntryId, _>((start, Bound::Unbounded))
                .map(|(_, entry)| entry)
                .filter(matching)
                .take(limit)
                .cloned()
                .collect(),
        }
    }

    /// Agents that `filter` accepts, in the order of their identities, after `after`.
    pub fn nodes(&self, filter: &NodeFilter, after: Option<&SpiffeId>, limit: usize) -> Vec<Arc<Node>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.nodes
            .range::<SpiffeId, _>((start, Bound::Unbounded))
            .map(|(_, node)| node)
            .filter(|node| filter.accepts(node))
            .take(limit)
            .cloned()
            .collect()
    }

    /// Whether an entry flagged `admin` names `id` at `now`, in Unix seconds.
    pub fn is_admin(&self, id: &SpiffeId, now: i64) -> bool {
        self.named(id).any(|entry| entry.spec.admin && !entry.spec.has_ended(now))
    }

    /// Everything `agent` may hand out, by entry name. Cost follows the size of the answer.
    pub fn authorised(&self, agent: &SpiffeId) -> BTreeMap<EntryId, Arc<Entry>> {
        let mut found = BTreeMap::new();
        let mut parents = vec![agent.clone()];
        let mut seen: HashSet<SpiffeId> = HashSet::from([agent.clone()]);
        for alias in self.aliases_of(agent) {
            found.insert(alias.id.clone(), alias.clone());
            if seen.insert(alias.spec.spiffe_id.clone()) {
                parents.push(alias.spec.spiffe_id.clone());
            }
        }
        while let Some(parent) = parents.pop() {
            for entry in self.children(&parent) {
                found.insert(entry.id.clone(), entry.clone());
                if seen.insert(entry.spec.spiffe_id.clone()) {
                    parents.push(entry.spec.spiffe_id.clone());
                }
            }
        }
        found
    }

    /// The entry, if `agent` may hand it out. Cost follows the number of its ancestors.
    pub fn authorised_entry(&self, agent: &SpiffeId, id: &EntryId) -> Option<Arc<Entry>> {
        let entry = self.entries.get(id)?;
        let above = self.ancestors(entry);
        let below_agent = above.ids.contains(agent);
        let aliased = || above.aliases.iter().any(|alias| self.has_alias(agent, alias));
        (below_agent || aliased()).then(|| entry.clone())
    }

    fn put_entry(&mut self, entry: Arc<Entry>) -> HashSet<SpiffeId> {
        let mut touched = self.remove_entry(&entry.id);
        self.by_parent.entry(entry.spec.parent_id.clone()).or_default().insert(entry.id.clone());
        self.by_spiffe_id.entry(entry.spec.spiffe_id.clone()).or_default().insert(entry.id.clone());
        if let Some(first) = alias_selector(&entry) {
            self.aliases.entry(first.clone()).or_default().insert(entry.id.clone());
        }
        self.entries.insert(entry.id.clone(), entry.clone());
        touched.extend(self.agents_above(&entry));
        touched
    }

    fn remove_entry(&mut self, id: &EntryId) -> HashSet<SpiffeId> {
        let Some(entry) = self.entries.get(id).cloned() else { return HashSet::new() };
        let touched = self.agents_above(&entry);
        forget(&mut self.by_parent, &entry.spec.parent_id, id);
        forget(&mut self.by_spiffe_id, &entry.spec.spiffe_id, id);
        if let Some(first) = alias_selector(&entry) {
            forget(&mut self.aliases, first, id);
        }
        self.entries.remove(id);
        touched
    }

    fn put_node(&mut self, node: Arc<Node>) -> HashSet<SpiffeId> {
        self.remove_node(&node.id);
        for selector in &node.selectors {
            self.nodes_by_selector.entry(selector.clone()).or_default().insert(node.id.clone());
        }
        let touched = HashSet::from([node.id.clone()]);
        self.nodes.insert(node.id.clone(), node);
        touched
    }

    fn remove_node(&mut self, id: &SpiffeId) -> HashSet<SpiffeId> {
        let Some(node) = self.nodes.remove(id) else { return HashSet::new() };
        for selector in &node.selectors {
            forget(&mut self.nodes_by_selector, selector, id);
        }
        HashSet::from([id.clone()])
    }

    fn children(&self, parent: &SpiffeId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_parent.get(parent).into_iter().flatten().filter_map(|id| self.entries.get(id))
    }

    fn named(&self, spiffe_id: &SpiffeId) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_spiffe_id.get(spiffe_id).into_iter().flatten().filter_map(|id| self.entries.get(id))
    }

    fn narrowest(&self, filter: &EntryFilter) -> Option<&BTreeSet<EntryId>> {
        let sets = [
            filter.spiffe_id.as_ref().map(|id| self.by_spiffe_id.get(id).unwrap_or(&NOTHING)),
            filter.parent_id.as_ref().map(|id| self.by_parent.get(id).unwrap_or(&NOTHING)),
        ];
        sets.into_iter().flatten().min_by_key(|set| set.len())
    }

    fn aliases_of(&self, agent: &SpiffeId) -> impl Iterator<Item = &Arc<Entry>> {
        let selectors = self.nodes.get(agent).map_or(&[][..], |node| &node.selectors);
        selectors
            .iter()
            .filter_map(|selector| self.aliases.get(selector))
            .flatten()
            .filter_map(|id| self.entries.get(id))
            .filter(|alias| subset(&alias.spec.selectors, selectors))
    }

    fn has_alias(&self, agent: &SpiffeId, alias: &Entry) -> bool {
        self.nodes.get(agent).is_some_and(|node| subset(&alias.spec.selectors, &node.selectors))
    }

    /// Agents that may hand out `entry`: all their watchers must hear of its change.
    fn agents_above(&self, entry: &Arc<Entry>) -> HashSet<SpiffeId> {
        let above = self.ancestors(entry);
        let aliased = above.aliases.iter().flat_map(|alias| self.agents_with(&alias.spec.selectors));
        let mut agents: HashSet<SpiffeId> = aliased.collect();
        agents.extend(above.ids.into_iter().filter(|id| self.nodes.contains_key(id)));
        agents
    }

    fn agents_with(&self, selectors: &[Selector]) -> impl Iterator<Item = SpiffeId> {
        let sets = selectors.iter().map(|selector| self.nodes_by_selector.get(selector));
        let fewest = sets.min_by_key(|set| set.map_or(0, BTreeSet::len)).flatten();
        fewest
            .into_iter()
            .flatten()
            .filter(|id| self.nodes.get(*id).is_some_and(|node| subset(selectors, &node.selectors)))
            .cloned()
    }

    fn ancestors(&self, entry: &Arc<Entry>) -> Ancestors {
        let mut above = Ancestors::default();
        let mut open = vec![entry.clone()];
        while let Some(entry) = open.pop() {
            if entry.spec.is_alias() {
                above.aliases.push(entry);
            } else if above.ids.insert(entry.spec.parent_id.clone()) {
                open.extend(self.named(&entry.spec.parent_id).cloned());
            }
        }
        above
    }
}

#[derive(Default)]
struct Ancestors {
    ids: HashSet<SpiffeId>,
    aliases: Vec<Arc<Entry>>,
}

/// Whether every selector of `part` is in `whole`; both sorted.
pub(crate) fn subset(part: &[Selector], whole: &[Selector]) -> bool {
    part.iter().all(|selector| whole.binary_search(selector).is_ok())
}

fn alias_selector(entry: &Entry) -> Option<&Selector> {
    entry.spec.selectors.first().filter(|_| entry.spec.is_alias())
}

fn forget<K: std::hash::Hash + Eq, V: Ord>(index: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = index.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            index.remove(key);
        }
    }
}

static NOTHING: BTreeSet<EntryId> = BTreeSet::new();

#[cfg(test)]
mod tests;
