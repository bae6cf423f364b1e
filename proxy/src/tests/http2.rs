//! What passes a listener as HTTP/2, what does not, and what lives and ends with what.

mod attacks;
mod detection;
mod floods;
mod peers;
mod raw;
mod withdrawal;

use h2::Reason;
use http::{HeaderMap, StatusCode};

use self::peers::{Application, Caller, get, grpc, post};
use super::Stage;
use crate::testing::{Backend, SHOP, STRANGER, WEB, call, eventually};

/// A sidecar of the web service before an application that speaks HTTP/2.
struct Setting {
    stage: Stage,
    application: Application,
}

impl Setting {
    async fn new() -> Self {
        Self::with("http", "").await
    }

    async fn with(protocol: &str, more: &str) -> Self {
        let application = Application::start().await;
        let backend = Backend::at(application.address);
        let stage = Stage::started(protocol, super::POLICY, backend, more).await;
        Self { stage, application }
    }

    async fn shop(&self) -> Caller {
        Caller::new(self.stage.shop().await).await
    }

    /// Returns the identifier of the only refusal on record for `reason`.
    async fn denial_id(&self, reason: &str) -> String {
        let denial = self.stage.site.denial(reason).await;
        denial["unmapped"]["vouchsafe"]["denial_id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_allowed_request_reaches_the_application_in_its_canonical_form() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;

    let request = get("//a/./b/../%63?q=%2F")
        .header("x-forwarded-client-cert", "URI=spiffe://evil/a")
        .header("x_spiffe_id", "evil")
        .header("te", "trailers")
        .header("x-kept", "1");
    let answer = caller.ask(request).await.unwrap();

    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"hello"[..]));
    let seen = setting.application.last_request();
    assert_eq!(seen.uri().to_string(), "http://web.prod.test:8080/a/c?q=%2F");
    assert_eq!(seen.headers()["x-kept"], "1");
    assert_eq!(seen.headers()["te"], "trailers");
    let told: Vec<_> = seen.headers().get_all("x-forwarded-client-cert").iter().collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].to_str().unwrap().starts_with(&format!("By={WEB};")), "{told:?}");
    assert!(told[0].to_str().unwrap().ends_with(&format!("URI={SHOP}")), "{told:?}");
    assert!(!seen.headers().contains_key("x_spiffe_id") && !seen.headers().contains_key("host"));
}

#[tokio::test]
async fn body_and_trailers_pass_both_ways_whatever_their_size() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let body: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();

    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    trailers.insert("x-forwarded-for", "6.6.6.6".parse().unwrap());
    let answer = caller.send(post("/echo"), &body, Some(trailers)).await.unwrap();

    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body == body, "{} bytes", answer.body.len());
    let back = answer.trailers.expect("trailers");
    assert_eq!((&back["grpc-status"], &back["x-sum"]), (&"0".parse().unwrap(), &"42".parse().unwrap()));
    assert!(!back.contains_key("x-forwarded-for"));
}

#[tokio::test]
async fn each_request_of_a_connection_is_decided_by_itself() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;

    let answers: Vec<_> = futures_util::future::join_all((0..40).map(|number| {
        let path = if number % 2 == 0 { "/hello" } else { "/x/../admin/keys" };
        let mut caller = caller.clone();
        async move { caller.ask(get(path)).await.unwrap().status.as_u16() }
    }))
    .await;

    assert_eq!(answers, [200, 403].repeat(20));
    let denial = setting.stage.site.denial("explicit_deny").await;
    assert_eq!(denial["firewall_rule"]["name"], "no-admin");
    assert_eq!(denial["http_request"]["url"]["path"], "/admin/keys");
    assert_eq!(setting.application.connections(), 1);
    assert_eq!(caller.ask(get("/hello")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_refused_request_is_answered_with_a_denial_that_the_log_explains() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;

    let answer = caller.ask(get("/v1/x").method("DELETE")).await.unwrap();

    let id = setting.denial_id("no_allow_matched").await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.headers["x-vouchsafe-denial-id"], id.as_str());
    assert_eq!(answer.body, format!("{{\"denial_id\":\"{id}\"}}\n").into_bytes());
    assert_eq!(setting.application.connections(), 0);
}

#[tokio::test]
async fn a_refused_grpc_call_reads_a_denial_of_permission_with_its_name() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;

    let answer = caller.send(grpc("/admin/keys"), b"\0\0\0\0\0", None).await.unwrap();

    let id = setting.denial_id("explicit_deny").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    assert_eq!(answer.headers["grpc-status"], "7");
    assert!(answer.headers["grpc-message"].to_str().unwrap().contains(&id), "{:?}", answer.headers);
    assert_eq!(answer.headers["x-vouchsafe-denial-id"], id.as_str());
    assert!(answer.trailers.is_none());
}

#[tokio::test]
async fn a_caller_whom_no_rule_could_allow_gets_its_answer_and_the_end() {
    let setting = Setting::new().await;
    let stage = &setting.stage;
    let mut caller =
        Caller::new(call(&stage.authority.credentials(STRANGER), stage.sidecar.inbound()).await).await;

    let answer = caller.ask(get("/hello")).await.unwrap();

    assert_eq!(answer.status, 403);
    assert!(caller.ended().await);
    let denial = stage.site.denial("no_allow_matched").await;
    assert_eq!(denial["src_endpoint"]["uid"], STRANGER);
    assert_eq!(setting.application.connections(), 0);
}

#[tokio::test]
async fn a_response_that_nobody_reads_does_not_hold_up_the_others() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(caller.begin(get("/endless")).await.unwrap());
    }

    for _ in 0..20 {
        assert_eq!(caller.ask(get("/hello")).await.unwrap().body, b"hello");
    }

    assert_eq!(unread.len(), 8);
}

