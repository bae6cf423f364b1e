//! What a wish changes and what it cannot, and what of the catalogue survives a restart.

use identity::{
    Anchors, BundleSet, TrustBundle, TrustDomain,
    manifest::{Kind, Manifest},
};

use super::*;
use crate::{
    authority::{
        keys::{KeyStore, Sealing},
        rotation::{Rotation, Settings},
    },
    store::{Loaded, Writer},
};

#[test]
fn a_wish_creates_updates_and_leaves_what_is_as_wished() {
    let present = granted(&[], wish(&[shop("a", 1), shop("b", 2)]));

    let plan = plan(present.clone(), wish(&[shop("a", 1), shop("b", 3), shop("c", 4)]), 20).unwrap();

    assert_eq!(changes(&plan.outcomes), ["a unchanged", "b updated", "c created"]);
    assert_eq!(plan.change.put.len(), 2);
    assert_eq!(plan.entries[1].id, present[1].id, "an entry keeps its name in sets");
    let times: Vec<i64> = plan.entries.iter().map(|entry| entry.changed_at).collect();
    assert_eq!(times, [10, 20, 20]);
}

#[test]
fn only_a_wish_that_prunes_removes_what_it_does_not_name() {
    let present = granted(&[], wish(&[shop("a", 1), shop("b", 2), sidecar("a")]));

    let kept = plan(present.clone(), wish(&[shop("a", 1)]), 20).unwrap();
    let pruned = plan(present, Wish { prune: Prune::Remove, ..wish(&[shop("a", 1)]) }, 20).unwrap();

    assert_eq!((kept.entries.len(), kept.change), (3, CatalogueChange::default()));
    assert_eq!(changes(&pruned.outcomes), ["a unchanged", "b removed", "a removed"]);
    assert_eq!((pruned.entries.len(), pruned.change.gone.len()), (1, 2));
}

#[test]
fn what_is_not_there_cannot_be_removed() {
    let present = granted(&[], wish(&[shop("a", 1)]));
    let remove = vec![(EntryKind::Service, "b".to_owned()), (EntryKind::Sidecar, "a".to_owned())];

    let plan = plan(present, Wish { remove, ..wish(&[]) }, 20).unwrap();

    assert_eq!(plan.conflicts.len(), 2);
    assert!(plan.conflicts[0].reason.contains("no service called \"b\""), "{:?}", plan.conflicts);
}

#[test]
fn the_entry_that_is_new_is_the_one_that_is_in_the_way() {
    // Sorted by name the old one comes last.
    let present = granted(&[], wish(&[shop("z", 1)]));

    let plan = plan(present, wish(&[shop("a", 1)]), 20).unwrap();

    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(plan.conflicts[0].name, "a");
    assert!(plan.conflicts[0].reason.contains("\"z\""), "{:?}", plan.conflicts);
}

#[test]
fn one_wish_names_an_entry_once() {
    let plan = plan(Vec::new(), wish(&[shop("a", 1), shop("a", 2)]), 20).unwrap();

    assert_eq!(plan.conflicts.len(), 1, "{:?}", plan.conflicts);
}

#[tokio::test]
async fn each_change_gets_the_next_number_and_what_changes_nothing_gets_none() {
    let home = Home::start().await;

    let first = home.catalogue.apply(wish(&[shop("a", 1)])).await.unwrap();
    let again = home.catalogue.apply(wish(&[shop("a", 1)])).await.unwrap();
    let asked = home.catalogue.apply(Wish { dry_run: true, ..wish(&[shop("a", 2)]) }).await.unwrap();
    let refused = home.catalogue.apply(wish(&[shop("b", 2), shop("c", 2)])).await.unwrap();
    let second = home.catalogue.apply(wish(&[shop("a", 2)])).await.unwrap();

    let number = |applied: &Applied| applied.set.as_ref().map(|set| set.number);
    assert_eq!([&first, &again, &asked, &refused, &second].map(number), [1, 1, 1, 1, 2].map(Some));
    assert_eq!(changes(&asked.outcomes), ["a updated"]);
    assert!(!refused.conflicts.is_empty());
    assert_eq!(home.manifest().number(), 2);
}

#[tokio::test]
async fn nothing_that_was_applied_is_lost_or_renumbered_by_a_restart() {
    let home = Home::start().await;
    assert!(matches!(&*home.published.borrow(), Published::None), "there never were any services");
    home.catalogue.apply(wish(&[shop("a", 1), sidecar("a")])).await.unwrap();
    let before = home.manifest();

    let home = home.restart().await;
    let after = home.manifest();
    let emptied = home.catalogue.apply(Wish { prune: Prune::Remove, ..wish(&[]) }).await.unwrap();

    assert_eq!((before.seen(), before.files()), (after.seen(), after.files()));
    assert_eq!((emptied.set.unwrap().number, home.manifest().files().len()), (2, 0));
    assert_eq!(home.restart().await.manifest().number(), 2, "an empty catalogue is a set, too");
}

