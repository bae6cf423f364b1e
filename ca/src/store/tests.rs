//! What the store promises: durable when acknowledged, spent once, all or nothing.

use identity::{SpiffeId, crypto};

use super::*;
use crate::{
    model::{Entry, EntryId, EntrySpec, JOIN_TOKEN_PATH, Selector, SvidRecord},
    registry::{EntryFilter, SharedRegistry},
    schedule::State,
};

#[tokio::test]
async fn acknowledged_writes_are_in_the_files_of_a_process_that_dies() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.create(&[spec("/web", "unix:uid:1"), spec("/db", "unix:uid:2")]).await;
    ca.token("12345678", 100, None).await.unwrap();

    // What a reader finds after `kill -9`: the files as they are, without anybody having closed them.
    let after = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), after.path().join(file.file_name())).unwrap();
    }
    let again = Opened::at(&after.path().join("ca.db"));

    assert_eq!(again.ids(), ["/db", "/web"]);
    assert!(again.attest("12345678", 1, 50).await.is_ok());
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.db");
    let ca = Opened::at(&path);
    let record = authority("aa", State::Active);
    ca.store.add_authority(record.clone()).await.unwrap();
    ca.token("12345678", 100, Some("/node/a")).await.unwrap();
    ca.attest("12345678", 1, 50).await.unwrap();
    ca.close();

    let again = Opened::at(&path);

    assert_eq!(again.authorities.records, [record]);
    assert_eq!(again.authorities.sequence, 1);
    assert_eq!(again.ids(), ["/node/a"]);
    let agent = agent("12345678");
    assert_eq!(again.registry.read(|r| r.node(&agent).cloned()).unwrap().svid.serial, "s1");
}

#[tokio::test]
async fn of_two_keys_with_one_token_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.token("12345678", 100, None).await.unwrap();

    let attempts: Vec<_> = (0..16).map(|key| ca.attest("12345678", key, 50)).collect();
    let outcomes = futures_util::future::join_all(attempts).await;

    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(AttestError::NoSuchToken))));
}

#[tokio::test]
async fn the_key_that_spent_a_token_may_retry_until_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.token("12345678", 100, None).await.unwrap();

    assert!(ca.attest("12345678", 1, 50).await.is_ok());
    assert!(ca.attest("12345678", 1, 99).await.is_ok());
    assert!(matches!(ca.attest("12345678", 2, 99).await, Err(AttestError::NoSuchToken)));
    assert!(matches!(ca.attest("12345678", 1, 100).await, Err(AttestError::NoSuchToken)));
    assert!(matches!(ca.attest("unknown-token", 1, 50).await, Err(AttestError::NoSuchToken)));
}

#[tokio::test]
async fn a_banned_or_deleted_agent_cannot_come_back_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    for token in ["banned-token", "gone-token"] {
        ca.token(token, 100, None).await.unwrap();
        ca.attest(token, 1, 50).await.unwrap();
    }

    ca.store.ban_node(agent("banned-token")).await.unwrap();
    ca.store.delete_node(agent("gone-token")).await.unwrap();

    assert!(ca.attest("banned-token", 1, 60).await.is_err());
    assert!(ca.attest("gone-token", 1, 60).await.is_err());
    assert!(matches!(ca.token("banned-token", 100, None).await, Err(TokenError::Exists)));
    assert!(ca.token("gone-token", 100, None).await.is_ok());
}

#[tokio::test]
async fn an_unspent_token_stands_nowhere_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.db");
    let ca = Opened::at(&path);
    ca.token("a-secret-token", 100, Some("/node/a")).await.unwrap();
    ca.close();

    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(14).any(|window| window == b"a-secret-token"));
}

