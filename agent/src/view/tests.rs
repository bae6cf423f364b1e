use std::time::Duration;

use super::*;
use crate::entry::Entries;
use crate::fixtures::{Authority, HOUR, entry, selectors, serving};
use crate::state::Held;

fn granted(state: &State, seen: &SelectorSet) -> View {
    match decide(state, seen, SystemTime::now()) {
        Verdict::Granted(view) => view,
        Verdict::NotReady(_) => panic!("not ready"),
        Verdict::NoIdentity => panic!("no identity"),
    }
}

fn replace(state: &mut State, entries: Vec<Entry>) {
    state.entries = entries.into_iter().map(Arc::new).collect::<Entries>();
}

#[test]
fn an_agent_that_starts_or_stops_is_not_ready_rather_than_refusing() {
    let mut state = serving(&Authority::new("root"), Vec::new());
    for phase in [Phase::Starting, Phase::Stopping] {
        state.phase = phase;

        assert!(
            matches!(decide(&state, &selectors(&["uid:1"]), SystemTime::now()), Verdict::NotReady(found) if found == phase)
        );
    }
}

#[test]
fn no_matching_entry_is_no_identity() {
    let state = serving(&Authority::new("root"), vec![entry("a", "/a", &["uid:2"])]);

    assert!(matches!(decide(&state, &selectors(&["uid:1"]), SystemTime::now()), Verdict::NoIdentity));
}

#[test]
fn hints_are_unique_and_the_oldest_entry_keeps_its_own() {
    let mut entries = vec![
        entry("a", "/a", &["uid:1"]),
        entry("b", "/b", &["uid:1"]),
        entry("c", "/c", &["uid:1"]),
        entry("d", "/d", &["uid:1"]),
    ];
    for (entry, (hint, created)) in entries.iter_mut().zip([("x", 2), ("x", 1), ("", 3), ("y", 4)]) {
        entry.hint = hint.to_owned();
        entry.created_at = created;
    }
    let state = serving(&Authority::new("root"), entries);

    let view = granted(&state, &selectors(&["uid:1"]));

    let told: Vec<_> =
        view.identities.iter().map(|identity| (identity.svid.id().path(), identity.hint.as_str())).collect();
    assert_eq!(told, [("/b", "x"), ("/a", ""), ("/c", ""), ("/d", "y")]);
}

#[test]
fn a_hint_is_not_freed_by_an_svid_that_is_still_to_come() {
    let mut entries = vec![entry("a", "/a", &["uid:1"]), entry("b", "/b", &["uid:1"])];
    entries.iter_mut().for_each(|entry| entry.hint = "x".to_owned());
    let mut state = serving(&Authority::new("root"), entries);
    state.svids.remove("a");

    let view = granted(&state, &selectors(&["uid:1"]));

    assert_eq!((view.identities.len(), view.pending, view.identities[0].hint.as_str()), (1, 1, ""));
}

#[test]
fn an_expired_svid_is_left_out_and_counts_as_pending() {
    let authority = Authority::new("root");
    let mut state = serving(&authority, vec![entry("a", "/a", &["uid:1"]), entry("b", "/b", &["uid:1"])]);
    let old = authority.svid_aged("spiffe://prod.test/a", HOUR * 2, HOUR);
    state
        .svids
        .insert("a".to_owned(), Held { svid: Arc::new(old), renew_at: SystemTime::now(), revision: 0 });

    let view = granted(&state, &selectors(&["uid:1"]));

    assert_eq!((view.identities.len(), view.pending), (1, 1));
    assert_eq!(view.identities[0].svid.id().path(), "/b");
}

#[test]
fn the_view_expires_with_what_ends_first() {
    let authority = Authority::new("root");
    let mut short = entry("b", "/b", &["uid:1"]);
    let end = SystemTime::now() + Duration::from_secs(60);
    short.expires = Expiry::At(end);
    let state = serving(&authority, vec![entry("a", "/a", &["uid:1"]), short]);

    assert_eq!(granted(&state, &selectors(&["uid:1"])).expires, Some(end));
}

#[test]
fn only_bundles_that_the_entries_federate_with_are_given() {
    let mut state = serving(&Authority::new("root"), vec![entry("plain", "/p", &["uid:2"])]);
    let mut federated = entry("fed", "/f", &["uid:1"]);
    federated.federates_with =
        vec![TrustDomain::parse("other.test").unwrap(), TrustDomain::parse("unknown.test").unwrap()];
    let mut entries: Vec<_> = state.entries.iter().map(|entry| (**entry).clone()).collect();
    entries.push(federated);
    replace(&mut state, entries);
    for name in ["other.test", "third.test"] {
        let foreign = Authority::new(name);
        state.bundles.insert(TrustBundle::new(TrustDomain::parse(name).unwrap(), vec![foreign.der]).unwrap());
    }

    let federated = granted(&state, &selectors(&["uid:1"])).federated;
    let plain = granted(&state, &selectors(&["uid:2"])).federated;

    assert_eq!(federated.keys().map(TrustDomain::as_str).collect::<Vec<_>>(), ["other.test"]);
    assert!(plain.is_empty());
}

#[test]
fn the_same_again_is_no_news_but_a_new_svid_or_bundle_is() {
    let authority = Authority::new("root");
    let mut state = serving(&authority, vec![entry("a", "/a", &["uid:1"])]);
    let before = granted(&state, &selectors(&["uid:1"]));

    state.bundles.insert(authority.bundle(2));
    assert!(
        granted(&state, &selectors(&["uid:1"])).says_the_same_as(&before),
        "a number is no news to a workload"
    );
    let renewed = Held { svid: authority.svid("/a"), renew_at: SystemTime::now(), revision: 0 };
    state.svids.insert("a".to_owned(), renewed);
    assert!(!granted(&state, &selectors(&["uid:1"])).says_the_same_as(&before));
    assert!(granted(&state, &selectors(&["uid:1"])).has_same_bundles(&before));
    state.bundles.insert(Authority::new("next").bundle(3));
    assert!(!granted(&state, &selectors(&["uid:1"])).has_same_bundles(&before));
}
