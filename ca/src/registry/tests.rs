//! What the index promises.

use super::*;
use crate::model::{EntrySpec, Origin, Standing, SvidRecord};

#[test]
fn an_agent_sees_what_lies_below_it_and_nothing_else() {
    let registry = filled(&[
        entry("1", "/web", "/spire/agent/a", &["unix:uid:1"]),
        entry("2", "/db", "/web", &["unix:uid:2"]),
        entry("3", "/other", "/spire/agent/b", &["unix:uid:3"]),
    ]);

    assert_eq!(ids(&registry, "/spire/agent/a"), ["1", "2"]);
    assert_eq!(ids(&registry, "/spire/agent/b"), ["3"]);
    assert_eq!(ids(&registry, "/spire/agent/c"), [""; 0]);
}

#[test]
fn an_alias_needs_all_its_selectors() {
    let mut registry = filled(&[
        entry("n", "/rack", "/spire/server", &["x:eu", "x:gpu"]),
        entry("w", "/web", "/rack", &["unix:uid:1"]),
    ]);
    put_node(&mut registry, "/spire/agent/a", &["x:eu", "x:gpu", "x:more"]);
    put_node(&mut registry, "/spire/agent/b", &["x:eu"]);

    assert_eq!(ids(&registry, "/spire/agent/a"), ["n", "w"]);
    assert_eq!(ids(&registry, "/spire/agent/b"), [""; 0]);
}

#[test]
fn the_single_look_up_agrees_with_the_whole_set() {
    let mut registry = filled(&[
        entry("n", "/rack", "/spire/server", &["x:eu"]),
        entry("w", "/web", "/rack", &["unix:uid:1"]),
        entry("d", "/db", "/spire/agent/b", &["unix:uid:1"]),
        entry("e", "/deep", "/db", &["unix:uid:1"]),
    ]);
    put_node(&mut registry, "/spire/agent/a", &["x:eu"]);
    put_node(&mut registry, "/spire/agent/b", &[]);

    for agent in ["/spire/agent/a", "/spire/agent/b", "/spire/agent/none"] {
        let all = registry.authorised(&id(agent));
        for entry in ["n", "w", "d", "e", "missing"] {
            let entry = EntryId::parse(entry).unwrap();
            let one = registry.authorised_entry(&id(agent), &entry).is_some();
            assert_eq!(one, all.contains_key(&entry), "{agent} {entry}");
        }
    }
}

#[test]
fn entries_that_are_each_others_parent_end_the_walk() {
    let registry = filled(&[
        entry("1", "/a", "/b", &["x:1"]),
        entry("2", "/b", "/a", &["x:1"]),
        entry("3", "/a", "/spire/agent/a", &["x:1"]),
    ]);

    assert_eq!(ids(&registry, "/spire/agent/a"), ["1", "2", "3"]);
    assert!(registry.authorised_entry(&id("/spire/agent/b"), &EntryId::parse("1").unwrap()).is_none());
}

#[test]
fn a_change_touches_the_agents_that_see_it() {
    let mut registry = filled(&[entry("n", "/rack", "/spire/server", &["x:eu"])]);
    put_node(&mut registry, "/spire/agent/a", &["x:eu"]);
    put_node(&mut registry, "/spire/agent/b", &["x:us"]);

    let touched = registry.apply(put(&entry("w", "/web", "/rack", &["unix:uid:1"])));

    assert_eq!(touched, HashSet::from([id("/spire/agent/a")]));
}

#[test]
fn a_moved_entry_touches_the_old_and_the_new_agent() {
    let mut registry = filled(&[entry("1", "/web", "/spire/agent/a", &["x:1"])]);
    put_node(&mut registry, "/spire/agent/a", &[]);
    put_node(&mut registry, "/spire/agent/b", &[]);

    let touched = registry.apply(put(&entry("1", "/web", "/spire/agent/b", &["x:1"])));

    assert_eq!(touched, HashSet::from([id("/spire/agent/a"), id("/spire/agent/b")]));
    assert_eq!(ids(&registry, "/spire/agent/a"), [""; 0]);
    assert_eq!(ids(&registry, "/spire/agent/b"), ["1"]);
}