#[tokio::test]
async fn the_names_in_a_set_say_nothing_of_what_is_in_it() {
    let home = Home::start().await;

    home.catalogue.apply(wish(&[shop("secret-project", 1)])).await.unwrap();

    assert!(!String::from_utf8(home.manifest().to_bytes()).unwrap().contains("secret"));
}

#[tokio::test]
async fn what_is_stored_and_cannot_be_read_is_neither_handed_out_nor_changed() {
    let home = Home::start().await;
    home.catalogue.apply(wish(&[shop("a", 1), shop("b", 2)])).await.unwrap();
    let database = home.dir.path().join("ca.db");
    let home = home
        .restart_after(|| {
            let db = rusqlite::Connection::open(database).unwrap();
            db.execute("UPDATE services SET document = 'x' WHERE name = 'a'", []).unwrap();
        })
        .await;

    let applied = home.catalogue.apply(Wish { prune: Prune::Remove, ..wish(&[]) }).await;

    assert!(matches!(&*home.published.borrow(), Published::Pending));
    assert!(matches!(applied, Err(CatalogueError::Broken(_))));
    assert!(matches!(home.catalogue.list().await, Err(CatalogueError::Broken(_))));
}

fn granted(present: &[Stored], wish: Wish) -> Vec<Stored> {
    let plan = plan(present.to_vec(), wish, 10).unwrap();
    assert!(plan.conflicts.is_empty(), "{:?}", plan.conflicts);
    plan.entries
}

fn changes(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(|outcome| format!("{} {}", outcome.name, outcome.change.as_str())).collect()
}

fn wish(entries: &[Entry]) -> Wish {
    Wish { entries: entries.to_vec(), remove: Vec::new(), prune: Prune::Keep, dry_run: false }
}

fn shop(name: &str, port: u16) -> Entry {
    one(&format!(
        "services: [{{name: {name}, hosts: [h], ports: [{port}], protocol: tcp, expect: [spiffe://prod.test/shop]}}]"
    ))
}

fn sidecar(name: &str) -> Entry {
    one(&format!(
        "sidecars: [{{name: {name}, applies_to: [spiffe://prod.test/shop], inbound: [{{port: 1, protocol: tcp}}]}}]"
    ))
}

fn one(text: &str) -> Entry {
    let source = Source::new("a.yaml", format!("vouchsafe: services/v1\n{text}\n"));
    policy::service::parse(&[source], &domain()).unwrap().remove(0)
}

fn domain() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}

/// A catalogue with everything that it needs, on a disk of its own.
struct Home {
    dir: tempfile::TempDir,
    catalogue: Catalogue,
    published: watch::Receiver<Published>,
    bundle: Arc<TrustBundle>,
    writer: Writer,
}

impl Home {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Self {
        let keys = || KeyStore::open(dir.path().join("keys"), Sealing::Plain).unwrap();
        let (store, writer, Loaded { authorities, services, .. }) =
            Store::open(&dir.path().join("ca.db"), &domain(), |_| {}).unwrap();
        let settings = Settings {
            trust_domain: domain(),
            server_id: crate::model::server_id(&domain()).unwrap(),
            ca_ttl: LIFE,
            server_ttl: LIFE / 6,
            refresh_hint: LIFE / 10,
        };
        let (_, signing) =
            Rotation::start(store.clone(), keys(), settings, authorities, SystemTime::now()).await.unwrap();
        let signer = Signer::open(&keys(), domain(), LIFE).unwrap().of(Kind::Services);
        let bundle = signing.borrow().bundle.clone();
        let (catalogue, published) = Catalogue::start(signer, store, signing, services);
        Self { dir, catalogue, published, bundle, writer }
    }

    async fn restart(self) -> Self {
        self.restart_after(|| ()).await
    }

    /// Changes something on the disk between the runs.
    async fn restart_after(self, between: impl FnOnce()) -> Self {
        drop((self.catalogue, self.published));
        tokio::task::spawn_blocking(|| self.writer.join()).await.unwrap();
        between();
        Self::start_in(self.dir).await
    }

    /// What agents are handed, verified as they do.
    fn manifest(&self) -> Manifest {
        let published = self.published.borrow();
        let Published::Set(set) = &*published else { panic!("nothing is published") };
        let anchors = Anchors::new(&BundleSet::from_iter([self.bundle.as_ref().clone()]));
        set.signed.verify(&anchors, &domain(), Kind::Services.audience(), SystemTime::now()).unwrap()
    }
}

const LIFE: std::time::Duration = std::time::Duration::from_secs(3600);
