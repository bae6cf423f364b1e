use super::*;
use crate::{
    activity::Waiting,
    config::Limits,
    handshakes::Handshakes,
    live::{Entry, Key, Registry, Role},
    metrics::Metrics,
    state::State,
    testing::{Authority, DOMAIN, SHOP, STRANGER, WEB, id},
};

fn policy(allowed: &str) -> Loaded {
    let text = format!(
        "vouchsafe: policy/v1\nname: web\nprotects: {WEB}\nallow:\n  - name: one\n    from: [{allowed}]\n    tcp: {{port: any}}\n"
    );
    good(policy::compile(&[policy::strict::Source::new("a.yaml", text)]).unwrap())
}

fn good(set: policy::PolicySet) -> Loaded {
    let candidate = Candidate { set: Arc::new(set), selectors: Arc::default() };
    Loaded { result: Ok(candidate), occasion: Occasion::Files, standing: None, reply: None }
}

fn bad() -> Loaded {
    let error = LoadError::TooMany { path: std::path::PathBuf::from("p") };
    Loaded { result: Err(error), occasion: Occasion::Files, standing: None, reply: None }
}

struct Stage {
    control: Control,
    shared: Arc<Shared>,
    authority: Authority,
    _directory: tempfile::TempDir,
    _writer: audit::Writer,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let product = audit::Product { daemon: "proxy".into(), id: None, version: "0".into() };
        let (log, writer) = audit::start(audit::Config::file(directory.path().join("a"), product)).unwrap();
        let shared = Arc::new(Shared {
            state: Arc::new(State::default()),
            registry: Registry::default(),
            services: Arc::default(),
            log,
            metrics: Arc::new(Metrics::new()),
            telemetry: Arc::new(crate::telemetry::Telemetry::start(&Default::default()).unwrap().0),
            limits: Limits::default(),
            handshakes: Arc::new(Handshakes::new(&Limits::default())),
            way: crate::transparent::Way::default(),
            drain: CancellationToken::new(),
        });
        let control =
            Control::new(Arc::clone(&shared), tokio::sync::watch::channel(super::Settings::default()).1);
        Self { control, shared, authority: Authority::new("prod"), _directory: directory, _writer: writer }
    }

    fn ready() -> Self {
        let mut stage = Self::new();
        let credentials = Arc::new(stage.authority.credentials(WEB));
        stage.control.identity(Update::Credentials(credentials));
        stage.control.policies(policy(SHOP));
        stage
    }

    fn connect(&self, peer: &str) -> crate::live::Registered {
        let source = Some([127, 0, 0, 1].into());
        let key = Key::new(Role::InboundTcp, Some(id(peer)), source, 1);
        let entry = Entry { key, proof: None, opened: SystemTime::now(), waiting: Waiting::Relay };
        self.shared.registry.register(entry)
    }
}

#[test]
fn a_new_policy_has_cut_what_it_forbids_when_it_is_in_force() {
    let mut stage = Stage::ready();
    let (shop, stranger) = (stage.connect(SHOP), stage.connect(STRANGER));

    stage.control.policies(policy(STRANGER));

    assert!(shop.live().is_cut());
    assert!(!stranger.live().is_cut());
}

#[test]
fn identity_and_policies_may_come_in_either_order() {
    let mut stage = Stage::new();

    stage.control.policies(policy(SHOP));
    assert!(stage.shared.state.now().policies.is_none());
    stage.control.identity(Update::Credentials(Arc::new(stage.authority.credentials(WEB))));

    assert!(!stage.shared.state.now().policies.as_ref().unwrap().is_empty());
}

#[test]
fn another_identity_is_protected_by_its_own_policies() {
    let mut stage = Stage::ready();
    let shop = stage.connect(SHOP);

    stage
        .control
        .identity(Update::Credentials(Arc::new(stage.authority.credentials("spiffe://prod.test/other"))));

    assert!(shop.live().is_cut());
    assert!(stage.shared.state.now().policies.as_ref().unwrap().is_empty());
}