#[tokio::test]
async fn renewal_has_two_phases() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.token("12345678", 100, None).await.unwrap();
    ca.attest("12345678", 1, 50).await.unwrap();
    let id = agent("12345678");

    ca.store.renew_node(id.clone(), "s1".into(), svid("s2")).await.unwrap();
    let between = ca.node(&id);
    ca.store.settle_renewal(id.clone(), "s2".into()).await.unwrap();
    ca.store.settle_renewal(id.clone(), "s2".into()).await.unwrap();
    let after = ca.node(&id);

    assert_eq!((between.svid, between.renewed), (svid("s1"), Some(svid("s2"))));
    assert_eq!((after.svid, after.renewed), (svid("s2"), None));
    let stale = ca.store.renew_node(id.clone(), "s1".into(), svid("s3")).await;
    assert!(matches!(stale, Err(NodeError::NotCurrent(_))));
    assert!(matches!(ca.store.settle_renewal(id, "s9".into()).await, Err(NodeError::NotCurrent(_))));
}

#[tokio::test]
async fn the_same_registration_twice_is_told_apart_from_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));

    let outcomes = ca
        .create(&[spec("/web", "unix:uid:1"), spec("/web", "unix:uid:1"), spec("/web", "unix:uid:2")])
        .await;

    let Ok(Created::New(first)) = &outcomes[0] else { panic!("not new") };
    assert!(matches!(&outcomes[1], Ok(Created::Exists(same)) if same.id == first.id));
    assert!(matches!(&outcomes[2], Ok(Created::New(_))));
}

#[tokio::test]
async fn an_update_bumps_the_revision_and_may_not_collide() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.create(&[spec("/web", "unix:uid:1"), spec("/db", "unix:uid:1")]).await;
    let web = ca.entry("/web");

    let hint = EntryPatch { hint: Some("x".into()), ..EntryPatch::default() };
    let same = EntryPatch { spiffe_id: Some(id("/db")), ..EntryPatch::default() };
    let flawed = EntryPatch { selectors: Some(vec![]), ..EntryPatch::default() };
    let missing = (EntryId::parse("missing").unwrap(), EntryPatch::default());
    let patches = vec![(web.id.clone(), hint), (web.id.clone(), same), (web.id.clone(), flawed), missing];
    let outcomes = ca.store.update_entries(patches, domain()).await.unwrap();

    assert_eq!(outcomes[0].as_ref().unwrap().revision, 1);
    assert!(matches!(outcomes[1], Err(WriteError::Similar(_))));
    assert!(matches!(outcomes[2], Err(WriteError::Invalid(_))));
    assert!(matches!(outcomes[3], Err(WriteError::NotFound(_))));
    assert_eq!(ca.entry("/web").spec.hint, "x");
}

#[tokio::test]
async fn files_own_their_entries_and_leave_the_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.create(&[spec("/by-hand", "unix:uid:1")]).await;

    let first =
        ca.store.reconcile_files(vec![spec("/a", "unix:uid:1"), spec("/b", "unix:uid:1")], 5).await.unwrap();
    let mut b = spec("/b", "unix:uid:1");
    b.hint = "new".into();
    let second = ca.store.reconcile_files(vec![b, spec("/c", "unix:uid:1")], 6).await.unwrap();

    assert_eq!(first, Reconciled { created: 2, ..Reconciled::default() });
    assert_eq!(second, Reconciled { created: 1, updated: 1, deleted: 1, unchanged: 0 });
    assert_eq!(ca.ids(), ["/b", "/by-hand", "/c"]);
    let deleted = ca.store.delete_entries(vec![ca.entry("/b").id.clone()]).await.unwrap();
    assert!(matches!(deleted[0], Err(WriteError::OwnedByFiles(_))));
}

#[tokio::test]
async fn entries_of_files_become_hand_made_without_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.store.reconcile_files(vec![spec("/a", "unix:uid:1")], 5).await.unwrap();

    assert_eq!(ca.store.release_files().await.unwrap(), 1);

    let deleted = ca.store.delete_entries(vec![ca.entry("/a").id.clone()]).await.unwrap();
    assert!(deleted[0].is_ok());
    assert_eq!(ca.ids(), [""; 0]);
}

