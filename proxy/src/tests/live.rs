//! A right that is withdrawn ends what lives by it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CLOSED, POLICY, Stage, TCP_POLICY};
use crate::testing::{
    Authority, Backend, Client, HELLO, SHOP, WEB, call, eventually, read_all, read_response,
};

async fn is_reset(client: &mut Client) -> bool {
    let ended = read_all(client).await;
    matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

async fn ping(client: &mut Client) {
    client.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"pong");
}

async fn tcp() -> Stage {
    Stage::inbound("tcp", Backend::start(|bytes| (bytes.len() / 4, "pong")).await).await
}

#[tokio::test]
async fn a_live_tcp_connection_that_a_new_policy_forbids_is_reset_and_recorded() {
    let stage = tcp().await;
    let mut client = stage.shop().await;
    ping(&mut client).await;

    stage.site.write_policy(CLOSED);

    assert!(is_reset(&mut client).await);
    let denial = stage.site.denial("no_allow_matched").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["stage"], "reevaluate");
    assert_eq!(denial["src_endpoint"]["uid"], SHOP);
    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "policy_changed").await;
}

#[tokio::test]
async fn an_idle_keep_alive_connection_that_a_new_policy_forbids_is_reset() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    read_response(&mut client).await;

    stage.site.write_policy(CLOSED);

    assert!(is_reset(&mut client).await);
    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "policy_changed").await;
}

#[tokio::test]
async fn a_request_in_flight_that_a_new_policy_forbids_is_cut_and_others_are_not() {
    let stage = Stage::inbound(
        "http",
        Backend::start(|bytes| (usize::from(bytes.starts_with(b"GET /fast")), HELLO)).await,
    )
    .await;
    let mut slow = stage.shop().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let mut fast = stage.shop().await;
    fast.write_all(b"GET /fast HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    read_response(&mut fast).await;
    eventually(async || stage.backend.received().contains("/slow").then_some(())).await.unwrap();

    stage.site.write_policy(&POLICY.replace("/admin/**", "/slow/**"));

    assert!(is_reset(&mut slow).await);
    let denial = stage.site.denial("explicit_deny").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["stage"], "reevaluate");
    fast.write_all(b"GET /fast HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await.unwrap();
    // Its upstream answers once for each connection: what matters is that the connection still takes requests.
    assert!(fast.flush().await.is_ok());
}

#[tokio::test]
async fn a_keep_alive_connection_is_decided_by_the_policy_of_the_moment() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;
    client.write_all(b"GET /x HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (before, ..) = read_response(&mut client).await;

    stage.site.write_policy(&POLICY.replace("/admin/**", "/x/**"));
    let after = eventually(async || {
        client.write_all(b"GET /x HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
        let (status, ..) = read_response(&mut client).await;
        (status != 200).then_some(status)
    })
    .await;

    assert_eq!((before, after), (200, Some(403)));
}

#[tokio::test]
async fn a_broken_reload_keeps_the_last_good_policies_and_says_so() {
    let stage = tcp().await;
    let mut client = stage.shop().await;

    stage.site.write_policy("vouchsafe: policy/v1\nname: web\nprotekts: x\n");
    let warned = eventually(async || {
        let (_, body) = stage.sidecar.admin("/readyz").await;
        body.contains("policy_reload").then_some(body)
    })
    .await
    .expect("a warning");

    assert!(warned.contains("\"ready\": true"), "{warned}");
    ping(&mut client).await;
    ping(&mut stage.shop().await).await;
    let (_, metrics) = stage.sidecar.admin("/metrics").await;
    assert!(metrics.contains("vouchsafe_proxy_policy_loads_total{outcome=\"refused\"} 1"), "{metrics}");
    stage.site.write_policy(TCP_POLICY);
    let cleared = eventually(async || {
        (!stage.sidecar.admin("/readyz").await.1.contains("policy_reload")).then_some(())
    });
    assert!(cleared.await.is_some());
}

#[tokio::test]
async fn a_broken_first_load_denies_everything_and_is_not_ready() {
    let authority = Authority::new("prod");
    let site = crate::testing::Site::new(&authority, WEB, "vouchsafe: policy/v1\n");
    let backend = Backend::start(|_| (0, "")).await;
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: tcp, application: {}}}\n",
        site.base(),
        backend.address
    );
    let sidecar = crate::testing::Sidecar::start(&text).await;
    let refused =
        eventually(async || sidecar.admin("/readyz").await.1.contains("policy.yaml").then_some(())).await;
    assert!(refused.is_some(), "{:?}", sidecar.admin("/readyz").await);
    eventually(async || {
        site.records().iter().any(|record| record.to_string().contains("identity_rotated")).then_some(())
    })
    .await;

    let mut client = call(&authority.credentials(SHOP), sidecar.inbound()).await;

    assert!(is_reset(&mut client).await);
    site.denial("policy_unavailable").await;
    assert_eq!(sidecar.admin("/readyz").await.0, 503);
    site.write_policy(TCP_POLICY);
    sidecar.wait_ready(200).await;
}