#[test]
fn a_failed_update_takes_nothing_away_and_a_withdrawal_takes_everything() {
    let mut stage = Stage::ready();
    let shop = stage.connect(SHOP);
    let error = || crate::workload_api::EndpointError::NotSet.into();

    stage.control.identity(Update::Failed(error()));
    assert!(stage.shared.state.now().identity.is_some() && !shop.live().is_cut());
    stage.control.identity(Update::Withdrawn(error()));

    assert!(stage.shared.state.now().identity.is_none() && shop.live().is_cut());
    assert!(!stage.shared.state.is_ready());
}

#[test]
fn a_refused_set_leaves_the_last_good_one_in_force() {
    let mut stage = Stage::ready();
    let before = stage.shared.state.now().generation.clone();
    let shop = stage.connect(SHOP);

    stage.control.policies(bad());

    assert_eq!(stage.shared.state.now().generation, before);
    assert!(!shop.live().is_cut() && stage.shared.state.is_ready());
}

#[test]
fn a_proxy_without_inbound_listeners_is_ready_whatever_its_policies_are() {
    let stage = Stage::new();
    stage.shared.state.set_problem(Part::Policies, Some("none yet".to_owned()));
    let mut control = stage.control.outbound_only();
    control.identity(Update::Credentials(Arc::new(stage.authority.credentials(WEB))));

    control.policies(bad());

    assert!(stage.shared.state.is_ready());
    assert!(stage.shared.state.problems().contains_key(&Part::PolicyUse));
    control.policies(good(policy::compile(&[]).unwrap()));
    assert!(stage.shared.state.problems().is_empty());
}

#[test]
fn a_directory_without_a_policy_is_a_warning_until_there_is_one() {
    let mut stage = Stage::ready();

    stage.control.policies(good(policy::compile(&[]).unwrap()));
    let told = stage.shared.state.problems();
    stage.control.policies(policy(SHOP));

    assert_eq!(told.get(&Part::PolicyUse).map(String::as_str), Some(NO_POLICY));
    assert!(stage.shared.state.is_ready() && stage.shared.state.problems().is_empty());
}

#[test]
fn only_the_members_of_a_changed_bundle_are_looked_at_again() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let set = |root: &Authority| -> identity::BundleSet {
        [root.bundle(DOMAIN), one.bundle("other.test")].into_iter().collect()
    };

    let changed = state::changed_bundles(&set(&one), &set(&two));

    assert_eq!(changed.iter().map(identity::TrustDomain::as_str).collect::<Vec<_>>(), [DOMAIN]);
    assert!(state::changed_bundles(&set(&one), &set(&one)).is_empty());
}

#[test]
fn whoever_asked_hears_what_was_cut_and_which_rule_it_lived_by() {
    let mut stage = Stage::ready();
    let _shop: Vec<_> = (0..300).map(|_| stage.connect(SHOP)).collect();
    let _stranger = stage.connect(STRANGER);
    let (reply, mut told) = tokio::sync::oneshot::channel();

    stage.control.policies(Loaded { reply: Some(reply), ..policy(STRANGER) });

    let outcome = told.try_recv().unwrap();
    assert!(outcome.accepted && outcome.changed && !outcome.dry_run);
    let losses = outcome.losses;
    assert_eq!((losses.cut, losses.connections, losses.more_peers), (300, 301, 0));
    assert_eq!((losses.by_peer[0].peer.as_str(), losses.by_peer[0].connections), (SHOP, 300));
    assert_eq!((losses.lost.len(), losses.more_lost), (crate::reload::MAX_LOST, 100));
    let lost = &losses.lost[0];
    assert_eq!((lost.source.as_str(), lost.port, lost.protocol.as_str()), ("127.0.0.1", 1, "tcp"));
    assert_eq!(lost.rule_lost.as_deref(), Some("web/one (a.yaml:5)"));
    assert_eq!((lost.reason.as_str(), &lost.refused_by), ("no_allow_matched", &None));
}

#[test]
fn a_connection_is_cut_once_and_counted_once() {
    let mut stage = Stage::ready();
    let _shop = stage.connect(SHOP);
    stage.control.policies(policy(STRANGER));
    let (reply, mut told) = tokio::sync::oneshot::channel();

    stage.control.policies(Loaded { reply: Some(reply), ..policy("spiffe://prod.test/nobody") });

    assert_eq!(told.try_recv().unwrap().losses.cut, 0);
}
