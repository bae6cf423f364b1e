//! What one client can do to the others: agents, workloads and strangers that take what they can get.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use identity::{PrivateKey, tls::connect_danger_unverified};
use proto::{
    spire::api::{
        server::{
            agent::v1::{AttestAgentRequest, agent_client::AgentClient, attest_agent_request},
            svid::v1::{BatchNewX509svidRequest, NewX509svidParams, svid_client::SvidClient},
        },
        types::{self, permission_denied_details::Reason},
    },
    vouchsafe::v1::{WatchAuthorizedEntriesRequest, registry_client::RegistryClient},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};
use tonic::Code;

use crate::{
    created,
    harness::{Agent, TestCa, reason},
    web,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_fill_the_memory_with_a_long_message() {
    let ca = TestCa::start().await;
    let data = types::AttestationData { r#type: "join_token".into(), payload: vec![b'x'; 64 * 1024] };
    let params = attest_agent_request::Params { data: Some(data), params: None };
    let request = AttestAgentRequest { step: Some(attest_agent_request::Step::Params(params)) };

    let refused = AgentClient::new(ca.stranger().await).attest_agent(tokio_stream::once(request)).await;

    assert_eq!(refused.unwrap_err().code(), Code::OutOfRange);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_take_the_connections_of_the_others() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let (greedy, other) = (Agent::attest(&ca, &client).await, Agent::attest(&ca, &client).await);
    let mut held = Vec::new();

    for _ in 0..40 {
        held.push(greedy.reconnect(&ca).await);
    }
    let mut served = 0;
    for connection in &held {
        served += usize::from(connection.try_sync().await.is_ok());
    }

    assert!((1..=16).contains(&served), "{served} connections are served");
    assert!(other.reconnect(&ca).await.try_sync().await.is_ok());
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_cannot_keep_the_others_from_shaking_hands() {
    let ca = TestCa::start().await;
    let mut idle = Vec::new();
    for _ in 0..320 {
        idle.push(TcpStream::connect(ca.ready.listen).await.unwrap());
    }

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0))).unwrap();
    let handshake = async {
        let stream = socket.connect(ca.ready.listen).await.unwrap();
        connect_danger_unverified(stream, &[]).await.is_ok()
    };
    let done = tokio::time::timeout(Duration::from_secs(5), handshake).await;

    assert_eq!(done, Ok(true));
    drop(idle);
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_keep_the_signers_busy() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let entry = created(&client, &web(agent.id())).await;
    let csr = PrivateKey::generate().unwrap().csr(None).unwrap();
    let params = vec![NewX509svidParams { entry_id: entry, csr }; 500];

    let mut calls = JoinSet::new();
    for _ in 0..32 {
        let (mut svids, params) = (SvidClient::new(agent.channel()), params.clone());
        calls.spawn(async move { svids.batch_new_x509svid(BatchNewX509svidRequest { params }).await });
    }
    let outcomes = calls.join_all().await;

    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let codes: Vec<_> = refused.map(tonic::Status::code).collect();
    assert!(!codes.is_empty() && codes.len() < outcomes.len(), "{codes:?}");
    assert!(codes.iter().all(|code| *code == Code::ResourceExhausted), "{codes:?}");
    let again = BatchNewX509svidRequest { params: Vec::new() };
    assert!(SvidClient::new(agent.channel()).batch_new_x509svid(again).await.is_ok());
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_svid_is_signed_for_an_entry_whose_time_is_over() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let key = PrivateKey::generate().unwrap();
    let mut spec = web(agent.id());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    spec.expires_at = i64::try_from(now.as_secs()).unwrap() + 2;
    let entry = created(&client, &spec).await;
    assert!(agent.sign(&entry, &key).await.is_ok());

    // Sooner than the CA looks for entries to remove.
    tokio::time::sleep(Duration::from_millis(2100)).await;

    assert_eq!(agent.sign(&entry, &key).await.unwrap_err().code, i32::from(Code::NotFound));
    ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_certificate_it_was_opened_with() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let agent = Agent::attest(&ca, &client).await;
    let mut watch = RegistryClient::new(agent.channel())
        .watch_authorized_entries(WatchAuthorizedEntriesRequest {})
        .await
        .unwrap()
        .into_inner();
    watch.message().await.unwrap().unwrap();

    let renewed = agent.renew(&ca).await;
    renewed.sync().await;

    let end =
        tokio::time::timeout(Duration::from_secs(5), watch.message()).await.expect("the stream goes on");
    assert_eq!(reason(&end.unwrap_err()), Some(Reason::AgentNotActive));
    ca.stop().await;
}