#[tokio::test]
async fn a_withdrawn_root_ends_the_connections_it_vouched_for_and_no_others() {
    let stage = tcp().await;
    let other = Authority::new("next");
    stage.site.write_identity(&stage.authority, WEB, &[&stage.authority, &other]);
    let mut old = stage.shop().await;
    ping(&mut old).await;
    let bundles = [stage.authority.bundle("prod.test")].into_iter().collect();
    let credentials = identity::Credentials::new(other.svid(SHOP).into(), bundles).unwrap();
    let mut new = eventually(async || {
        let mut client = call(&credentials, stage.sidecar.inbound()).await;
        client.write_all(b"ping").await.ok()?;
        client.read_exact(&mut [0; 4]).await.ok()?;
        Some(client)
    })
    .await
    .expect("the new root is trusted");

    stage.site.write_identity(&other, WEB, &[&other]);

    assert!(is_reset(&mut old).await);
    ping(&mut new).await;
    stage.site.denial("trust_withdrawn").await;
}

#[tokio::test]
async fn a_rotation_of_the_own_identity_breaks_nothing() {
    let stage = tcp().await;
    let mut client = stage.shop().await;
    ping(&mut client).await;

    stage.site.write_identity(&stage.authority, WEB, &[&stage.authority]);
    stage
        .site
        .record(|record| {
            record.to_string().contains("identity_rotated")
                && record["metadata"]["sequence"].as_u64() > Some(3)
        })
        .await;

    ping(&mut client).await;
    ping(&mut stage.shop().await).await;
}

#[tokio::test]
async fn an_http_connection_takes_no_request_after_the_certificate_of_its_peer() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = call(&brief(&stage.authority), stage.sidecar.inbound()).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (status, ..) = read_response(&mut client).await;

    let rest = read_all(&mut client).await.unwrap();

    assert_eq!((status, rest.as_slice()), (200, &b""[..]));
    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "peer_expired").await;
}

#[tokio::test]
async fn a_request_that_is_being_answered_when_the_certificate_of_its_peer_expires_is_answered() {
    let answer = |bytes: &[u8]| (usize::from(bytes.ends_with(b"late")), HELLO);
    let stage = Stage::inbound("http", Backend::start(answer).await).await;
    let mut client = call(&brief(&stage.authority), stage.sidecar.inbound()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\n").await.unwrap();
    tokio::time::sleep(BRIEF + Duration::from_secs(2)).await;

    client.write_all(b"late").await.unwrap();
    let (status, head, _) = read_response(&mut client).await;

    assert_eq!(status, 200);
    assert!(head.contains("connection: close"), "{head}");
}

/// An identity that is about to expire.
fn brief(authority: &Authority) -> identity::Credentials {
    let svid = authority.svid_with(SHOP, |params| params.not_after = time::OffsetDateTime::now_utc() + BRIEF);
    identity::Credentials::new(svid.into(), [authority.bundle("prod.test")].into_iter().collect()).unwrap()
}

const BRIEF: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_mounted_directory_that_is_swapped_by_a_link_is_loaded() {
    let stage = tcp().await;
    let mut client = stage.shop().await;
    ping(&mut client).await;
    let directory = stage.site.path("policies");
    std::fs::remove_file(directory.join("policy.yaml")).unwrap();
    std::fs::create_dir(directory.join("..1")).unwrap();
    std::fs::write(directory.join("..1/policy.yaml"), CLOSED).unwrap();

    std::os::unix::fs::symlink("..1", directory.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/policy.yaml", directory.join("policy.yaml")).unwrap();

    assert!(is_reset(&mut client).await);
    tokio::time::sleep(Duration::from_millis(10)).await;
}