#[tokio::test]
async fn a_reset_of_the_application_is_a_reset_to_the_caller() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;

    let before = caller.ask(get("/reset")).await.unwrap_err();
    let after = caller.ask(get("/reset-late")).await.unwrap_err();

    assert_eq!(before.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(after.reason(), Some(Reason::CANCEL));
    assert!(before.is_reset() && after.is_reset());
}

#[tokio::test]
async fn a_caller_that_gives_up_is_given_up_to_the_application() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let (body, response) = caller.open(get("/hang"), true);
    eventually(async || (setting.application.requests() == 1).then_some(())).await.unwrap();

    drop((body, response));

    let reset = eventually(async || setting.application.resets().first().copied()).await;
    assert_eq!(reset, Some(Reason::CANCEL));
    assert_eq!(caller.ask(get("/hello")).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_application_that_cannot_be_reached_is_an_answer_without_a_reason() {
    let setting = Setting::new().await;
    setting.application.stop().await;
    let mut caller = setting.shop().await;

    let plain = caller.ask(get("/hello")).await.unwrap();
    let call = caller.send(grpc("/hello"), b"", None).await.unwrap();

    assert_eq!((plain.status.as_u16(), &plain.body[..]), (502, &b"{\"error\":\"unavailable\"}\n"[..]));
    assert_eq!(call.headers["grpc-status"], "14");
}

#[tokio::test]
async fn a_request_that_the_application_did_not_look_at_goes_on_another_connection() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;

    let answer = caller.ask(get("/refuse-once")).await.unwrap();
    let leaving = caller.ask(get("/leave")).await.unwrap();
    let next = caller.ask(get("/hello")).await.unwrap();

    assert_eq!(
        (answer.status, leaving.status, next.status),
        (StatusCode::OK, StatusCode::OK, StatusCode::OK)
    );
    assert!(setting.application.connections() >= 2, "{}", setting.application.connections());
}

#[tokio::test]
async fn interim_responses_pass_and_are_no_response() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;

    let (_body, mut response) = caller.open(get("/hints"), true);
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    let status = response.await.unwrap().status();

    assert_eq!((interim.status().as_u16(), &interim.headers()["link"]), (103, &"</a>".parse().unwrap()));
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_websocket_passes_only_where_the_application_speaks_it_and_a_tunnel_not_at_all() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let mut socket = get("/chat").method("CONNECT").body(()).unwrap();
    socket.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));

    let socket = caller.respond(socket).await.unwrap();
    let tunnel = http::Request::builder().method("CONNECT").uri("db.prod.test:5432").body(()).unwrap();
    let tunnel = caller.respond(tunnel).await.unwrap();

    assert!([403, 501].contains(&socket.as_u16()), "{socket}");
    assert!([403, 501].contains(&tunnel.as_u16()), "{tunnel}");
    assert_eq!(setting.application.requests(), 0);
}

#[tokio::test]
async fn both_versions_are_spoken_on_one_port() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;
    let mut old = setting.stage.shop().await;

    let answer = caller.ask(get("/hello")).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut old, b"GET /admin HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (status, ..) = crate::testing::read_response(&mut old).await;

    assert_eq!((answer.status.as_u16(), status), (200, 403));
}

#[tokio::test]
async fn the_load_of_one_thread_shares_one_connection_to_the_application() {
    let setting = Setting::new().await;
    let callers = [setting.shop().await, setting.shop().await, setting.shop().await];

    let all = callers.iter().flat_map(|caller| std::iter::repeat_n(caller.clone(), 30));
    let answers = futures_util::future::join_all(
        all.map(|mut caller| async move { caller.ask(get("/hello")).await.unwrap().status.as_u16() }),
    );

    assert_eq!(answers.await, [200; 90]);
    assert_eq!(setting.application.connections(), 1);
}

#[tokio::test]
async fn a_pair_of_sidecars_carries_calls_and_a_rotation_moves_them_to_a_new_connection() {
    let setting = Setting::new().await;
    let shop = crate::testing::Site::new(&setting.stage.authority, SHOP, super::POLICY);
    let text = format!(
        "{}outbound:\n  - {{name: web, listen: 127.0.0.1:0, protocol: http, endpoints: [\"{}\"], expect: [{WEB}]}}\n",
        shop.base(),
        setting.stage.sidecar.inbound()
    );
    let sidecar = crate::testing::Sidecar::ready(&text).await;
    let socket = tokio::net::TcpStream::connect(sidecar.outbound()).await.unwrap();
    let mut caller = Caller::new(socket).await;

    let first = caller.send(grpc("/echo"), b"ping", None).await.unwrap();
    shop.write_identity(&setting.stage.authority, SHOP, &[&setting.stage.authority]);
    shop.record(|record| {
        record.to_string().contains("identity_rotated") && record["metadata"]["sequence"].as_u64() > Some(3)
    })
    .await;
    let second = caller.send(grpc("/echo"), b"pong", None).await.unwrap();
    let refused = caller.send(grpc("/admin/x"), b"", None).await.unwrap();

    assert_eq!((&first.body[..], &second.body[..]), (&b"ping"[..], &b"pong"[..]));
    assert_eq!(first.trailers.unwrap()["grpc-status"], "0");
    assert_eq!(refused.headers["grpc-status"], "7");
    let opened = |record: &serde_json::Value| record["unmapped"]["vouchsafe"]["decision"] == "opened";
    let two = eventually(async || {
        let records = setting.stage.site.records();
        (records.iter().filter(|record| opened(record)).count() >= 2).then_some(())
    });
    assert!(two.await.is_some(), "{:#?}", setting.stage.site.records());
}
