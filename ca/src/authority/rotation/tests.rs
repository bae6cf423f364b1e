//! A life of authorities, with the clock moved by the test.

use identity::{Anchors, Role, verify::verify};

use super::*;
use crate::{authority::keys::Sealing, store::Writer};

#[tokio::test]
async fn the_first_start_makes_one_authority_that_signs_and_is_trusted() {
    let home = Home::new();

    let (rotation, signing) = home.start(now(0)).await.unwrap();

    let signing = signing.borrow().clone();
    assert_eq!(signing.bundle.x509_authorities(), [signing.active.certificate().clone()]);
    assert_eq!(signing.bundle.sequence(), Some(1));
    assert_eq!(signing.credentials.svid().id().as_str(), "spiffe://prod.test/spire/server");
    drop(rotation);
}

#[tokio::test]
async fn a_restart_keeps_the_authority() {
    let mut home = Home::new();
    let (rotation, signing) = home.start(now(0)).await.unwrap();
    let first = signing.borrow().active.id().to_owned();
    drop(rotation);

    home.reopen();
    let (rotation, signing) = home.start(now(30)).await.unwrap();

    assert_eq!(signing.borrow().active.id(), first);
    assert_eq!(signing.borrow().bundle.sequence(), Some(1));
    drop(rotation);
}

#[tokio::test]
async fn over_many_lives_what_signs_was_published_before_and_what_was_signed_stays_trusted() {
    let home = Home::new();
    let (mut rotation, signing) = home.start(now(0)).await.unwrap();
    let mut seen = signing.borrow().clone();
    let mut leaves: Vec<(CertificateDer<'static>, SystemTime)> = Vec::new();
    let mut activations = 0;

    for second in 1..1000 {
        rotation.advance(now(second)).await.unwrap();
        let current = signing.borrow().clone();
        if current.active.id() != seen.active.id() {
            activations += 1;
            let published = seen.bundle.x509_authorities().contains(current.active.certificate());
            assert!(published, "authority signs at {second} s without having been published");
        }
        assert!(current.bundle.sequence() >= seen.bundle.sequence());
        assert!(current.bundle.x509_authorities().len() <= 5);
        let anchors = Anchors::new(&BundleSet::from_iter([current.bundle.clone()]));
        let key = RequestedKey::from_csr(&PrivateKey::generate().unwrap().csr(None).unwrap()).unwrap();
        let id = SpiffeId::parse("spiffe://prod.test/web").unwrap();
        let subject = Subject { id, dns_names: vec![], ttl: Duration::from_secs(20) };
        if second % 10 == 0 {
            let issued = current.active.issue(&key, &subject, now(second)).unwrap();
            assert!(issued.expires_at >= unix_seconds(now(second)) + 15, "short certificate at {second} s");
            leaves.push((issued.chain[0].clone().into(), from_unix_seconds(issued.expires_at)));
        }
        leaves.retain(|(_, expires)| now(second) < *expires);
        for (leaf, _) in &leaves {
            assert!(
                verify(leaf, &[], &anchors, Role::Client, now(second)).is_ok(),
                "untrusted at {second} s"
            );
        }
        let own = current.credentials.svid();
        assert!(verify(&own.chain()[0], &[], &anchors, Role::Server, now(second)).is_ok());
        seen = current;
    }

    assert!(activations >= 8, "only {activations} activations");
    drop(rotation);
}

#[tokio::test]
async fn a_restart_late_in_an_authoritys_life_publishes_the_successor_before_it_signs() {
    let mut home = Home::new();
    let (rotation, signing) = home.start(now(0)).await.unwrap();
    let first = signing.borrow().active.id().to_owned();
    drop(rotation);

    home.reopen();
    let (mut rotation, signing) = home.start(now(110)).await.unwrap();
    let restarted = signing.borrow().clone();
    rotation.advance(now(116)).await.unwrap();
    let later = signing.borrow().clone();

    assert_eq!((restarted.active.id(), restarted.bundle.x509_authorities().len()), (first.as_str(), 2));
    assert_ne!(later.active.id(), first);
    assert!(restarted.bundle.x509_authorities().contains(later.active.certificate()));
    drop(rotation);
}

#[tokio::test]
async fn a_clock_before_the_authority_refuses_to_start() {
    let mut home = Home::new();
    let (rotation, _) = home.start(now(0)).await.unwrap();
    drop(rotation);

    home.reopen();
    let refused = home.start(now(0) - Duration::from_secs(3600)).await.err().unwrap();

    assert!(matches!(refused, RotationError::ClockBehind { .. }));
    assert!(refused.to_string().contains("set the clock"));
}

#[tokio::test]
async fn a_missing_or_exchanged_key_refuses_to_start_and_nothing_is_made_anew() {
    let mut home = Home::new();
    let (rotation, signing) = home.start(now(0)).await.unwrap();
    let id = signing.borrow().active.id().to_owned();
    drop(rotation);
    let path = home.dir.path().join("keys").join(format!("{id}.key"));

    home.reopen();
    let other = PrivateKey::generate().unwrap();
    identity::durable::write(&path, 0o600, other.to_pem().as_bytes()).unwrap();
    assert!(matches!(home.start(now(1)).await, Err(RotationError::Authority { .. })));
    std::fs::remove_file(&path).unwrap();
    let missing = home.start(now(1)).await.err().unwrap();

    assert!(missing.to_string().contains(path.to_str().unwrap()));
    assert_eq!(std::fs::read_dir(home.dir.path().join("keys")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_own_certificate_is_renewed_at_half_its_life() {
    let home = Home::new();
    let (mut rotation, signing) = home.start(now(0)).await.unwrap();
    let first = signing.borrow().credentials.svid().serial().to_owned();

    rotation.advance(now(5)).await.unwrap();
    assert_eq!(signing.borrow().credentials.svid().serial(), first);
    rotation.advance(now(25)).await.unwrap();

    assert_ne!(signing.borrow().credentials.svid().serial(), first);
    drop(rotation);
}

struct Home {
    dir: tempfile::TempDir,
    open: Option<(Store, Writer, Authorities)>,
}

impl Home {
    fn new() -> Self {
        let mut home = Self { dir: tempfile::tempdir().unwrap(), open: None };
        home.reopen();
        home
    }

    fn reopen(&mut self) {
        if let Some((store, writer, _)) = self.open.take() {
            drop(store);
            writer.join();
        }
        let (store, writer, loaded) = Store::open(&self.dir.path().join("ca.db"), &domain(), |_| {}).unwrap();
        self.open = Some((store, writer, loaded.authorities));
    }

    async fn start(
        &self,
        now: SystemTime,
    ) -> Result<(Rotation, watch::Receiver<Arc<Signing>>), RotationError> {
        let keys = KeyStore::open(self.dir.path().join("keys"), Sealing::Plain).unwrap();
        let settings = Settings {
            trust_domain: domain(),
            server_id: crate::model::server_id(&domain()).unwrap(),
            ca_ttl: Duration::from_secs(120),
            server_ttl: Duration::from_secs(40),
            refresh_hint: Duration::from_secs(12),
        };
        let (store, _, authorities) = self.open.as_ref().unwrap();
        Rotation::start(store.clone(), keys, settings, authorities.clone(), now).await
    }
}

fn domain() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}

fn now(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000 + seconds)
}
