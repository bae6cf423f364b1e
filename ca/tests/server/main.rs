//! The CA as agents and operators meet it: real listeners, real TLS, a real database.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail the test that calls them"
)]

mod harness;
mod hostile;
mod policies;
mod services;

use std::time::Duration;

use ca::{
    client::{Client, Outcome},
    entries::Prune,
    model::{EntrySpec, Selector, Standing},
};
use harness::{Agent, TestCa, id, reason};
use identity::{Anchors, BundleSet, PrivateKey, Role, verify};
use proto::{
    spire::api::{
        server::{
            agent::v1::{CreateJoinTokenRequest, RenewAgentRequest, agent_client::AgentClient},
            bundle::v1::{CountBundlesRequest, bundle_client::BundleClient},
            entry::v1::{
                CountEntriesRequest, GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest,
                entry_client::EntryClient,
            },
            svid::v1::{
                BatchNewX509svidRequest, MintX509svidRequest, NewDownstreamX509caRequest, NewX509svidParams,
                svid_client::SvidClient,
            },
        },
        types::{self, permission_denied_details::Reason},
    },
    vouchsafe::v1::{WatchAuthorizedEntriesRequest, registry_client::RegistryClient},
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_attests_syncs_signs_renews_and_is_banned() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let entry = created(&client, &web(agent.id())).await;

    // Sync sees the entry, and signing makes an SVID that the verifier accepts.
    let synced = agent.sync().await;
    assert_eq!(synced.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), [entry.as_str()]);
    let key = PrivateKey::generate().unwrap();
    let svid = agent.sign(&entry, &key).await.unwrap();
    let bundle = client.bundle().await.unwrap();
    let anchors = Anchors::new(&BundleSet::from_iter([bundle]));
    let leaf = svid.cert_chain[0].clone().into();
    let peer = verify(&leaf, &[], &anchors, Role::Client, std::time::SystemTime::now()).unwrap();
    assert_eq!(peer.id(), &id("/web"));

    // Renewal: both certificates count until the new one is shown, then only that.
    let renewed = agent.renew(&ca).await;
    assert_eq!(agent.sync().await.len(), 1);
    assert_eq!(renewed.sync().await.len(), 1);
    let stale = agent.try_sync().await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale)), (Code::PermissionDenied, Some(Reason::AgentNotActive)));

    // A ban counts at once, on the open connection.
    client.ban_agent(agent.id()).await.unwrap();
    let banned = renewed.try_sync().await.unwrap_err();
    assert_eq!((banned.code(), reason(&banned)), (Code::PermissionDenied, Some(Reason::AgentBanned)));
    assert_eq!(client.agents().await.unwrap()[0].standing, Standing::Banned);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_pushed_and_a_ban_ends_the_stream() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let mut watch = RegistryClient::new(agent.channel())
        .watch_authorized_entries(WatchAuthorizedEntriesRequest {})
        .await
        .unwrap()
        .into_inner();

    let first = watch.message().await.unwrap().unwrap();
    assert!(first.complete && first.changed.is_empty());
    assert_eq!(first.bundle.unwrap().x509_authorities.len(), 1);

    let began = std::time::Instant::now();
    let entry = created(&client, &web(agent.id())).await;
    let news = watch.message().await.unwrap().unwrap();
    println!("a new entry was pushed after {:?}", began.elapsed());
    assert!(!news.complete && news.bundle.is_none());
    assert_eq!(news.changed[0].id, entry);

    // An entry of somebody else is nobody's news here; the deletion that follows is.
    created(&client, &web(&id("/node/other"))).await;
    let entry = ca::model::EntryId::parse(&entry).unwrap();
    client.delete_entries(std::slice::from_ref(&entry)).await.unwrap();
    let news = watch.message().await.unwrap().unwrap();
    assert_eq!((news.changed.len(), news.removed), (0, vec![entry.to_string()]));

    client.ban_agent(agent.id()).await.unwrap();
    let end = watch.message().await.unwrap_err();
    assert_eq!(reason(&end), Some(Reason::AgentBanned));
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_admits_one_key_and_that_key_again() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let token = client.create_token(Duration::from_secs(600), Some(&id("/node/a"))).await.unwrap();
    let keys: Vec<_> = (0..4).map(|_| PrivateKey::generate().unwrap()).collect();

    let attempts = keys.iter().map(|key| harness::attest(&ca, token.value.expose(), key));
    let outcomes = futures_util::future::join_all(attempts).await;

    let winners: Vec<_> = keys.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).collect();
    assert_eq!(winners.len(), 1);
    for lost in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(lost.code(), Code::InvalidArgument);
    }
    assert!(harness::attest(&ca, token.value.expose(), winners[0].0).await.is_ok());
    let aliases = client.entries(&Default::default()).await.unwrap();
    assert_eq!(aliases.iter().map(|entry| entry.spec.spiffe_id.path()).collect::<Vec<_>>(), ["/node/a"]);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_signs_only_what_lies_below_it() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let (mine, other) = (Agent::attest(&ca, &client).await, Agent::attest(&ca, &client).await);
    let entry = created(&client, &web(mine.id())).await;
    let key = PrivateKey::generate().unwrap();

    assert!(mine.sign(&entry, &key).await.is_ok());
    assert_eq!(other.sign(&entry, &key).await.unwrap_err().code, i32::from(Code::NotFound));
    assert_eq!(mine.sign("missing", &key).await.unwrap_err().code, i32::from(Code::NotFound));
    assert!(other.sync().await.is_empty());
    let garbage = NewX509svidParams { entry_id: entry.clone(), csr: vec![1, 2, 3] };
    let request = BatchNewX509svidRequest { params: vec![garbage] };
    let results =
        SvidClient::new(mine.channel()).batch_new_x509svid(request).await.unwrap().into_inner().results;
    assert_eq!(results[0].status.as_ref().unwrap().code, i32::from(Code::InvalidArgument));
    let request = BatchNewX509svidRequest { params: vec![NewX509svidParams::default(); 501] };
    let refused = SvidClient::new(mine.channel()).batch_new_x509svid(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_agents_reach_no_operators_method() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;

    for channel in [ca.stranger().await, agent.channel()] {
        let count = EntryClient::new(channel.clone()).count_entries(CountEntriesRequest::default()).await;
        assert_eq!(count.unwrap_err().code(), Code::PermissionDenied);
        let request = CreateJoinTokenRequest { ttl: 60, ..Default::default() };
        let token = AgentClient::new(channel.clone()).create_join_token(request).await;
        assert_eq!(token.unwrap_err().code(), Code::PermissionDenied);
        let mint = SvidClient::new(channel).mint_x509svid(MintX509svidRequest::default()).await;
        assert_eq!(mint.unwrap_err().code(), Code::PermissionDenied);
    }
    let authorised = EntryClient::new(ca.stranger().await)
        .get_authorized_entries(GetAuthorizedEntriesRequest::default())
        .await;
    assert_eq!(authorised.unwrap_err().code(), Code::PermissionDenied);
    let renewal = AgentClient::new(ca.stranger().await).renew_agent(RenewAgentRequest::default()).await;
    assert_eq!(renewal.unwrap_err().code(), Code::PermissionDenied);
    let downstream = SvidClient::new(ca.stranger().await)
        .new_downstream_x509ca(NewDownstreamX509caRequest::default())
        .await;
    assert_eq!(downstream.unwrap_err().code(), Code::Unimplemented);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_of_an_admin_entry_may_do_what_the_socket_may() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let mut spec = web(agent.id());
    spec.admin = true;
    let entry = created(&client, &spec).await;
    let key = PrivateKey::generate().unwrap();
    let svid = agent.sign(&entry, &key).await.unwrap();

    let admin = ca.channel_as(svid, key).await;

    assert!(BundleClient::new(admin.clone()).count_bundles(CountBundlesRequest {}).await.is_ok());
    client.delete_entries(&[ca::model::EntryId::parse(&entry).unwrap()]).await.unwrap();
    let after = BundleClient::new(admin).count_bundles(CountBundlesRequest {}).await;
    assert_eq!(after.unwrap_err().code(), Code::PermissionDenied);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_root_entries_and_agents() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    created(&client, &web(agent.id())).await;
    let before = client.bundle().await.unwrap();

    let ca = ca.restart().await;

    assert_eq!(ca.client().await.bundle().await.unwrap(), before);
    let agent = agent.reconnect(&ca).await;
    assert_eq!(agent.sync().await.len(), 1);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ca_on_the_same_data_is_refused() {
    let ca = TestCa::start().await;

    let refused = ca::run(ca.config.clone(), Default::default(), |_| {}).await.unwrap_err().to_string();

    assert!(refused.contains(ca.config.data_dir.to_str().unwrap()), "{refused}");
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let ca = TestCa::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = TestCa::config(dir.path());
    config.listen = ca.ready.listen;

    let refused = ca::run(config, Default::default(), |_| {}).await.unwrap_err().to_string();

    assert!(refused.contains(&ca.ready.listen.to_string()), "{refused}");
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entries_directory_is_followed_and_a_broken_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ca = TestCa::start_with(|config| config.entries_dir = Some(dir.path().into())).await;
    let client = ca.client().await;
    let file = dir.path().join("web.yaml");
    let text = "vouchsafe: entries/v1\nentries:\n  - spiffe_id: spiffe://prod.test/web\n    node: a\n    \
                selectors: [unix:uid:1]\n";
    let count = async || client.count_entries().await.unwrap();

    std::fs::write(&file, text).unwrap();
    harness::until("the entry is there", async || count().await == 1).await;

    let entry = client.entries(&Default::default()).await.unwrap().remove(0);
    let outcome = client.delete_entries(std::slice::from_ref(&entry.id)).await.unwrap().remove(0);
    assert!(matches!(outcome, Outcome::Refused(_)));

    std::fs::write(&file, format!("{text}    hnit: x\n")).unwrap();
    harness::until("health tells of the flaw", async || ca.http("/readyz").await.contains("web.yaml:6"))
        .await;
    assert_eq!(count().await, 1);

    std::fs::remove_file(&file).unwrap();
    harness::until("the entry is gone", async || count().await == 0).await;
    harness::until("health is well", async || ca.http("/readyz").await.contains("200 OK")).await;
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_list_is_applied_and_a_second_time_changes_nothing() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let (mut web, db) = (web(&id("/node/a")), spec("/db", &id("/node/a")));
    client.create_entries(&[web.clone(), spec("/old", &id("/node/a"))]).await.unwrap();
    web.hint = "internal".into();

    let first = client.apply(&[web.clone(), db.clone()], Prune::Delete).await.unwrap();
    let second = client.apply(&[web, db], Prune::Delete).await.unwrap();

    assert!(first.is_complete());
    assert_eq!((first.changes.len(), first.unchanged), (3, 0));
    assert_eq!((second.changes.len(), second.unchanged), (0, 2));
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happened() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let entry = created(&client, &web(agent.id())).await;
    agent.sign(&entry, &PrivateKey::generate().unwrap()).await.unwrap();

    let metrics = ca.http("/metrics").await;

    for line in [
        "vouchsafe_ca_svids_issued_total{kind=\"Agent\"} 1",
        "vouchsafe_ca_svids_issued_total{kind=\"Workload\"} 1",
        "vouchsafe_ca_attestations_total{outcome=\"Admitted\"} 1",
        "vouchsafe_ca_agents 1",
        "vouchsafe_ca_entries 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(ca.http("/livez").await.contains("200 OK"));
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_or_with_a_foreign_certificate_is_not_let_in() {
    let ca = TestCa::start().await;
    let foreign = TestCa::start().await;
    let client = foreign.client().await;
    let stranger = Agent::attest(&foreign, &client).await;

    ca.plaintext().await;
    harness::until("the plaintext is counted", async || failed_handshakes(&ca).await == 1).await;
    let refused = stranger.try_other_ca(&ca).await;

    assert!(refused.is_err());
    harness::until("the foreign certificate is counted", async || failed_handshakes(&ca).await >= 2).await;
    ca.stop().await;
    foreign.stop().await;
}

async fn failed_handshakes(ca: &TestCa) -> usize {
    let metrics = ca.http("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("vouchsafe_ca_handshakes_failed_total"));
    line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_with_ids_breaks_the_protocol() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let request = SyncAuthorizedEntriesRequest { ids: vec!["a".into()], output_mask: None };

    let stream = EntryClient::new(agent.channel()).sync_authorized_entries(tokio_stream::once(request)).await;

    let refused = stream.unwrap().into_inner().message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_mint_for_a_workload_but_not_for_the_ca() {
    let ca = TestCa::start().await;
    let mint = async |path: &str| {
        let csr = PrivateKey::generate().unwrap().csr(Some(&id(path))).unwrap();
        let request = MintX509svidRequest { csr, ttl: 60 };
        SvidClient::new(ca.admin().await).mint_x509svid(request).await
    };

    let minted = mint("/ops").await.unwrap().into_inner().svid.unwrap();

    assert_eq!(minted.id, Some(types::Spiffeid { trust_domain: "prod.test".into(), path: "/ops".into() }));
    assert_eq!(mint("/spire/server").await.unwrap_err().code(), Code::InvalidArgument);
    ca.stop().await;
}

async fn created(client: &Client, spec: &EntrySpec) -> String {
    match client.create_entries(std::slice::from_ref(spec)).await.unwrap().remove(0) {
        Outcome::Done(listing) => listing.id,
        other => panic!("not created: {other:?}"),
    }
}

fn web(parent: &identity::SpiffeId) -> EntrySpec {
    spec("/web", parent)
}

fn spec(path: &str, parent: &identity::SpiffeId) -> EntrySpec {
    EntrySpec::new(id(path), parent.clone(), vec![Selector::parse("unix:uid:1000").unwrap()])
}
