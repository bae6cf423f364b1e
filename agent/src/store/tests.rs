use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::SystemTime;

use identity::PrivateKey;

use super::seal_key::SEAL_CREDENTIAL;
use super::*;
use crate::fixtures::{Authority, DOMAIN, HOUR, domain, entry, serving};
use crate::node::Node;
use crate::state::{Held, State};

fn open(home: &tempfile::TempDir) -> Store {
    Store::open(home.path(), None, domain()).unwrap()
}

fn node(authority: &Authority) -> Node {
    let svid = authority.svid("/spire/agent/join_token/x");
    let key = PrivateKey::from_pkcs8_der(svid.key().pkcs8_der()).unwrap();
    Node {
        ca: "ca.test:8081".to_owned(),
        key: Arc::new(key),
        svid: Some(svid),
        token_hash: [9; 32],
        bundle: Some(Arc::new(authority.bundle(3))),
    }
}

fn state(authority: &Authority) -> State {
    serving(authority, vec![entry("a", "/a", &["uid:1", "path:/x"]), entry("b", "/b", &["uid:2"])])
}

fn restored(store: &Store) -> State {
    match store.load_cache() {
        Found::Record(record) => record.state(domain(), 0.0, SystemTime::now()).unwrap(),
        Found::Nothing => panic!("no file"),
        Found::Unusable(error) => panic!("{error}"),
    }
}

#[test]
fn a_node_comes_back_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let node = node(&Authority::new("root"));

    open(&home).save_node(&NodeRecord::of(&node)).unwrap();
    let Found::Record(record) = open(&home).load_node() else { panic!("no record") };
    let back = record.node(&domain()).unwrap();

    assert_eq!(back.key.pkcs8_der(), node.key.pkcs8_der());
    assert_eq!(back.svid.unwrap().serial(), node.svid.unwrap().serial());
    assert_eq!(back.bundle.unwrap().sequence(), Some(3));
    assert_eq!((back.ca.as_str(), back.token_hash), ("ca.test:8081", [9; 32]));
}

#[test]
fn the_key_alone_is_kept_before_there_is_an_svid() {
    let home = tempfile::tempdir().unwrap();
    let pending = Node { svid: None, bundle: None, ..node(&Authority::new("root")) };

    open(&home).save_node(&NodeRecord::of(&pending)).unwrap();
    let Found::Record(record) = open(&home).load_node() else { panic!("no record") };
    let back = record.node(&domain()).unwrap();

    assert!(back.svid.is_none());
    assert_eq!(back.key.pkcs8_der(), pending.key.pkcs8_der());
}

#[test]
fn entries_svids_and_bundles_come_back() {
    let home = tempfile::tempdir().unwrap();
    let state = state(&Authority::new("root"));

    open(&home).save_cache(&CacheRecord::of(&state)).unwrap();
    let back = restored(&open(&home));

    assert_eq!(back.entries, state.entries);
    assert!(back.bundles == state.bundles);
    assert_eq!(back.agent_id, state.agent_id);
    for (id, held) in &state.svids {
        assert_eq!(back.svids[id].svid.serial(), held.svid.serial());
        assert_eq!(back.svids[id].svid.key().pkcs8_der(), held.svid.key().pkcs8_der());
    }
}

#[test]
fn what_expired_meanwhile_does_not_come_back() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new("root");
    let mut state = state(&authority);
    let old = Arc::new(authority.svid_aged(&format!("spiffe://{DOMAIN}/a"), HOUR * 2, HOUR));
    state.svids.insert("a".to_owned(), Held { svid: old, renew_at: SystemTime::now(), revision: 0 });

    open(&home).save_cache(&CacheRecord::of(&state)).unwrap();

    assert_eq!(restored(&open(&home)).svids.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn nothing_is_readable_on_disk_and_only_by_the_owner() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new("root");
    let (node, state) = (node(&authority), state(&authority));

    open(&home).save_node(&NodeRecord::of(&node)).unwrap();
    open(&home).save_cache(&CacheRecord::of(&state)).unwrap();

    for name in ["node.sealed", "cache.sealed", "seal.key"] {
        let path = home.path().join(name);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{name}");
        let bytes = fs::read(&path).unwrap();
        for secret in [node.key.pkcs8_der(), DOMAIN.as_bytes(), b"chain"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{name}");
        }
    }
}