#[tokio::test]
async fn an_evicted_agent_takes_its_alias_along_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.token("12345678", 100, Some("/node/a")).await.unwrap();
    ca.attest("12345678", 1, 50).await.unwrap();
    let mut below = spec("/web", "unix:uid:1");
    below.parent_id = agent("12345678");
    ca.create(&[below]).await;

    ca.store.delete_node(agent("12345678")).await.unwrap();

    assert_eq!(ca.ids(), ["/web"]);
}

#[tokio::test]
async fn files_that_collide_with_a_hand_made_entry_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    ca.create(&[spec("/web", "unix:uid:1")]).await;

    let wanted = vec![spec("/a", "unix:uid:1"), spec("/web", "unix:uid:1")];
    let refused = ca.store.reconcile_files(wanted, 5).await;

    assert!(matches!(refused, Err(ReconcileError::MadeByHand { .. })));
    assert_eq!(ca.ids(), ["/web"]);
}

#[tokio::test]
async fn a_refused_request_leaves_its_neighbours_in_the_same_transaction_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));

    let (a, unknown, b) = ([spec("/a", "unix:uid:1")], agent("nobody-here"), [spec("/b", "unix:uid:1")]);
    let (_, refused, _) = tokio::join!(ca.create(&a), ca.store.ban_node(unknown), ca.create(&b));

    assert!(matches!(refused, Err(NodeError::NotFound(_))));
    assert_eq!(ca.ids(), ["/a", "/b"]);
}

#[tokio::test]
async fn expired_entries_and_tokens_go_and_the_registry_hears() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));
    let mut short = spec("/short", "unix:uid:1");
    short.expires_at = 10;
    ca.create(&[short, spec("/long", "unix:uid:1")]).await;
    ca.token("12345678", 10, None).await.unwrap();

    assert_eq!(ca.store.prune(9).await.unwrap(), 0);
    assert_eq!(ca.store.prune(10).await.unwrap(), 1);

    assert_eq!(ca.ids(), ["/long"]);
    assert!(ca.token("12345678", 20, None).await.is_ok());
}

#[tokio::test]
async fn one_authority_is_active_and_the_bundle_number_grows() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Opened::at(&dir.path().join("ca.db"));

    ca.store.add_authority(authority("aa", State::Active)).await.unwrap();
    ca.store.add_authority(authority("bb", State::Prepared)).await.unwrap();
    let active = ca.store.activate_authority("bb".into()).await.unwrap();
    let pruned = ca.store.remove_authority("aa".into()).await.unwrap();

    let states: Vec<_> = active.records.iter().map(|record| (record.id.as_str(), record.state)).collect();
    assert_eq!(states, [("aa", State::Retired), ("bb", State::Active)]);
    assert_eq!((active.sequence, pruned.sequence, pruned.records.len()), (3, 4, 1));
}

#[tokio::test]
async fn a_write_that_the_database_refuses_is_neither_acknowledged_nor_visible_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.db");
    let ca = Opened::at(&path);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();

    let refused = ca.store.create_entries(vec![(None, spec("/a", "unix:uid:1"))], 1).await;
    assert!(matches!(refused, Err(StoreError::Database(_))));
    assert_eq!(ca.ids(), [""; 0]);

    other.execute_batch("ROLLBACK").unwrap();
    ca.create(&[spec("/b", "unix:uid:1")]).await;
    assert_eq!(ca.ids(), ["/b"]);
}