#[test]
fn removal_leaves_nothing_behind() {
    let mut registry = filled(&[entry("1", "/web", "/spire/server", &["x:1"])]);
    put_node(&mut registry, "/spire/agent/a", &["x:1"]);

    registry.apply(Change::EntryGone(EntryId::parse("1").unwrap()));
    registry.apply(Change::NodeGone(id("/spire/agent/a")));

    assert_eq!((registry.entry_count(), registry.node_count()), (0, 0));
    assert!(registry.by_parent.is_empty() && registry.by_spiffe_id.is_empty());
    assert!(registry.aliases.is_empty() && registry.nodes_by_selector.is_empty());
}

#[test]
fn a_listing_pages_in_order_and_filters_by_index() {
    let registry = filled(&[
        entry("1", "/web", "/p", &["x:1"]),
        entry("2", "/web", "/q", &["x:1"]),
        entry("3", "/db", "/p", &["x:1"]),
    ]);
    let all = EntryFilter::default();

    let first = registry.entries(&all, None, 2);
    let rest = registry.entries(&all, first.last().map(|entry| &entry.id), 2);

    assert_eq!(names(&first), ["1", "2"]);
    assert_eq!(names(&rest), ["3"]);
    let of_p = EntryFilter { parent_id: Some(id("/p")), ..EntryFilter::default() };
    assert_eq!(names(&registry.entries(&of_p, None, 10)), ["1", "3"]);
    let missing = EntryFilter { spiffe_id: Some(id("/none")), ..EntryFilter::default() };
    assert!(registry.entries(&missing, None, 10).is_empty());
}

#[test]
fn only_an_admin_entry_makes_an_admin() {
    let mut admin = entry("1", "/ops", "/p", &["x:1"]);
    admin.spec.admin = true;
    let registry = filled(&[admin, entry("2", "/web", "/p", &["x:1"])]);

    assert!(registry.is_admin(&id("/ops"), 5));
    assert!(!registry.is_admin(&id("/web"), 5));
}

#[test]
fn an_admin_entry_whose_time_is_over_makes_nobody_an_admin() {
    let mut admin = entry("1", "/ops", "/p", &["x:1"]);
    (admin.spec.admin, admin.spec.expires_at) = (true, 5);
    let registry = filled(&[admin]);

    assert!(registry.is_admin(&id("/ops"), 4));
    assert!(!registry.is_admin(&id("/ops"), 5));
}

#[tokio::test]
async fn a_subscription_hears_only_of_its_own_agent_and_is_forgotten_when_dropped() {
    let shared = SharedRegistry::default();
    shared.apply(vec![node("/spire/agent/a", &[]), node("/spire/agent/b", &[])]);
    let mut a = shared.subscribe(&id("/spire/agent/a"));
    let mut b = shared.subscribe(&id("/spire/agent/b"));

    shared.apply(vec![put(&entry("1", "/web", "/spire/agent/a", &["x:1"]))]);

    a.changed().await;
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(20), b.changed()).await;
    assert!(quiet.is_err());
    assert_eq!(shared.subscribers(), 2);
    drop((a, b));
    assert_eq!(shared.subscribers(), 0);
}

fn filled(entries: &[Entry]) -> Registry {
    let mut registry = Registry::default();
    for entry in entries {
        registry.apply(put(entry));
    }
    registry
}

fn put(entry: &Entry) -> Change {
    Change::EntryPut(Arc::new(entry.clone()))
}

fn put_node(registry: &mut Registry, path: &str, selectors: &[&str]) {
    registry.apply(node(path, selectors));
}

fn node(path: &str, selectors: &[&str]) -> Change {
    Change::NodePut(Arc::new(Node {
        id: id(path),
        attestor: "test".into(),
        svid: SvidRecord { serial: "1".into(), expires_at: 1 },
        renewed: None,
        standing: Standing::Active,
        selectors: parse(selectors),
        version: String::new(),
    }))
}

fn entry(name: &str, path: &str, parent: &str, selectors: &[&str]) -> Entry {
    Entry {
        id: EntryId::parse(name).unwrap(),
        spec: EntrySpec::new(id(path), id(parent), parse(selectors)),
        revision: 0,
        created_at: 0,
        origin: Origin::Api,
    }
}

fn parse(selectors: &[&str]) -> Vec<Selector> {
    let mut parsed: Vec<_> = selectors.iter().map(|text| Selector::parse(text).unwrap()).collect();
    parsed.sort();
    parsed
}

fn ids(registry: &Registry, agent: &str) -> Vec<String> {
    registry.authorised(&id(agent)).keys().map(ToString::to_string).collect()
}

fn names(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| entry.id.as_str()).collect()
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://prod.test{path}")).unwrap()
}
