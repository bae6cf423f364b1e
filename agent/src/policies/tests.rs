//! The follower against a scripted CA over real TLS, and sets for the tests of others.

use std::time::{Duration, Instant, SystemTime};

use identity::manifest::{ManifestFile, signer_id};
use identity::{BundleSet, Credentials};
use proto::vouchsafe::v1::policy_update::Step;
use proto::vouchsafe::v1::{EndOfSet, NoPolicies, PolicyFile, PolicyState, PolicyStatus};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::fixtures::scripted_ca::{Script, ScriptedCa};
use crate::fixtures::{Authority, HOUR, domain, serving};
use crate::health::Health;
use crate::state::State;
use crate::store::Store;
use crate::upstream::{Trust, Upstream};
use crate::wire;

/// Name and text of a file.
pub(crate) type File<'a> = (&'a str, &'a str);

/// Signs a set as the CA does.
pub(crate) fn signed(authority: &Authority, number: u64, files: &[File<'_>]) -> SignedManifest {
    signed_as(authority, signer_id(&domain()).unwrap().as_str(), number, files)
}

fn signed_as(authority: &Authority, id: &str, number: u64, files: &[File<'_>]) -> SignedManifest {
    let svid = authority.svid_aged(id, Duration::ZERO, HOUR);
    manifest(number, files).sign(svid.key(), svid.chain().to_vec()).unwrap()
}

fn manifest(number: u64, files: &[File<'_>]) -> Manifest {
    manifest_of(Kind::Policies, number, files)
}

/// Describes a set of any kind.
pub(crate) fn manifest_of(kind: Kind, number: u64, files: &[File<'_>]) -> Manifest {
    let texts: String = files.iter().map(|(name, text)| format!("{name}\0{text}\0")).collect();
    let generation = identity::crypto::hex(&identity::crypto::sha256(texts.as_bytes()));
    let files = files.iter().map(|(name, text)| ManifestFile::of(*name, text.as_bytes())).collect();
    Manifest::of(kind, domain(), Seen { number, generation }, files, SystemTime::now()).unwrap()
}

/// A set as the agent holds it.
pub(crate) fn held(authority: &Authority, number: u64, files: &[File<'_>]) -> HeldSet {
    let file = |file: &ManifestFile| {
        let text = files.iter().find(|(name, _)| *name == file.name()).unwrap().1;
        Arc::new(HeldFile::new(file.sha256(), Source::new(file.name(), text)))
    };
    let manifest = manifest(number, files);
    let files = manifest.files().iter().map(file).collect();
    HeldSet { signed: signed(authority, number, &[]), since: 1, files, manifest }
}

/// The messages that carry a set.
fn steps(authority: &Authority, number: u64, files: &[File<'_>]) -> Vec<Step> {
    let manifest = Step::Manifest(wire::policies::to_signed(&signed(authority, number, files)));
    let files = files.iter().map(|(name, text)| file(name, text));
    std::iter::once(manifest).chain(files).chain([Step::End(EndOfSet { number })]).collect()
}

fn file(name: &str, text: &str) -> Step {
    Step::File(PolicyFile { name: name.into(), content: text.into() })
}

struct Node {
    home: tempfile::TempDir,
    ca: ScriptedCa,
    follower: Arc<Follower>,
    following: JoinHandle<()>,
    _state: watch::Sender<Arc<State>>,
}

impl Node {
    async fn start(policies: impl FnOnce(&Authority) -> Vec<Step>) -> Self {
        let script = Script::new();
        script.knobs().policies = policies(&script.authority);
        Self::start_in(tempfile::tempdir().unwrap(), ScriptedCa::start(script).await).await
    }

    async fn start_in(home: tempfile::TempDir, ca: ScriptedCa) -> Self {
        let authority = &ca.script.authority;
        let store = Arc::new(Store::open(home.path(), None, domain()).unwrap());
        let (state, watched) = watch::channel(Arc::new(serving(authority, Vec::new())));
        let figures = Health::new(&mut prometheus_client::registry::Registry::default()).figures;
        let follower = Arc::new(Follower::open(domain(), store, watched, figures));
        let bundles = BundleSet::from_iter([authority.bundle(1)]);
        let credentials = Credentials::new(authority.svid("/spire/agent/join_token/x"), bundles).unwrap();
        let trust = Trust::mutual(&credentials).unwrap();
        let upstream = Upstream::connect(&ca.address.to_string(), trust).await.unwrap();
        let shared = follower.clone();
        let following = tokio::spawn(async move { match shared.follow(&upstream).await {} });
        Self { home, ca, follower, following, _state: state }
    }

    /// The agent starts anew on the same disk; the CA then pushes other things.
    async fn restart(self, policies: impl FnOnce(&Authority) -> Vec<Step>) -> Self {
        self.following.abort();
        self.ca.script.knobs().policies = policies(&self.ca.script.authority);
        self.ca.script.knobs().told = None;
        Self::start_in(self.home, self.ca).await
    }

    fn known(&self) -> Arc<Known> {
        self.follower.known().borrow().clone()
    }

    fn number(&self) -> u64 {
        self.known().policies.set().map_or(0, |set| set.manifest.number())
    }

    async fn holds(&self, number: u64) {
        eventually("the set is held", || self.number() == number).await;
    }

    /// Waits until the CA was told of a state of the agent, and returns it.
    async fn told(&self, state: PolicyState) -> PolicyStatus {
        let told = || self.ca.script.knobs().told.clone().and_then(|told| told.agent);
        eventually("the CA is told", || told().is_some_and(|told| told.state() == state)).await;
        told().unwrap()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}: never");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const A: File<'static> = ("a.yaml", "vouchsafe: policy/v1\nname: a\nprotects: spiffe://prod.test/a\n");
const B: File<'static> = ("b.yaml", "vouchsafe: policy/v1\nname: b\nprotects: spiffe://prod.test/b\n");
const OTHER: File<'static> = ("a.yaml", "vouchsafe: policy/v1\nname: c\nprotects: spiffe://prod.test/a\n");

#[tokio::test]
async fn a_set_is_taken_told_of_and_kept_through_a_restart_without_a_ca() {
    let node = Node::start(|root| steps(root, 4, &[A, B])).await;
    node.holds(4).await;
    let told = node.told(PolicyState::InForce).await;

    let node = node.restart(|_| Vec::new()).await;

    assert_eq!((told.number, told.generation.len()), (4, 64));
    let known = node.known();
    let set = known.policies.set().unwrap();
    assert_eq!(set.files.iter().map(|file| &*file.source.name).collect::<Vec<_>>(), ["a.yaml", "b.yaml"]);
    assert_eq!(set.files[0].source.text, A.1);
    eventually("the CA hears what is held", || node.ca.script.knobs().held.len() == 2).await;
}

#[tokio::test]
async fn an_older_set_is_refused_also_after_a_restart_and_the_newer_one_stays() {
    let node = Node::start(|root| steps(root, 4, &[A])).await;
    node.holds(4).await;

    let node = node.restart(|root| steps(root, 3, &[B])).await;
    let told = node.told(PolicyState::Refused).await;

    assert_eq!((told.number, told.number_in_force), (3, 4));
    assert!(told.reason.contains("older"), "{}", told.reason);
    assert_eq!(node.number(), 4);
}

#[tokio::test]
async fn another_set_under_the_same_number_is_refused() {
    let node = Node::start(|root| steps(root, 4, &[A])).await;
    node.holds(4).await;

    let node = node.restart(|root| steps(root, 4, &[OTHER])).await;
    node.told(PolicyState::Refused).await;

    assert_eq!(node.known().policies.set().unwrap().files[0].source.text, A.1);
}

#[tokio::test]
async fn the_same_set_signed_again_is_taken_and_is_no_newer() {
    let node = Node::start(|root| steps(root, 4, &[A])).await;
    node.holds(4).await;
    let before = node.known();
    let before = before.policies.set().unwrap();

    let node =
        node.restart(|root| vec![steps(root, 4, &[A]).remove(0), Step::End(EndOfSet { number: 4 })]).await;
    let fresh = || node.known().policies.set().unwrap().signed.chain != before.signed.chain;
    eventually("the new signature is held", fresh).await;

    let known = node.known();
    let after = known.policies.set().unwrap();
    assert_eq!((after.since, &*after.files[0].source.text), (before.since, A.1));
}

#[tokio::test]
async fn the_same_set_with_the_same_proof_is_nobodys_news() {
    let node = Node::start(|_| Vec::new()).await;
    let twice = || {
        let mut set = held(&node.ca.script.authority, 4, &[A]);
        set.signed.signature = vec![7];
        set.signed.chain = Vec::new();
        set
    };
    node.follower.hold(twice()).await;
    let mut known = node.follower.known();
    known.mark_unchanged();
    let other = HeldSet { signed: SignedManifest { signature: vec![8], ..twice().signed }, ..twice() };

    node.follower.hold(twice()).await;
    let same = known.has_changed().unwrap();
    node.follower.hold(other).await;

    assert_eq!((same, known.has_changed().unwrap()), (false, true));
}

#[tokio::test]
async fn an_administrators_fresh_token_lets_an_older_number_in() {
    let node = Node::start(|root| steps(root, 4, &[A])).await;
    node.holds(4).await;
    node.follower.begin_anew().await;

    let node = node.restart(|root| steps(root, 1, &[B])).await;

    node.holds(1).await;
}

#[tokio::test]
async fn each_flaw_leaves_what_is_held() {
    let stranger = Authority::new("stranger");
    let workload = |root: &Authority| {
        let signed = signed_as(root, "spiffe://prod.test/a", 5, &[A]);
        vec![
            Step::Manifest(wire::policies::to_signed(&signed)),
            file(A.0, A.1),
            Step::End(EndOfSet { number: 5 }),
        ]
    };
    type Flaw<'a> = (&'a str, Box<dyn FnOnce(&Authority) -> Vec<Step> + 'a>);
    let flaws: Vec<Flaw<'_>> = vec![
        ("signed", Box::new(|_| steps(&stranger, 5, &[A]))),
        ("signed", Box::new(workload)),
        (
            "signed",
            Box::new(|root| {
                let mut steps = steps(root, 5, &[A]);
                if let Some(Step::Manifest(signed)) = steps.first_mut() {
                    signed.manifest[20] ^= 1;
                }
                steps
            }),
        ),
        ("not what the manifest says", Box::new(|root| vec![steps(root, 5, &[B]).remove(0), file(B.0, A.1)])),
        (
            "not what the manifest says",
            Box::new(|root| vec![steps(root, 5, &[B]).remove(0), file("c.yaml", B.1)]),
        ),
        (
            "missing",
            Box::new(|root| vec![steps(root, 5, &[A, B]).remove(0), Step::End(EndOfSet { number: 5 })]),
        ),
        ("before its manifest", Box::new(|_| vec![file(A.0, A.1)])),
        (
            "out of order",
            Box::new(|root| {
                let mut steps = steps(root, 5, &[A]);
                steps.pop();
                steps.push(Step::End(EndOfSet { number: 6 }));
                steps
            }),
        ),
    ];
    let mut node = Node::start(|root| steps(root, 4, &[A])).await;
    node.holds(4).await;

    for (wanted, flawed) in flaws {
        node = node.restart(flawed).await;
        let told = node.told(PolicyState::Refused).await;

        assert!(told.reason.contains(wanted), "{wanted}: {}", told.reason);
        assert_eq!((node.number(), told.number_in_force), (4, 4), "{wanted}");
    }
    let node = node.restart(|root| steps(root, 5, &[A])).await;
    node.holds(5).await;
    node.told(PolicyState::InForce).await;
}

#[tokio::test]
async fn a_renamed_file_is_not_asked_for_again() {
    let renamed = ("z.yaml", A.1);
    let node = Node::start(|root| steps(root, 1, &[A])).await;
    node.holds(1).await;

    let node = node
        .restart(|root| vec![steps(root, 2, &[renamed]).remove(0), Step::End(EndOfSet { number: 2 })])
        .await;
    node.holds(2).await;

    let known = node.known();
    let source = &known.policies.set().unwrap().files[0].source;
    assert_eq!((&*source.name, &*source.text), renamed);
}

#[tokio::test]
async fn a_ca_that_says_there_are_none_takes_the_set_away_and_the_number_stays_seen() {
    let node = Node::start(|root| steps(root, 4, &[A])).await;
    node.holds(4).await;

    let node = node.restart(|_| vec![Step::None(NoPolicies {})]).await;
    node.told(PolicyState::None).await;
    let none = matches!(node.known().policies, Policies::None);
    let node = node.restart(|root| steps(root, 3, &[B])).await;
    let told = node.told(PolicyState::Refused).await;

    assert!(none);
    assert_eq!(told.number, 3);
}

#[tokio::test]
async fn a_ca_that_knows_no_policies_is_asked_once_and_takes_nothing_away() {
    let script = Script::new();
    script.knobs().offers_policies = false;
    let ca = ScriptedCa::start(script).await;
    let node = Node::start_in(tempfile::tempdir().unwrap(), ca).await;
    eventually("there are none", || matches!(node.known().policies, Policies::None)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(node.ca.script.calls("WatchPolicies"), 1);

    node.ca.script.knobs().offers_policies = true;
    let node = node.restart(|root| steps(root, 4, &[A])).await;
    node.holds(4).await;
    node.ca.script.knobs().offers_policies = false;
    let calls = node.ca.script.calls("WatchPolicies");
    let node = node.restart(|_| Vec::new()).await;
    eventually("the CA was asked", || node.ca.script.calls("WatchPolicies") > calls).await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    assert_eq!(node.number(), 4);
}

#[tokio::test]
async fn a_damaged_file_on_disk_is_no_reason_not_to_start() {
    let node = Node::start(|root| steps(root, 4, &[A])).await;
    node.holds(4).await;
    let path = node.home.path().join("policies.sealed");
    let mut sealed = std::fs::read(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    let middle = sealed.len() / 2;
    sealed[middle] ^= 1;
    std::fs::write(&path, sealed).unwrap();

    let node = node.restart(|root| steps(root, 4, &[A])).await;

    node.holds(4).await;
    assert_eq!(mode & 0o777, 0o600);
}