#[tokio::test]
async fn every_change_is_numbered_without_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.db");
    let ca = Opened::at(&path);
    ca.create(&[spec("/a", "unix:uid:1"), spec("/b", "unix:uid:1"), spec("/a", "unix:uid:1")]).await;
    ca.store.delete_entries(vec![ca.entry("/a").id.clone()]).await.unwrap();
    ca.close();

    let db = Connection::open(&path).unwrap();
    let mut events = db.prepare("SELECT id FROM events ORDER BY id").unwrap();
    let ids: Vec<i64> = events.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn a_file_of_another_trust_domain_a_newer_version_or_nonsense_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.db");
    Opened::at(&path).close();
    let other = TrustDomain::parse("other.test").unwrap();
    assert!(matches!(Store::open(&path, &other, |_| {}), Err(OpenError::TrustDomain { .. })));

    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(&path, &domain(), |_| {}), Err(OpenError::Newer { found: 99, .. })));

    let nonsense = dir.path().join("bad.db");
    std::fs::write(&nonsense, "this is not a database, it is a letter".repeat(100)).unwrap();
    let before = std::fs::read(&nonsense).unwrap();
    let refused = Store::open(&nonsense, &domain(), |_| {}).err().unwrap();
    assert!(refused.to_string().contains("bad.db"), "{refused}");
    assert_eq!(std::fs::read(&nonsense).unwrap(), before);
}

#[test]
fn the_file_is_private() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.db");

    Opened::at(&path).close();

    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

struct Opened {
    store: Store,
    writer: Writer,
    registry: SharedRegistry,
    authorities: Authorities,
}

impl Opened {
    fn at(path: &Path) -> Self {
        let registry = SharedRegistry::default();
        let shared = registry.clone();
        let (store, writer, loaded) =
            Store::open(path, &domain(), move |changes| shared.apply(changes)).unwrap();
        registry.apply(loaded.changes);
        Self { store, writer, registry, authorities: loaded.authorities }
    }

    fn close(self) {
        drop(self.store);
        self.writer.join();
    }

    async fn create(&self, specs: &[EntrySpec]) -> Vec<Result<Created, WriteError>> {
        let entries = specs.iter().map(|spec| (None, spec.clone())).collect();
        self.store.create_entries(entries, 1).await.unwrap()
    }

    async fn token(&self, token: &str, expires_at: i64, alias: Option<&str>) -> Result<(), TokenError> {
        let hash = crypto::sha256(token.as_bytes());
        self.store.create_token(NewToken { hash, expires_at, alias: alias.map(id) }, agent(token)).await
    }

    async fn attest(&self, token: &str, key: u8, now: i64) -> Result<(), AttestError> {
        let attestation = Attestation {
            token: crypto::sha256(token.as_bytes()),
            key: [key; 32],
            agent: agent(token),
            svid: svid("s1"),
            now,
        };
        self.store.attest(attestation).await
    }

    fn node(&self, id: &SpiffeId) -> crate::model::Node {
        self.registry.read(|registry| registry.node(id).unwrap().as_ref().clone())
    }

    fn entry(&self, path: &str) -> Arc<Entry> {
        let filter = EntryFilter { spiffe_id: Some(id(path)), ..EntryFilter::default() };
        self.registry.read(|registry| registry.entries(&filter, None, 1).pop()).unwrap()
    }

    fn ids(&self) -> Vec<String> {
        let all = self.registry.read(|registry| registry.entries(&EntryFilter::default(), None, 100));
        let mut ids: Vec<_> = all.iter().map(|entry| entry.spec.spiffe_id.path().to_owned()).collect();
        ids.sort();
        ids
    }
}

fn authority(id: &str, state: State) -> AuthorityRecord {
    AuthorityRecord { id: id.into(), certificate: vec![1, 2, 3], state, not_before: 1, not_after: 2 }
}

fn spec(path: &str, selector: &str) -> EntrySpec {
    EntrySpec::new(id(path), id("/node/a"), vec![Selector::parse(selector).unwrap()])
}

fn svid(serial: &str) -> SvidRecord {
    SvidRecord { serial: serial.into(), expires_at: 1000 }
}

fn agent(token: &str) -> SpiffeId {
    id(&format!("{JOIN_TOKEN_PATH}{token}"))
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://prod.test{path}")).unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}
