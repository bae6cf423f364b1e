//! Both kinds of sets from one scripted CA: what is of one kind never counts for the other, and each survives by itself.

use std::time::Duration;

use identity::manifest::{SignedManifest, signer_id};
use identity::{BundleSet, Credentials, SpiffeId};
use proto::vouchsafe::v1::policy_update::Step;
use proto::vouchsafe::v1::{EndOfSet, PolicyFile};
use tokio::task::JoinHandle;

use super::*;
use crate::fixtures::scripted_ca::{Script, ScriptedCa};
use crate::fixtures::{Authority, HOUR, domain, serving};
use crate::health::Health;
use crate::policies::tests::{File, manifest_of};
use crate::policies::{Known, Policies};
use crate::upstream::Trust;
use crate::wire;

const POLICY: File<'_> = ("a.yaml", "vouchsafe: policy/v1\nname: a\nprotects: spiffe://prod.test/a\n");
const SHOP: File<'_> = (
    "4711",
    "{\"vouchsafe\":\"services/v1\",\"services\":[{\"name\":\"shop\",\"ports\":[80],\"protocol\":\"tcp\",\"expect\":[\"spiffe://prod.test/shop\"],\"visible_to\":[\"spiffe://prod.test/web/**\"]}]}",
);
const BROKEN: File<'_> = ("4712", "{\"vouchsafe\":\"services/v2\"}");

#[tokio::test]
async fn each_kind_is_followed_and_kept_by_itself() {
    let node = Node::start(|root| steps(root, Kind::Policies, 7, &[POLICY]), |root| services(root, 3)).await;
    node.holds(Kind::Policies, 7).await;
    node.holds(Kind::Services, 3).await;

    // The CA is gone: what is on disk is handed out at once.
    let node = node.restart(|_| Vec::new(), |_| Vec::new()).await;

    assert_eq!((node.number(Kind::Policies), node.number(Kind::Services)), (7, 3));
}

#[tokio::test]
async fn an_entry_is_for_whom_it_names_and_one_that_cannot_be_read_for_nobody() {
    let node = Node::start(|_| Vec::new(), |root| services(root, 3)).await;
    node.holds(Kind::Services, 3).await;

    let known = node.known(Kind::Services);

    let files = &known.policies.set().unwrap().files;
    let gets = |at: usize, id: &str| files[at].selection.includes(&SpiffeId::parse(id).unwrap());
    assert!(gets(0, "spiffe://prod.test/web/front") && !gets(0, "spiffe://prod.test/shop"));
    assert!(!gets(1, "spiffe://prod.test/web/front"));
}

#[tokio::test]
async fn a_set_of_policies_on_the_stream_of_services_is_refused_and_the_other_way_round() {
    for (policies, services) in [(Kind::Services, Kind::Policies), (Kind::Services, Kind::Services)] {
        let node =
            Node::start(|root| steps(root, policies, 7, &[POLICY]), |root| steps(root, services, 3, &[SHOP]))
                .await;

        node.refuses(Kind::Policies, "meant for").await;
        if services == Kind::Policies {
            node.refuses(Kind::Services, "meant for").await;
            assert_eq!(node.number(Kind::Services), 0);
        } else {
            node.holds(Kind::Services, 3).await;
        }
        assert_eq!(node.number(Kind::Policies), 0);
    }
}

#[tokio::test]
async fn an_older_set_of_services_is_refused_also_after_a_restart() {
    let node = Node::start(|_| Vec::new(), |root| services(root, 5)).await;
    node.holds(Kind::Services, 5).await;

    let node = node.restart(|_| Vec::new(), |root| services(root, 4)).await;

    node.refuses(Kind::Services, "older").await;
    assert_eq!(node.number(Kind::Services), 5);
}

#[tokio::test]
async fn a_ca_that_knows_no_services_takes_none_away() {
    let node = Node::start(|_| Vec::new(), |root| services(root, 5)).await;
    node.holds(Kind::Services, 5).await;

    let node = node.restart(|root| steps(root, Kind::Policies, 1, &[POLICY]), |_| Vec::new()).await;
    node.holds(Kind::Policies, 1).await;

    assert_eq!(node.number(Kind::Services), 5);
}

