use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::entry::{Delivery, Expiry};
use crate::fixtures::{entry, selectors};

fn entries(list: Vec<Entry>) -> Entries {
    list.into_iter().map(Arc::new).collect()
}

fn ids(found: &[Arc<Entry>]) -> Vec<&str> {
    found.iter().map(|entry| entry.id.as_str()).collect()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1000)
}

#[test]
fn every_selector_of_an_entry_has_to_be_there() {
    let entries = entries(vec![
        entry("both", "/a", &["uid:1", "path:/x"]),
        entry("one", "/b", &["uid:1"]),
        entry("other", "/c", &["uid:2"]),
    ]);

    assert_eq!(ids(&matches(&entries, &selectors(&["uid:1", "gid:5"]), now())), ["one"]);
    assert_eq!(ids(&matches(&entries, &selectors(&["uid:1", "path:/x"]), now())), ["both", "one"]);
    assert_eq!(ids(&matches(&entries, &selectors(&[]), now())), Vec::<&str>::new());
}

#[test]
fn an_entry_without_selectors_is_nobodys() {
    let entries = entries(vec![entry("all", "/a", &[])]);

    assert!(matches(&entries, &selectors(&["uid:0"]), now()).is_empty());
    assert!(near_misses(&entries, &selectors(&["uid:0"]), Nearness::Any, now()).is_empty());
}

#[test]
fn an_expired_entry_and_one_for_an_external_store_are_nobodys() {
    let mut expired = entry("expired", "/a", &["uid:1"]);
    expired.expires = Expiry::At(now());
    let mut live = entry("live", "/a", &["uid:1"]);
    live.expires = Expiry::At(now() + Duration::from_secs(1));
    let mut stored = entry("stored", "/a", &["uid:1"]);
    stored.delivery = Delivery::ExternalStore;

    assert_eq!(ids(&matches(&entries(vec![expired, live, stored]), &selectors(&["uid:1"]), now())), ["live"]);
}

#[test]
fn the_default_identity_is_the_oldest_entry_whatever_the_ids() {
    let mut old = entry("z", "/old", &["uid:1"]);
    old.created_at = 5;
    let mut new = entry("a", "/new", &["uid:1"]);
    new.created_at = 6;
    let mut twin = entry("b", "/twin", &["uid:1"]);
    twin.created_at = 5;

    assert_eq!(ids(&matches(&entries(vec![new, old, twin]), &selectors(&["uid:1"]), now())), ["b", "z", "a"]);
}

#[test]
fn near_misses_are_ordered_by_what_is_missing() {
    let entries = entries(vec![
        entry("far", "/a", &["uid:1", "path:/x", "gid:9"]),
        entry("near", "/b", &["uid:1", "path:/x"]),
        entry("foreign", "/c", &["uid:7"]),
        entry("match", "/d", &["uid:1"]),
    ]);

    let found = near_misses(&entries, &selectors(&["uid:1"]), Nearness::SharesSelector, now());

    let told: Vec<_> = found
        .iter()
        .map(|miss| {
            (miss.entry.id.as_str(), miss.missing.iter().map(ToString::to_string).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("near", vec!["unix:path:/x".to_owned()]),
            ("far", vec!["unix:gid:9".to_owned(), "unix:path:/x".to_owned()]),
        ]
    );
}

#[test]
fn only_an_administrator_learns_of_entries_that_share_nothing() {
    let entries = entries(vec![entry("foreign", "/c", &["uid:7"])]);

    assert!(near_misses(&entries, &selectors(&["uid:1"]), Nearness::SharesSelector, now()).is_empty());
    assert_eq!(near_misses(&entries, &selectors(&["uid:1"]), Nearness::Any, now()).len(), 1);
}

#[test]
fn near_misses_are_few() {
    let entries = entries((0..50).map(|n| entry(&format!("e{n}"), "/a", &["uid:1", "gid:2"])).collect());

    assert_eq!(near_misses(&entries, &selectors(&["uid:1"]), Nearness::Any, now()).len(), MAX_NEAR_MISSES);
}
