//! Central policies: pushed, numbered, signed, and never taken back to an older state.

use std::{path::Path, time::SystemTime};

use ca::{
    model::EntrySpec,
    policies::status::{HandedOut, State},
};
use identity::{
    Anchors, BundleSet, PrivateKey,
    manifest::{Manifest, SIDECARS, SignedManifest},
};
use proto::{
    spire::api::server::svid::v1::{MintX509svidRequest, svid_client::SvidClient},
    vouchsafe::v1::{
        PolicyFile, PolicyState, PolicyStatus, PolicyUpdate, ReportStatusRequest, SidecarStatus,
        WatchPoliciesRequest, policy_client::PolicyClient, policy_update::Step,
    },
};
use tonic::{Code, Streaming};

use crate::harness::{Agent, TestCa, id, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_pushed_each_set_once_signed_and_numbered() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "api.yaml", "api");
    write(dir.path(), "web.yaml", "web");
    let ca = start(dir.path()).await;
    let agent = Agent::attest(&ca, &ca.client().await).await;

    let mut stream = watch(&agent, Vec::new()).await;
    let (first, files) = set(&mut stream, &ca).await;
    write(dir.path(), "web.yaml", "web2");
    let (second, changed) = set(&mut stream, &ca).await;

    assert_eq!((first.number(), names(&files)), (1, vec!["api.yaml", "web.yaml"]));
    assert!(files.iter().all(|file| first.file(&file.name).unwrap().is(&file.content)));
    assert_eq!((second.number(), names(&changed)), (2, vec!["web.yaml"]));
    assert_eq!(second.files().len(), 2);
    assert_ne!(first.generation(), second.generation());
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_an_agent_holds_are_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "api.yaml", "api");
    write(dir.path(), "web.yaml", "web");
    let ca = start(dir.path()).await;
    let agent = Agent::attest(&ca, &ca.client().await).await;

    let held = identity::crypto::sha256(policy("api").as_bytes()).to_vec();
    set(&mut watch(&agent, Vec::new()).await, &ca).await;

    let (_, files) = set(&mut watch(&agent, vec![held]).await, &ca).await;

    assert_eq!(names(&files), ["web.yaml"]);
    let mut client = PolicyClient::new(agent.channel());
    let flawed = client.watch_policies(WatchPoliciesRequest { held: vec![vec![1]] }).await;
    assert_eq!(flawed.unwrap_err().code(), Code::InvalidArgument);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_directory_changes_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "api.yaml", "api");
    let ca = start(dir.path()).await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let mut stream = watch(&agent, Vec::new()).await;
    set(&mut stream, &ca).await;

    std::fs::write(dir.path().join("bad.yaml"), "vouchsafe: policy/v1\nname: [\n").unwrap();
    until("a flaw", async || !client.policy_status().await.unwrap().flaw.is_empty()).await;
    let broken = client.policy_status().await.unwrap();
    let ready = ca.http("/readyz").await;
    std::fs::remove_file(dir.path().join("bad.yaml")).unwrap();
    until("no flaw", async || client.policy_status().await.unwrap().flaw.is_empty()).await;
    write(dir.path(), "web.yaml", "web");
    let (next, _) = set(&mut stream, &ca).await;

    assert!(broken.flaw.contains("bad.yaml:2"), "{}", broken.flaw);
    assert!(ready.contains("503") && ready.contains("policies: "), "{ready}");
    assert!(matches!(broken.handed_out, HandedOut::Set { set, .. } if set.number == 1));
    assert_eq!(next.number(), 2);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_the_number_and_with_the_set_though_the_directory_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "api.yaml", "api");
    let ca = start(dir.path()).await;
    let agent = Agent::attest(&ca, &ca.client().await).await;
    let mut stream = watch(&agent, Vec::new()).await;
    set(&mut stream, &ca).await;
    write(dir.path(), "api.yaml", "api2");
    let (before, _) = set(&mut stream, &ca).await;
    drop(dir);

    let ca = ca.restart().await;
    let agent = agent.reconnect(&ca).await;
    let (after, files) = set(&mut watch(&agent, Vec::new()).await, &ca).await;

    assert_eq!((after.number(), after.generation()), (2, before.generation()));
    assert_eq!(names(&files), ["api.yaml"]);
    ca.stop().await;
}