#[tokio::test]
async fn a_banned_node_and_one_let_in_afresh_begin_anew_with_both_kinds() {
    let node = Node::start(|root| steps(root, Kind::Policies, 7, &[POLICY]), |root| services(root, 3)).await;
    node.holds(Kind::Policies, 7).await;
    node.holds(Kind::Services, 3).await;

    node.followers.begin_anew().await;
    let anew = [Kind::Policies, Kind::Services].map(|kind| node.known(kind).seen.is_none());
    node.followers.forget();
    let forgotten =
        [Kind::Policies, Kind::Services].map(|kind| matches!(node.known(kind).policies, Policies::Unknown));

    assert_eq!((anew, forgotten), ([true, true], [true, true]));
}

struct Node {
    home: tempfile::TempDir,
    ca: ScriptedCa,
    followers: Arc<Followers>,
    following: JoinHandle<()>,
    _state: watch::Sender<Arc<State>>,
}

impl Node {
    async fn start(
        policies: impl FnOnce(&Authority) -> Vec<Step>,
        services: impl FnOnce(&Authority) -> Vec<Step>,
    ) -> Self {
        let script = Script::new();
        let (policies, services) = (policies(&script.authority), services(&script.authority));
        (script.knobs().policies, script.knobs().services) = (policies, services);
        Self::start_in(tempfile::tempdir().unwrap(), ScriptedCa::start(script).await).await
    }

    async fn start_in(home: tempfile::TempDir, ca: ScriptedCa) -> Self {
        let authority = &ca.script.authority;
        let store = Arc::new(Store::open(home.path(), None, domain()).unwrap());
        let (state, watched) = watch::channel(Arc::new(serving(authority, Vec::new())));
        let figures = Health::new(&mut prometheus_client::registry::Registry::default()).figures;
        let followers = Arc::new(Followers::open(&domain(), &store, &watched, &figures));
        let bundles = BundleSet::from_iter([authority.bundle(1)]);
        let credentials = Credentials::new(authority.svid("/spire/agent/join_token/x"), bundles).unwrap();
        let trust = Trust::mutual(&credentials).unwrap();
        let upstream = Upstream::connect(&ca.address.to_string(), trust).await.unwrap();
        let shared = followers.clone();
        let following = tokio::spawn(async move { match shared.follow(&upstream).await {} });
        Self { home, ca, followers, following, _state: state }
    }

    /// The agent starts anew on the same disk; the CA then pushes other things.
    async fn restart(
        self,
        policies: impl FnOnce(&Authority) -> Vec<Step>,
        services: impl FnOnce(&Authority) -> Vec<Step>,
    ) -> Self {
        self.following.abort();
        let script = &self.ca.script;
        let (policies, services) = (policies(&script.authority), services(&script.authority));
        (script.knobs().policies, script.knobs().services) = (policies, services);
        Self::start_in(self.home, self.ca).await
    }

    fn known(&self, kind: Kind) -> Arc<Known> {
        let follower = self.followers.all().into_iter().find(|follower| follower.kind() == kind).unwrap();
        follower.known().borrow().clone()
    }

    fn number(&self, kind: Kind) -> u64 {
        self.known(kind).policies.set().map_or(0, |set| set.manifest.number())
    }

    async fn holds(&self, kind: Kind, number: u64) {
        eventually(|| self.number(kind) == number).await;
    }

    async fn refuses(&self, kind: Kind, reason: &str) {
        let refused =
            || self.known(kind).refused.as_ref().is_some_and(|refused| refused.reason.contains(reason));
        eventually(refused).await;
    }
}

async fn eventually(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}

fn services(authority: &Authority, number: u64) -> Vec<Step> {
    steps(authority, Kind::Services, number, &[SHOP, BROKEN])
}

fn steps(authority: &Authority, kind: Kind, number: u64, files: &[File<'_>]) -> Vec<Step> {
    let svid = authority.svid_aged(signer_id(&domain()).unwrap().as_str(), Duration::ZERO, HOUR);
    let signed: SignedManifest =
        manifest_of(kind, number, files).sign(svid.key(), svid.chain().to_vec()).unwrap();
    let manifest = Step::Manifest(wire::policies::to_signed(&signed));
    let file =
        |(name, text): &File<'_>| Step::File(PolicyFile { name: (*name).into(), content: (*text).into() });
    std::iter::once(manifest).chain(files.iter().map(file)).chain([Step::End(EndOfSet { number })]).collect()
}
