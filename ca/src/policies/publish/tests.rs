//! The publisher over a directory of the test's own, with the test in the place of the loop.

use std::time::Duration;

use identity::{
    Anchors, BundleSet, TrustBundle, TrustDomain,
    manifest::{SIDECARS, SignedManifest},
};

use super::*;
use crate::{
    authority::{
        keys::{KeyStore, Sealing},
        rotation::{Rotation, Settings},
    },
    store::{Loaded, Writer},
};

#[tokio::test]
async fn the_same_content_keeps_its_number_and_other_content_gets_the_next() {
    let mut home = Home::new().await;
    home.write("a.yaml", "a");
    home.look().await.unwrap();
    let first = home.number();

    home.write("b.yaml", "b");
    home.look().await.unwrap();
    let second = home.number();
    home.write("b.yaml", "b");
    home.look().await.unwrap();

    assert_eq!((first, second, home.number()), (1, 2, 2));
}

#[tokio::test]
async fn going_back_to_old_content_is_a_new_set() {
    let mut home = Home::new().await;
    for name in ["a", "b", "a"] {
        home.write("a.yaml", name);
        home.look().await.unwrap();
    }

    assert_eq!(home.number(), 3);
}

#[tokio::test]
async fn what_is_refused_leaves_the_last_good_set_and_no_gap_in_the_numbers() {
    let mut home = Home::new().await;
    home.write("a.yaml", "a");
    home.look().await.unwrap();
    std::fs::write(home.policies().join("b.yaml"), "nonsense").unwrap();

    let refused = home.look().await.unwrap_err();
    let still = home.look().await.unwrap_err();
    let kept = home.number();
    home.write("b.yaml", "b");
    home.look().await.unwrap();

    assert!(refused.to_string().contains("b.yaml"));
    assert_eq!(refused.to_string(), still.to_string());
    assert_eq!((kept, home.number()), (1, 2));
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let mut home = Home::new().await;
    home.write("a.yaml", "a");
    home.look().await.unwrap();
    home.write("a.yaml", "b");
    home.look().await.unwrap();

    let mut again = home.reopen().await;
    let at_once = again.number();
    again.look().await.unwrap();
    let looked = again.number();
    again.write("a.yaml", "c");
    again.look().await.unwrap();

    assert_eq!((at_once, looked, again.number()), (2, 2, 3));
}

#[tokio::test]
async fn a_new_authority_signs_the_same_set_again_under_its_number() {
    let mut home = Home::new().await;
    home.write("a.yaml", "a");
    home.look().await.unwrap();
    let first = home.signed();

    let (half, late) = (SystemTime::now() + LIFE * 11 / 20, SystemTime::now() + LIFE * 9 / 10);
    home.rotation.advance(half).await.unwrap();
    home.rotation.advance(late).await.unwrap();
    home.publisher.publish(late).unwrap();
    let second = home.signed();

    let bundle = home.publisher.signing.borrow().bundle.clone();
    let (trust_domain, newest) = (bundle.trust_domain().clone(), bundle.x509_authorities()[0].clone());
    let only = TrustBundle::new(trust_domain.clone(), vec![newest]).unwrap();
    let anchors = Anchors::new(&BundleSet::from_iter([only]));
    let verified = second.verify(&anchors, &trust_domain, SIDECARS, late).unwrap();
    assert_eq!(verified.number(), 1);
    assert!(first.verify(&anchors, &trust_domain, SIDECARS, late).is_err());
}

struct Home {
    dir: tempfile::TempDir,
    publisher: Publisher,
    published: watch::Receiver<Published>,
    rotation: Rotation,
    _writer: Writer,
}

impl Home {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("policies")).unwrap();
        Self::open(dir).await
    }

    async fn open(dir: tempfile::TempDir) -> Self {
        let trust_domain = TrustDomain::parse("prod.test").unwrap();
        let (store, writer, Loaded { authorities, policies, .. }) =
            Store::open(&dir.path().join("ca.db"), &trust_domain, |_| {}).unwrap();
        let keys = || KeyStore::open(dir.path().join("keys"), Sealing::Plain).unwrap();
        let settings = Settings {
            trust_domain: trust_domain.clone(),
            server_id: crate::model::server_id(&trust_domain).unwrap(),
            ca_ttl: LIFE,
            server_ttl: LIFE,
            refresh_hint: LIFE,
        };
        let now = SystemTime::now();
        let (rotation, signing) =
            Rotation::start(store.clone(), keys(), settings, authorities, now).await.unwrap();
        let signer = Signer::open(&keys(), trust_domain, LIFE).unwrap();
        let (publisher, published) = Publisher::start(signer, store, signing, policies);
        Self { dir, publisher, published, rotation, _writer: writer }
    }

    async fn reopen(self) -> Self {
        let Self { dir, publisher, rotation, _writer, .. } = self;
        drop((publisher, rotation));
        _writer.join();
        Self::open(dir).await
    }

    async fn look(&mut self) -> Result<(), PublishError> {
        let policies = self.policies();
        self.publisher.take(&policies).await?;
        Ok(self.publisher.publish(SystemTime::now())?)
    }

    fn signed(&self) -> SignedManifest {
        match &*self.published.borrow() {
            Published::Set(held) => held.signed.clone(),
            Published::None | Published::Pending => panic!("no set"),
        }
    }

    fn number(&self) -> u64 {
        match &*self.published.borrow() {
            Published::Set(held) => held.set.seen.number,
            Published::None | Published::Pending => 0,
        }
    }

    fn write(&self, file: &str, name: &str) {
        let text = format!("vouchsafe: policy/v1\nname: {name}\nprotects: spiffe://prod.test/{name}\n");
        std::fs::write(self.policies().join(file), text).unwrap();
    }

    fn policies(&self) -> PathBuf {
        self.dir.path().join("policies")
    }
}

const LIFE: Duration = Duration::from_secs(3600);