#[test]
fn a_check_says_what_is_wrong_in_the_policy_directory() {
    let dir = tempfile::tempdir().unwrap();
    let config = ca::Config { policies: Some(dir.path().to_owned()), ..TestCa::config(dir.path()) };
    let empty = ca::check(&config).unwrap_err();
    std::fs::write(dir.path().join("bad.yaml"), "vouchsafe: policy/v1\nname: [\n").unwrap();
    let bad = ca::check(&config).unwrap_err();
    std::fs::write(dir.path().join("bad.yaml"), policy("api")).unwrap();

    assert!(empty.to_string().contains("holds no policy file"), "{empty}");
    assert!(bad.to_string().contains("bad.yaml:2"), "{bad}");
    assert!(ca::check(&config).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_hands_out_nothing_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let ca = start(dir.path()).await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let mut stream = watch(&agent, Vec::new()).await;
    until("a flaw", async || !client.policy_status().await.unwrap().flaw.is_empty()).await;

    let pending = client.policy_status().await.unwrap();
    write(dir.path(), "api.yaml", "api");
    let (first, _) = set(&mut stream, &ca).await;

    assert_eq!(pending.handed_out, HandedOut::Pending);
    assert_eq!(first.number(), 1);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_policies_in_the_configuration_agents_are_told_so() {
    let ca = TestCa::start().await;
    let agent = Agent::attest(&ca, &ca.client().await).await;

    let first = step(&mut watch(&agent, Vec::new()).await).await;

    assert!(matches!(first, Step::None(_)));
    assert_eq!(ca.client().await.policy_status().await.unwrap().handed_out, HandedOut::Nothing);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_tells_is_shown_to_operators_and_replaced_by_what_it_tells_next() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "api.yaml", "api");
    let ca = start(dir.path()).await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let mut api = PolicyClient::new(agent.channel());

    api.report_status(report(PolicyState::InForce)).await.unwrap();
    api.report_status(report(PolicyState::Refused)).await.unwrap();
    let row = client.policy_status().await.unwrap().agents.pop().unwrap();
    let none = api.report_status(ReportStatusRequest::default()).await.unwrap_err();

    assert_eq!((&row.id, row.connected), (agent.id(), false));
    let told = row.told.unwrap();
    assert_eq!(told.sidecars.len(), 1);
    assert_eq!(told.sidecars[0].status.state, State::Refused);
    assert_eq!(told.sidecars[0].id, id("/web"));
    assert_eq!(none.code(), Code::InvalidArgument);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_the_identity_of_the_policy_signer() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let signer = id("/vouchsafe/policy-signer");

    let spec = EntrySpec::new(
        signer.clone(),
        agent.id().clone(),
        vec![ca::model::Selector::parse("unix:uid:1").unwrap()],
    );
    let registered = spec.check(&identity::TrustDomain::parse("prod.test").unwrap());
    let token = client.create_token(std::time::Duration::from_secs(60), Some(&signer)).await;
    let csr = PrivateKey::generate().unwrap().csr(Some(&signer)).unwrap();
    let minted = SvidClient::new(ca.admin().await).mint_x509svid(MintX509svidRequest { csr, ttl: 0 }).await;

    assert!(registered.unwrap_err().to_string().contains("reserved path /vouchsafe"));
    assert!(token.is_err());
    assert_eq!(minted.unwrap_err().code(), Code::InvalidArgument);
    ca.stop().await;
}

async fn start(policies: &Path) -> TestCa {
    let policies = policies.to_owned();
    TestCa::start_with(|config| config.policies = Some(policies)).await
}

async fn watch(agent: &Agent, held: Vec<Vec<u8>>) -> Streaming<PolicyUpdate> {
    let mut client = PolicyClient::new(agent.channel()).max_decoding_message_size(16 * 1024 * 1024);
    client.watch_policies(WatchPoliciesRequest { held }).await.unwrap().into_inner()
}

/// The next whole set, verified with the bundle that the CA publishes.
async fn set(stream: &mut Streaming<PolicyUpdate>, ca: &TestCa) -> (Manifest, Vec<PolicyFile>) {
    let Step::Manifest(wire) = step(stream).await else { panic!("a set begins with its manifest") };
    let chain = wire.signer_chain.into_iter().map(Into::into).collect();
    let signed = SignedManifest { manifest: wire.manifest, signature: wire.signature, chain };
    let bundle = ca.client().await.bundle().await.unwrap();
    let trust_domain = bundle.trust_domain().clone();
    let anchors = Anchors::new(&BundleSet::from_iter([bundle]));
    let manifest = signed.verify(&anchors, &trust_domain, SIDECARS, SystemTime::now()).unwrap();
    let mut files = Vec::new();
    loop {
        match step(stream).await {
            Step::File(file) => files.push(file),
            Step::End(end) => {
                assert_eq!(end.number, manifest.number());
                return (manifest, files);
            }
            other => panic!("{other:?} within a set"),
        }
    }
}

async fn step(stream: &mut Streaming<PolicyUpdate>) -> Step {
    let next = tokio::time::timeout(std::time::Duration::from_secs(20), stream.message());
    next.await.unwrap().unwrap().unwrap().step.unwrap()
}

fn report(state: PolicyState) -> ReportStatusRequest {
    let status =
        PolicyStatus { state: state.into(), number: 1, generation: "0".repeat(64), ..Default::default() };
    let sidecar =
        SidecarStatus { spiffe_id: "spiffe://prod.test/web".into(), pid: 7, status: Some(status.clone()) };
    ReportStatusRequest { agent: Some(status), sidecars: vec![sidecar] }
}

fn names(files: &[PolicyFile]) -> Vec<&str> {
    files.iter().map(|file| file.name.as_str()).collect()
}

fn write(dir: &Path, file: &str, name: &str) {
    std::fs::write(dir.join(file), policy(name)).unwrap();
}

fn policy(name: &str) -> String {
    format!("vouchsafe: policy/v1\nname: {name}\nprotects: spiffe://prod.test/{name}\n")
}
