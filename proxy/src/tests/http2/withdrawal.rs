//! A right that is withdrawn ends the requests that live by it, and no others.

use std::time::Duration;

use h2::Reason;

use super::{Setting, get, peers::Caller};
use crate::{
    testing::{PATIENCE, SHOP, call, eventually},
    tests::{CLOSED, POLICY},
};

#[tokio::test]
async fn a_request_that_a_new_policy_forbids_is_reset_and_the_others_of_its_connection_go_on() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let (_slow, forbidden) = caller.open(get("/slow"), true);
    let mut endless = caller.begin(get("/endless")).await.unwrap();
    eventually(async || (setting.application.requests() == 2).then_some(())).await.unwrap();

    setting.stage.site.write_policy(&POLICY.replace("/admin/**", "/slow/**"));
    let error = tokio::time::timeout(PATIENCE, forbidden).await.expect("an end").unwrap_err();

    assert!(error.is_reset());
    // gRPC reads it as a denial of permission.
    assert_eq!(error.reason(), Some(Reason::INADEQUATE_SECURITY));
    let denial = setting.stage.site.denial("explicit_deny").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["stage"], "reevaluate");
    assert!(endless.body_mut().data().await.unwrap().is_ok());
    assert_eq!(caller.ask(get("/hello")).await.unwrap().status, 200);
    let told = eventually(async || setting.application.resets().first().copied()).await;
    assert_eq!(told, Some(Reason::CANCEL));
}

#[tokio::test]
async fn a_connection_that_a_new_policy_forbids_is_told_so_and_reset_with_all_its_requests() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let (_slow, waiting) = caller.open(get("/slow"), true);
    eventually(async || (setting.application.requests() == 1).then_some(())).await.unwrap();

    setting.stage.site.write_policy(CLOSED);
    let ended = tokio::time::timeout(PATIENCE, waiting).await.expect("an end");

    assert!(ended.is_err());
    assert!(caller.ended().await);
    setting.stage.site.denial("no_allow_matched").await;
    setting
        .stage
        .site
        .record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "policy_changed")
        .await;
    assert!(eventually(async || (!setting.application.resets().is_empty()).then_some(())).await.is_some());
}

#[tokio::test]
async fn a_request_is_decided_by_the_policy_of_the_moment() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let before = caller.ask(get("/x")).await.unwrap().status.as_u16();

    setting.stage.site.write_policy(&POLICY.replace("/admin/**", "/x/**"));
    let after = eventually(async || {
        // One that is under way when the policy comes is reset.
        let status = caller.ask(get("/x")).await.ok()?.status.as_u16();
        (status != 200).then_some(status)
    })
    .await;

    assert_eq!((before, after), (200, Some(403)));
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_finish_and_takes_no_more() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let (mut body, response) = caller.open(super::post("/echo"), false);
    let mut response = response.await.unwrap();

    setting.stage.sidecar.stop.cancel();
    setting.stage.sidecar.wait_ready(503).await;
    body.send_data("late".into(), true).unwrap();
    let back = response.body_mut().data().await.unwrap().unwrap();
    let trailers = response.body_mut().trailers().await.unwrap().unwrap();

    assert_eq!((&back[..], &trailers["grpc-status"]), (&b"late"[..], &"0".parse().unwrap()));
    assert!(caller.ended().await);
    tokio::time::timeout(PATIENCE, setting.stage.sidecar.ended).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_a_stop() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    caller.ask(get("/hello")).await.unwrap();
    // Said nothing so far.
    let mut silent = setting.stage.shop().await;

    setting.stage.sidecar.stop.cancel();

    assert!(caller.ended().await);
    assert_eq!(crate::testing::read_all(&mut silent).await.unwrap().len(), 0);
    drop(silent);
    tokio::time::timeout(PATIENCE, setting.stage.sidecar.ended).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_takes_no_request_after_the_certificate_of_its_peer() {
    let setting = Setting::new().await;
    let stage = &setting.stage;
    let until = time::OffsetDateTime::now_utc() + Duration::from_secs(3);
    let svid = stage.authority.svid_with(SHOP, |params| params.not_after = until);
    let bundles = [stage.authority.bundle("prod.test")].into_iter().collect();
    let brief = identity::Credentials::new(svid.into(), bundles).unwrap();
    let mut caller = Caller::new(call(&brief, stage.sidecar.inbound()).await).await;

    let status = caller.ask(get("/hello")).await.unwrap().status;

    assert_eq!(status, 200);
    assert!(caller.ended().await);
    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "peer_expired").await;
}
