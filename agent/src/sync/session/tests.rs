use super::*;
use crate::fixtures::wire_entry;

fn delta(changed: &[(&str, &str)], removed: &[&str]) -> AuthorizedEntries {
    AuthorizedEntries {
        complete: false,
        changed: changed.iter().map(|(id, path)| wire_entry(id, path, &["uid:1"])).collect(),
        removed: removed.iter().map(|id| (*id).to_owned()).collect(),
        bundle: None,
    }
}

fn merged(updates: Vec<AuthorizedEntries>) -> AuthorizedEntries {
    let mut updates = updates.into_iter();
    let mut first = updates.next().unwrap();
    updates.for_each(|later| merge(&mut first, later));
    first
}

fn bundle(sequence_number: u64) -> proto::spire::api::types::Bundle {
    proto::spire::api::types::Bundle { sequence_number, ..Default::default() }
}

#[test]
fn the_later_change_of_an_entry_counts() {
    let sum = merged(vec![delta(&[("a", "/old"), ("b", "/b")], &[]), delta(&[("a", "/new")], &[])]);

    let paths: Vec<_> =
        sum.changed.iter().map(|entry| entry.spiffe_id.as_ref().unwrap().path.as_str()).collect();
    assert_eq!(paths, ["/b", "/new"]);
}

#[test]
fn an_entry_that_came_and_went_is_removed() {
    let sum = merged(vec![delta(&[("a", "/a")], &[]), delta(&[], &["a"])]);

    assert!(sum.changed.is_empty());
    assert_eq!(sum.removed, ["a"]);
}

#[test]
fn an_entry_that_went_and_came_is_there() {
    let sum = merged(vec![delta(&[], &["a"]), delta(&[("a", "/a")], &[])]);

    assert_eq!(sum.changed.len(), 1);
    assert!(sum.removed.is_empty());
}

#[test]
fn a_complete_list_replaces_what_came_before_and_takes_what_comes_after() {
    let complete = AuthorizedEntries { complete: true, ..delta(&[("b", "/b")], &[]) };

    let sum = merged(vec![delta(&[("a", "/a")], &["x"]), complete, delta(&[("c", "/c")], &["b"])]);

    assert!(sum.complete);
    assert_eq!(sum.changed.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["c"]);
    assert_eq!(sum.removed, ["b"]);
}

#[test]
fn the_last_bundle_counts_and_none_is_lost() {
    let with =
        |sequence| AuthorizedEntries { bundle: Some(bundle(sequence)), ..AuthorizedEntries::default() };

    let sum = merged(vec![with(1), with(2), delta(&[], &[])]);
    let kept = merged(vec![with(3), AuthorizedEntries { complete: true, ..AuthorizedEntries::default() }]);

    assert_eq!(sum.bundle, Some(bundle(2)));
    assert_eq!(kept.bundle, Some(bundle(3)));
}
