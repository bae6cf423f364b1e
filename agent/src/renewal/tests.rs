use super::*;
use crate::fixtures::{Authority, entry, serving};

fn ids(plan: &Plan) -> Vec<&str> {
    plan.due.iter().map(|entry| entry.id.as_str()).collect()
}

fn state_of(authority: &Authority, count: usize) -> State {
    serving(authority, (0..count).map(|n| entry(&format!("e{n}"), &format!("/s{n}"), &["uid:1"])).collect())
}

#[test]
fn what_is_fresh_is_left_alone_until_its_time() {
    let state = state_of(&Authority::new("root"), 3);
    let first = state.svids.values().map(|held| held.renew_at).min();

    let plan = plan(&state, &Refusals::default(), SystemTime::now());

    assert_eq!(plan, Plan { due: Vec::new(), next: first });
}

#[test]
fn entries_without_an_svid_come_before_renewals() {
    let mut state = state_of(&Authority::new("root"), 3);
    let now = SystemTime::now();
    state.svids.remove("e2");
    state.svids.get_mut("e0").unwrap().renew_at = now;

    assert_eq!(ids(&plan(&state, &Refusals::default(), now)), ["e2", "e0"]);
}

#[test]
fn a_changed_entry_is_due_at_once() {
    let mut state = state_of(&Authority::new("root"), 1);
    let mut changed = entry("e0", "/s0", &["uid:1"]);
    changed.revision = 1;
    state.entries = [Arc::new(changed)].into_iter().collect();

    assert_eq!(ids(&plan(&state, &Refusals::default(), SystemTime::now())), ["e0"]);
}

#[test]
fn an_svid_for_another_identity_counts_as_none() {
    let mut state = state_of(&Authority::new("root"), 1);
    state.entries = [Arc::new(entry("e0", "/renamed", &["uid:1"]))].into_iter().collect();
    let now = SystemTime::now();

    assert!(state.svid_for(state.entries.get("e0").unwrap(), now).is_none());
    assert_eq!(ids(&plan(&state, &Refusals::default(), now)), ["e0"]);
}

#[test]
fn an_expired_svid_is_due_and_never_handed_out() {
    let mut state = state_of(&Authority::new("root"), 1);
    let later = SystemTime::now() + crate::fixtures::HOUR;
    state.svids.get_mut("e0").unwrap().renew_at = later + crate::fixtures::HOUR;

    assert!(state.svid_for(state.entries.get("e0").unwrap(), later).is_none());
    assert_eq!(ids(&plan(&state, &Refusals::default(), later)), ["e0"]);
}

#[test]
fn an_entry_that_nobody_is_served_gets_no_svid() {
    let mut state = state_of(&Authority::new("root"), 0);
    state.entries = [Arc::new(entry("e0", "/a", &[]))].into_iter().collect();

    assert_eq!(plan(&state, &Refusals::default(), SystemTime::now()), Plan { due: Vec::new(), next: None });
}

#[test]
fn a_batch_is_never_larger_than_the_ca_takes() {
    let mut state = state_of(&Authority::new("root"), 0);
    state.entries = (0..1200).map(|n| Arc::new(entry(&format!("e{n}"), "/a", &["uid:1"]))).collect();

    assert_eq!(plan(&state, &Refusals::default(), SystemTime::now()).due.len(), 500);
    assert_eq!(MAX_BATCH, 500);
}

#[test]
fn a_refused_entry_waits_longer_each_time_until_it_changes() {
    let mut state = state_of(&Authority::new("root"), 1);
    state.svids.clear();
    let now = SystemTime::now();
    let mut refusals = Refusals::default();

    let refused = state.entries.get("e0").unwrap().clone();
    let first = refusals.note(&refused, 1.0, now);
    let second = refusals.note(&refused, 1.0, now);

    assert!(second > first);
    assert_eq!(plan(&state, &refusals, now), Plan { due: Vec::new(), next: Some(now + second) });
    assert_eq!(ids(&plan(&state, &refusals, now + second)), ["e0"]);
    let mut changed = (*refused).clone();
    changed.revision = 1;
    state.entries = [Arc::new(changed)].into_iter().collect();
    assert_eq!(ids(&plan(&state, &refusals, now)), ["e0"]);
}

#[test]
fn a_refused_renewal_does_not_hold_up_others() {
    let mut state = state_of(&Authority::new("root"), 2);
    let now = SystemTime::now();
    for held in state.svids.values_mut() {
        held.renew_at = now;
    }
    let mut refusals = Refusals::default();
    refusals.note(&state.entries.get("e0").unwrap().clone(), 1.0, now);

    assert_eq!(ids(&plan(&state, &refusals, now)), ["e1"]);
}

#[test]
fn refusals_of_entries_that_are_gone_are_forgotten() {
    let mut state = state_of(&Authority::new("root"), 1);
    let mut refusals = Refusals::default();
    refusals.note(&state.entries.get("e0").unwrap().clone(), 1.0, SystemTime::now());

    state.entries = Entries::default();
    refusals.retain(&state.entries);

    assert!(refusals.0.is_empty());
}
