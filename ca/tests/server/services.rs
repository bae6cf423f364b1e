//! Services: applied whole or not at all, pushed, numbered, and signed as what they are.

use std::time::{Duration, SystemTime};

use ca::{
    catalogue::{Change, Prune, Wish},
    client::ClientError,
    policies::status::HandedOut,
};
use identity::{
    Anchors, BundleSet, TrustDomain,
    manifest::{Kind, Manifest, ManifestError, SignedManifest},
};
use policy::{
    service::{Entry, EntryKind},
    strict::Source,
};
use proto::vouchsafe::v1::{
    ApplyServicesRequest, ListServicesRequest, PolicyFile, PolicyState, PolicyStatus, PolicyUpdate,
    ReportStatusRequest, SidecarStatus, WatchPoliciesRequest, policy_update::Step,
    services_client::ServicesClient,
};
use tonic::{Code, Streaming};

use crate::harness::{Agent, TestCa, id};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_pushed_and_only_what_changed_is_sent() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let mut stream = watch(&agent).await;
    let before = step(&mut stream).await;

    client.apply_services(&wish(&[service("shop", 80), service("db", 5432)])).await.unwrap();
    let (first, files) = set(&mut stream, &ca).await;
    client.apply_services(&wish(&[service("shop", 81)])).await.unwrap();
    let (second, changed) = set(&mut stream, &ca).await;

    assert!(matches!(before, Step::None(_)), "{before:?}");
    assert_eq!((first.number(), files.len()), (1, 2));
    assert_eq!((second.number(), second.files().len(), changed.len()), (2, 2, 1));
    let text = String::from_utf8(changed[0].content.clone()).unwrap();
    let entry = policy::service::entry(&Source::new("entry", text)).unwrap();
    assert_eq!(entry, service("shop", 81));
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_services_is_none_of_policies_though_the_same_signer_made_it() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    client.apply_services(&wish(&[service("shop", 80)])).await.unwrap();

    let Step::Manifest(wire) = step(&mut watch(&agent).await).await else { panic!("no manifest") };

    let refused = verify(wire, &ca, Kind::Policies).await;
    assert!(matches!(refused, Err(ManifestError::Audience { .. })), "{refused:?}");
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_of_each_entry_is_told_and_a_conflict_changes_nothing() {
    let ca = TestCa::start().await;
    let client = ca.client().await;

    let made = client.apply_services(&wish(&[service("a", 1), service("b", 2)])).await.unwrap();
    let mixed =
        client.apply_services(&wish(&[service("a", 1), service("b", 3), service("c", 4)])).await.unwrap();
    let clash = client.apply_services(&wish(&[service("d", 4), service("e", 9)])).await.unwrap();
    let pruned =
        client.apply_services(&Wish { prune: Prune::Remove, ..wish(&[service("a", 1)]) }).await.unwrap();
    let removed = client
        .apply_services(&Wish { remove: vec![(EntryKind::Service, "a".into())], ..wish(&[]) })
        .await
        .unwrap();

    let changes = |applied: &ca::client::AppliedServices| -> Vec<Change> {
        applied.outcomes.iter().map(|outcome| outcome.change).collect()
    };
    assert_eq!(changes(&made), [Change::Created, Change::Created]);
    assert_eq!(changes(&mixed), [Change::Unchanged, Change::Updated, Change::Created]);
    assert_eq!((clash.conflicts.len(), clash.conflicts[0].name.as_str()), (1, "d"));
    assert_eq!(changes(&pruned), [Change::Unchanged, Change::Removed, Change::Removed]);
    assert_eq!(changes(&removed), [Change::Removed]);
    let services = client.services().await.unwrap();
    assert_eq!((services.entries.len(), services.set.unwrap().number), (0, 4));
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_every_entry_and_the_number() {
    let ca = TestCa::start().await;
    ca.client().await.apply_services(&wish(&[service("shop", 80), service("db", 5432)])).await.unwrap();
    let before = ca.client().await.services().await.unwrap();
    let agent = Agent::attest(&ca, &ca.client().await).await;

    let ca = ca.restart().await;
    let agent = agent.reconnect(&ca).await;
    let after = ca.client().await.services().await.unwrap();
    let (manifest, files) = set(&mut watch(&agent).await, &ca).await;

    assert_eq!(before, after);
    assert_eq!((manifest.number(), files.len()), (1, 2));
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_apply_and_list_and_only_agents_watch() {
    let ca = TestCa::start().await;
    let agent = Agent::attest(&ca, &ca.client().await).await;
    let documents = vec![service("shop", 80).document()];
    let request = ApplyServicesRequest { documents, ..Default::default() };

    for channel in [agent.channel(), ca.stranger().await] {
        let mut client = ServicesClient::new(channel);
        let applied = client.apply_services(request.clone()).await.unwrap_err();
        let listed = client.list_services(ListServicesRequest {}).await.unwrap_err();
        assert_eq!((applied.code(), listed.code()), (Code::PermissionDenied, Code::PermissionDenied));
    }
    for channel in [ca.admin().await, ca.stranger().await] {
        let watched = ServicesClient::new(channel).watch_services(WatchPoliciesRequest::default()).await;
        assert_eq!(watched.unwrap_err().code(), Code::PermissionDenied);
    }
    assert!(ca.client().await.services().await.unwrap().entries.is_empty());
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flawed_request_is_refused_whole() {
    let ca = TestCa::start().await;
    let mut client = ServicesClient::new(ca.admin().await);
    let sound = service("shop", 80).document();
    let flaws = [
        ApplyServicesRequest { documents: vec![sound.clone(), "{}".into()], ..Default::default() },
        ApplyServicesRequest { documents: vec![sound.replace("80", "0")], ..Default::default() },
        ApplyServicesRequest {
            documents: vec![String::new(); policy::service::MAX_ENTRIES + 1],
            ..Default::default()
        },
        ApplyServicesRequest {
            documents: vec![sound],
            remove: vec![proto::vouchsafe::v1::EntryName { kind: "policy".into(), name: "a".into() }],
            ..Default::default()
        },
    ];

    for flawed in flaws {
        let refused = client.apply_services(flawed).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }

    assert!(ca.client().await.services().await.unwrap().set.is_none());
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_tell_of_services_stands_apart_from_what_they_tell_of_policies() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    client.apply_services(&wish(&[service("shop", 80)])).await.unwrap();
    let status = PolicyStatus {
        state: PolicyState::InForce.into(),
        number: 1,
        generation: "0".repeat(64),
        ..Default::default()
    };
    let sidecar = SidecarStatus { spiffe_id: id("/web").to_string(), pid: 7, status: Some(status.clone()) };
    let report = ReportStatusRequest { agent: Some(status), sidecars: vec![sidecar] };

    ServicesClient::new(agent.channel()).report_services(report).await.unwrap();
    let services = client.service_status().await.unwrap();
    let policies = client.policy_status().await.unwrap();

    assert!(matches!(&services.handed_out, HandedOut::Set { set, .. } if set.number == 1));
    assert_eq!(services.agents[0].told.as_ref().unwrap().sidecars[0].id, id("/web"));
    assert_eq!((policies.handed_out, policies.agents[0].told.as_ref()), (HandedOut::Nothing, None));
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_catalogue_is_applied_at_once_and_pushed() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let mut stream = watch(&agent).await;
    step(&mut stream).await;
    let count = policy::service::MAX_ENTRIES;
    let entries: Vec<Entry> = (0..count).map(|at| service(&format!("s{at}"), 80)).map(host).collect();

    let begun = std::time::Instant::now();
    let applied = client.apply_services(&wish(&entries)).await.unwrap();
    let applying = begun.elapsed();
    let (manifest, files) = set(&mut stream, &ca).await;
    println!("{count} services applied in {applying:?}, there after {:?}", begun.elapsed());

    assert_eq!((applied.conflicts.len(), applied.outcomes.len()), (0, count));
    assert_eq!((manifest.files().len(), files.len()), (count, count));
    let one_more = client.apply_services(&wish(&[service("one-more", 80)])).await;
    let one_more = one_more.map(|applied| applied.conflicts.len());
    assert!(matches!(one_more, Ok(1..) | Err(ClientError::Refused(_))), "{one_more:?}");
    ca.stop().await;
}

/// The same entry, found by its own name.
fn host(entry: Entry) -> Entry {
    let Entry::Service(mut service) = entry else { panic!("no service") };
    service.hosts = vec![service.name.clone()];
    Entry::Service(service)
}

fn service(name: &str, port: u16) -> Entry {
    let text = format!(
        "vouchsafe: services/v1\nservices: [{{name: {name}, hosts: [h], ports: [{port}], protocol: tcp, expect: [spiffe://prod.test/shop], endpoints: [{{address: \"10.0.0.1:1\"}}]}}]\n"
    );
    let domain = TrustDomain::parse("prod.test").unwrap();
    policy::service::parse(&[Source::new("a.yaml", text)], &domain).unwrap().remove(0)
}

fn wish(entries: &[Entry]) -> Wish {
    Wish { entries: entries.to_vec(), remove: Vec::new(), prune: Prune::Keep, dry_run: false }
}

async fn watch(agent: &Agent) -> Streaming<PolicyUpdate> {
    let mut client = ServicesClient::new(agent.channel()).max_decoding_message_size(16 * 1024 * 1024);
    client.watch_services(WatchPoliciesRequest::default()).await.unwrap().into_inner()
}

async fn verify(
    wire: proto::vouchsafe::v1::SignedManifest,
    ca: &TestCa,
    kind: Kind,
) -> Result<Manifest, ManifestError> {
    let chain = wire.signer_chain.into_iter().map(Into::into).collect();
    let signed = SignedManifest { manifest: wire.manifest, signature: wire.signature, chain };
    let bundle = ca.client().await.bundle().await.unwrap();
    let trust_domain = bundle.trust_domain().clone();
    let anchors = Anchors::new(&BundleSet::from_iter([bundle]));
    signed.verify(&anchors, &trust_domain, kind.audience(), SystemTime::now())
}

/// The next whole set, verified with the bundle that the CA publishes.
async fn set(stream: &mut Streaming<PolicyUpdate>, ca: &TestCa) -> (Manifest, Vec<PolicyFile>) {
    let Step::Manifest(wire) = step(stream).await else { panic!("a set begins with its manifest") };
    let manifest = verify(wire, ca, Kind::Services).await.unwrap();
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
    let next = tokio::time::timeout(Duration::from_secs(20), stream.message());
    next.await.unwrap().unwrap().unwrap().step.unwrap()
}