#[test]
fn every_altered_byte_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    store.save_node(&NodeRecord::of(&node(&Authority::new("root")))).unwrap();
    let path = home.path().join("node.sealed");
    let good = fs::read(&path).unwrap();

    for index in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[index] ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(matches!(store.load_node(), Found::Unusable(StoreError::Sealed { .. })), "byte {index}");
    }
    for length in [0, 1, 11, 12, 27, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(store.load_node(), Found::Unusable(StoreError::Sealed { .. })), "length {length}");
    }
    fs::write(&path, good).unwrap();
    assert!(matches!(store.load_node(), Found::Record(_)));
}

#[test]
fn one_file_does_not_open_as_another_nor_for_another_trust_domain_or_key() {
    let home = tempfile::tempdir().unwrap();
    open(&home).save_node(&NodeRecord::of(&node(&Authority::new("root")))).unwrap();

    fs::copy(home.path().join("node.sealed"), home.path().join("cache.sealed")).unwrap();
    assert!(matches!(open(&home).load_cache(), Found::Unusable(StoreError::Sealed { .. })));
    let foreign =
        Store::open(home.path(), None, identity::TrustDomain::parse("other.test").unwrap()).unwrap();
    assert!(matches!(foreign.load_node(), Found::Unusable(StoreError::Sealed { .. })));
    fs::write(home.path().join("seal.key"), [1; 32]).unwrap();
    assert!(matches!(open(&home).load_node(), Found::Unusable(StoreError::Sealed { .. })));
}

#[test]
fn a_node_of_another_trust_domain_is_refused_even_if_it_opens() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new("root");
    let svid =
        Arc::new(authority.svid_aged("spiffe://other.test/spire/agent/x", std::time::Duration::ZERO, HOUR));
    let key = Arc::new(PrivateKey::from_pkcs8_der(svid.key().pkcs8_der()).unwrap());
    let foreign = Node { svid: Some(svid), key, ..node(&authority) };

    open(&home).save_node(&NodeRecord::of(&foreign)).unwrap();
    let Found::Record(record) = open(&home).load_node() else { panic!("no record") };

    assert!(matches!(record.node(&domain()), Err(RecordError::Foreign { .. })));
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let authority = Authority::new("root");
    store.save_cache(&CacheRecord::of(&state(&authority))).unwrap();
    let before = fs::read(home.path().join("cache.sealed")).unwrap();

    fs::create_dir(home.path().join("node.sealed")).unwrap();

    assert!(matches!(store.save_node(&NodeRecord::of(&node(&authority))), Err(StoreError::Write(_))));
    assert!(matches!(store.load_node(), Found::Unusable(StoreError::Read { .. })));
    assert_eq!(fs::read(home.path().join("cache.sealed")).unwrap(), before);
}

#[test]
fn wiping_leaves_no_identity() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    store.save_node(&NodeRecord::of(&node(&Authority::new("root")))).unwrap();

    store.wipe().unwrap();
    store.wipe().unwrap();

    assert!(matches!(store.load_node(), Found::Nothing));
}

#[test]
fn a_sealing_key_that_others_could_read_or_of_a_wrong_length_stops_the_start() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("seal.key");
    drop(open(&home));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let open_to_others = Store::open(home.path(), None, domain());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, [1; 31]).unwrap();
    let short = Store::open(home.path(), None, domain());

    assert!(matches!(open_to_others, Err(SealKeyError::Open { mode: 0o640, .. })));
    assert!(matches!(short, Err(SealKeyError::Length { found: 31, .. })));
}

#[test]
fn a_credential_seals_and_the_key_file_still_opens_what_it_sealed() {
    let (home, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = NodeRecord::of(&node(&Authority::new("root")));
    open(&home).save_node(&node).unwrap();
    fs::write(credentials.path().join(SEAL_CREDENTIAL), [5; 32]).unwrap();
    let with_credential = || Store::open(home.path(), Some(credentials.path()), domain()).unwrap();

    assert!(matches!(with_credential().load_node(), Found::Record(_)));
    with_credential().save_node(&node).unwrap();

    assert!(matches!(with_credential().load_node(), Found::Record(_)));
    assert!(matches!(open(&home).load_node(), Found::Unusable(_)), "the credential sealed it");
    fs::remove_file(home.path().join("seal.key")).unwrap();
    assert!(matches!(with_credential().load_node(), Found::Record(_)));
    assert!(!home.path().join("seal.key").exists(), "with a credential no key file is made");
}

#[test]
fn a_short_credential_is_refused() {
    let (home, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(credentials.path().join(SEAL_CREDENTIAL), "hunter2").unwrap();

    let refused = Store::open(home.path(), Some(credentials.path()), domain());

    assert!(matches!(refused, Err(SealKeyError::ShortCredential { found: 7, .. })));
}
