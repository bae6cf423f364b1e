//! How tunnels and their streams end when a right does.

use super::{Stage, TCP_POLICY, TUNNEL, Web, echo, peer::Peer};
use crate::testing::{Authority, Backend, PATIENCE, SHOP, WEB, eventually};

/// Allows the shop to connect to one port.
fn only(port: u16) -> String {
    format!(
        "vouchsafe: policy/v1\nname: web\nprotects: spiffe://prod.test/web\nallow:\n  - name: one\n    from: \
         [spiffe://prod.test/shop]\n    tcp: {{port: {port}}}\n"
    )
}

#[tokio::test]
async fn a_change_of_policy_cuts_the_streams_it_concerns_and_no_others() {
    let web = Web::with(TCP_POLICY, &[echo().await, echo().await], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let mut kept = peer.connect_to(&web.listener(0).to_string()).await.unwrap();
    let mut cut = peer.connect_to(&web.listener(1).to_string()).await.unwrap();

    web.site.write_policy(&only(web.listener(0).port()));
    let error = cut.hear_all().await.unwrap_err();

    assert!(error.is_reset(), "{error}");
    kept.say("ping");
    assert_eq!(kept.hear(4).await.unwrap(), b"ping");
    assert_eq!(peer.connect_to(&web.listener(1).to_string()).await.unwrap_err(), 401);
    assert!(peer.connect_to(&web.listener(0).to_string()).await.is_ok());
    web.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "policy_changed").await;
}

#[tokio::test]
async fn a_withdrawn_root_cuts_the_tunnel_and_every_stream() {
    let other = Authority::new("other");
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(peer.connect_to(&web.listener(0).to_string()).await.unwrap());
    }

    web.site.write_identity(&other, WEB, &[&other]);

    for stream in &mut streams {
        assert!(stream.hear_all().await.is_err());
    }
    let ended = tokio::time::timeout(PATIENCE, peer.driver).await.expect("the end of the connection");
    assert!(ended.is_ok());
    let cut = eventually(async || {
        let mut records = web.site.records();
        records.retain(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "trust_withdrawn");
        (records.len() == 5).then_some(())
    });
    cut.await.expect("a record of each");
}

#[tokio::test]
async fn after_a_rotation_of_ours_callers_make_a_new_tunnel_and_streams_go_on() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let mut stream = peer.connect_to(&web.listener(0).to_string()).await.unwrap();

    web.site.write_identity(&web.authority, WEB, &[&web.authority]);
    peer.wait_for_goaway().await;

    stream.say("ping");
    assert_eq!(stream.hear(4).await.unwrap(), b"ping");
    stream.end();
    assert_eq!(stream.hear_all().await.unwrap(), b"");
    let ended = tokio::time::timeout(PATIENCE, peer.driver).await.expect("the end of the connection");
    assert!(ended.unwrap().is_ok());
}

#[tokio::test]
async fn when_a_callers_certificate_expires_its_tunnel_takes_no_further_streams() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let soon = time::OffsetDateTime::now_utc() + time::Duration::seconds(3);
    let svid = web.authority.svid_with(SHOP, |params| params.not_after = soon);
    let bundles = [web.authority.bundle(crate::testing::DOMAIN)].into_iter().collect();
    let credentials = identity::Credentials::new(std::sync::Arc::new(svid), bundles).unwrap();
    let peer = Peer::connect(&credentials, web.tunnels()).await;
    let mut stream = peer.connect_to(&web.listener(0).to_string()).await.unwrap();

    peer.wait_for_goaway().await;

    stream.say("ping");
    assert_eq!(stream.hear(4).await.unwrap(), b"ping");
}

#[tokio::test]
async fn a_sidecar_that_stops_says_goodbye_and_finishes_its_streams() {
    let stage = Stage::inbound_with("tcp", Backend::start(|_| (0, "")).await, TUNNEL).await;
    let peer = Peer::connect(&stage.authority.credentials(SHOP), stage.tunnels()).await;
    let mut stream = peer.connect_to(&stage.authority()).await.unwrap();

    stage.sidecar.stop.cancel();
    peer.wait_for_goaway().await;
    stream.say("last");
    stream.end();

    assert_eq!(stream.hear_all().await.unwrap(), b"");
    let ended = tokio::time::timeout(PATIENCE, stage.sidecar.ended).await.expect("an end").unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(stage.backend.received(), "last");
}
