use super::*;
use crate::fixtures::{Authority, entry, serving};
use crate::policies::tests::held;
use crate::selector::Selector;

#[test]
fn a_process_is_handed_what_may_concern_one_of_its_identities() {
    let contents = packed(&["uid:1"], &[]);
    let both = packed(&["uid:1", "uid:2"], &[]);

    assert_eq!(names(&contents), ["a.yaml", "keys.json", "mesh.yaml"]);
    assert_eq!(names(&both), ["a.yaml", "b.yaml", "keys.json", "mesh.yaml"]);
    assert_eq!(both.workloads.len(), 2);
}

#[test]
fn namespace_and_labels_come_from_the_selectors() {
    let contents =
        packed(&["uid:1"], &["ns:shop", "pod-label:app:web", "pod-label:empty:", "pod-label:a:b:c"]);

    let workload = &contents.workloads[0];
    assert_eq!((workload.id.as_str(), workload.namespace.as_str()), ("spiffe://prod.test/a", "shop"));
    let labels: Vec<_> = workload.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("a", "b:c"), ("app", "web"), ("empty", "")]);
}

#[test]
fn nobody_without_an_identity_is_handed_anything() {
    assert!(pack(&Policies::Unknown, &["uid:9"], &[]).is_none());
    assert!(pack(&set(), &["uid:9"], &[]).is_none());
    assert!(pack(&Policies::None, &[], &[]).is_none());
}

#[test]
fn not_to_know_is_something_else_than_to_know_of_none() {
    let waiting = pack(&Policies::Unknown, &["uid:1"], &[]).unwrap();
    let none = pack(&Policies::None, &["uid:1"], &[]).unwrap();

    assert!(matches!((&waiting, &none), (Parcel::Waiting, Parcel::None)));
    assert!(!waiting.says_the_same_as(&none));
}

#[test]
fn another_set_and_another_identity_are_news_and_the_same_is_not() {
    let set = set();
    let one = pack(&set, &["uid:1"], &[]).unwrap();

    assert!(one.says_the_same_as(&pack(&set, &["uid:1"], &[]).unwrap()));
    assert!(!one.says_the_same_as(&pack(&set, &["uid:1", "uid:2"], &[]).unwrap()));
    assert!(!one.says_the_same_as(&pack(&set, &["uid:1"], &["ns:shop"]).unwrap()));
    assert!(!one.says_the_same_as(&pack(&self::set(), &["uid:1"], &[]).unwrap()));
}

fn packed(unix: &[&str], kubernetes: &[&str]) -> Contents {
    match pack(&set(), unix, kubernetes) {
        Some(Parcel::Set(contents)) => contents,
        Some(Parcel::Waiting | Parcel::None) | None => panic!("no set"),
    }
}

fn pack(policies: &Policies, unix: &[&str], kubernetes: &[&str]) -> Option<Parcel> {
    let state =
        serving(&Authority::new("root"), vec![entry("a", "/a", &["uid:1"]), entry("b", "/b", &["uid:2"])]);
    let unix = unix.iter().map(|value| Selector::new("unix", *value).unwrap());
    let seen = unix.chain(kubernetes.iter().map(|value| Selector::new("k8s", *value).unwrap())).collect();
    Parcel::outline(&state, policies, &seen, SystemTime::now()).map(Parcel::packed)
}

fn set() -> Policies {
    let files = [
        ("a.yaml", "vouchsafe: policy/v1\nname: a\nprotects: spiffe://prod.test/a\n"),
        ("b.yaml", "vouchsafe: policy/v1\nname: b\nprotects: spiffe://prod.test/b\n"),
        ("keys.json", "{\"keys\": []}"),
        ("mesh.yaml", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"),
    ];
    Policies::Set(Arc::new(held(&Authority::new("root"), 1, &files)))
}

fn names(contents: &Contents) -> Vec<&str> {
    contents.files.iter().map(|at| contents.set.files[*at].source.name.as_str()).collect()
}
