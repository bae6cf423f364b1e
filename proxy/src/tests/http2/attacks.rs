//! Requests that could be read in two ways: none reaches the application, and each is on record.

use h2::Reason;

use super::{
    Setting,
    raw::{DATA, END_HEADERS, END_STREAM, Frame, GET, HEADERS, Raw, block, frame},
};
use crate::testing::Client;

const PROTOCOL_ERROR: u32 = 1;

async fn raw(setting: &Setting) -> Raw<Client> {
    Raw::open(setting.stage.shop().await).await
}

fn with(more: &[(&'static str, &'static [u8])]) -> Vec<(&'static str, &'static [u8])> {
    GET.iter().chain(more).copied().collect()
}

fn instead(name: &'static str, value: &'static [u8]) -> Vec<(&'static str, &'static [u8])> {
    GET.iter().map(|&(found, kept)| (found, if found == name { value } else { kept })).collect()
}

fn without(name: &'static str) -> Vec<(&'static str, &'static [u8])> {
    GET.iter().filter(|(found, _)| *found != name).copied().collect()
}

#[tokio::test]
async fn a_message_against_the_rules_is_reset_recorded_and_its_connection_goes_on() {
    let flawed = [
        ("no method", without(":method")),
        ("no path", without(":path")),
        ("no scheme", without(":scheme")),
        ("an empty path", instead(":path", b"")),
        ("a status in a request", with(&[(":status", b"200")])),
        ("a pseudo field behind others", with(&[("x-a", b"1"), (":path", b"/admin")])),
        ("two methods", with(&[(":method", b"POST")])),
        ("two paths", with(&[(":path", b"/admin")])),
        ("two authorities", with(&[(":authority", b"evil.test")])),
        ("two schemes", with(&[(":scheme", b"https")])),
        ("connection", with(&[("connection", b"close")])),
        ("keep-alive", with(&[("keep-alive", b"1")])),
        ("proxy-connection", with(&[("proxy-connection", b"close")])),
        ("transfer-encoding", with(&[("transfer-encoding", b"chunked")])),
        ("upgrade", with(&[("upgrade", b"h2c")])),
        ("te", with(&[("te", b"gzip")])),
        ("a length that is no number", with(&[("content-length", b"+0")])),
        ("two lengths that differ", with(&[("content-length", b"0"), ("content-length", b"1")])),
        ("a length without a body", with(&[("content-length", b"5")])),
        ("an authority with blanks", instead(":authority", b"web prod")),
    ];
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;

    for (number, (flaw, fields)) in flawed.iter().enumerate() {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        raw.request(stream, fields).await;
        assert_eq!(raw.reset_of(stream).await, Some(PROTOCOL_ERROR), "{flaw}");
    }
    raw.request(201, &GET).await;
    assert_eq!(raw.reset_of(201).await, None, "the connection still serves");

    assert_eq!(setting.application.requests(), 1);
    let wanted = flawed.len() as u64;
    let counted = crate::testing::eventually(async || {
        let (_, metrics) = setting.stage.sidecar.admin("/metrics").await;
        let line = "vouchsafe_proxy_requests_total{decision=\"malformed\"} ";
        let count = metrics.split(line).nth(1)?.lines().next()?.parse::<u64>().ok()?;
        (count == wanted).then_some(())
    });
    assert!(counted.await.is_some(), "{}", setting.stage.sidecar.admin("/metrics").await.1);
    let denial = setting.stage.site.denial("malformed_request").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["stage"], "request");
}

#[tokio::test]
async fn a_name_or_value_that_would_be_another_field_in_http1_never_passes() {
    for (flaw, fields) in [
        ("a line end in a value", with(&[("x-a", b"1\r\nx-b: 2")])),
        ("a line feed in a value", with(&[("x-a", b"1\n2")])),
        ("nought in a value", with(&[("x-a", b"1\x002")])),
        ("an upper case name", with(&[("X-Upper", b"1")])),
        ("a pseudo field that nobody knows", with(&[(":evil", b"1")])),
        ("a blank in a name", with(&[("x a", b"1")])),
        ("a colon in a name", with(&[("x:a", b"1")])),
        ("a line end in a name", with(&[("x\r\na", b"1")])),
        ("an empty name", with(&[("", b"1")])),
        ("a line end in a path", instead(":path", b"/a\r\nx: y")),
        ("a blank in a path", instead(":path", b"/a HTTP/1.1")),
        ("a line end in an authority", instead(":authority", b"web\r\nx: y")),
        ("a line end in a method", instead(":method", b"GET /admin HTTP/1.1\r\nx")),
    ] {
        let setting = Setting::new().await;
        let mut raw = raw(&setting).await;

        raw.request(1, &fields).await;
        let end = raw.wait_for(|frame| frame.kind == 3 || frame.kind == 7).await;

        assert!(end.as_ref().is_some_and(|end| end.code() != 0), "{flaw}");
        assert_eq!(setting.application.requests(), 0, "{flaw}");
        let denial = |record: &serde_json::Value| record["status_detail"] == "malformed_request";
        let found = crate::testing::eventually(async || {
            setting.stage.site.records().iter().any(denial).then_some(())
        });
        assert!(found.await.is_some(), "{flaw}: {end:?}");
    }
}

#[tokio::test]
async fn a_request_that_the_proxy_itself_finds_ambiguous_is_answered_400_with_a_name() {
    let cases = [
        ("host_conflict", with(&[("host", b"evil.test")])),
        ("host_repeated", with(&[("host", b"web.prod.test"), ("host", b"web.prod.test")])),
        ("host_missing", without(":authority")),
        ("host_invalid", instead(":authority", b"web..test")),
        ("host_invalid", instead(":authority", b"user@web.prod.test")),
        ("scheme", instead(":scheme", b"ftp")),
        ("padded", with(&[("x-role", b" admin")])),
        ("padded", with(&[("x-role", b"admin\t")])),
        ("length_repeated", with(&[("content-length", b"0"), ("content-length", b"0")])),
        ("path_encoded_separator", instead(":path", b"/a%2fadmin")),
    ];
    for (code, fields) in cases {
        let setting = Setting::new().await;
        let mut raw = raw(&setting).await;

        raw.request(1, &fields).await;
        let answer = raw.wait_for(|frame| frame.kind == HEADERS || frame.kind == 3).await.expect("an answer");

        assert_eq!(answer.kind, HEADERS, "{code} {fields:?}");
        let denial = setting.stage.site.denial("malformed_request").await;
        assert!(denial.to_string().contains(code), "{code}: {denial:#}");
        assert_eq!(setting.application.requests(), 0, "{code}");
    }
}

#[tokio::test]
async fn a_host_beside_the_same_authority_is_no_conflict() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;

    raw.request(1, &with(&[("host", b"WEB.prod.test.")])).await;

    assert_eq!(raw.reset_of(1).await, None);
    assert_eq!(setting.application.last_request().uri().to_string(), "http://web.prod.test/hello");
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_breaks_off_on_both_sides() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;
    let fields = GET.iter().map(|&(name, value)| match name {
        ":method" => (name, &b"POST"[..]),
        ":path" => (name, &b"/echo"[..]),
        _ => (name, value),
    });
    let fields: Vec<_> = fields.chain([("content-length", &b"5"[..])]).collect();

    raw.write(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).await;
    raw.write(&frame(DATA, END_STREAM, 1, b"abcdefgh")).await;
    let long = raw.reset_of(1).await;
    raw.write(&frame(HEADERS, END_HEADERS, 3, &block(&fields))).await;
    raw.write(&frame(DATA, END_STREAM, 3, b"abc")).await;
    let short = raw.reset_of(3).await;

    assert_eq!((long, short), (Some(PROTOCOL_ERROR), Some(PROTOCOL_ERROR)));
}

#[tokio::test]
async fn frames_against_the_rules_end_the_connection_and_no_other() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("data on no stream", frame(DATA, 0, 0, b"x")),
        ("data on an idle stream", frame(DATA, 0, 1, b"x")),
        ("headers on an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &block(&GET))),
        ("a continuation of nothing", frame(9, END_HEADERS, 1, b"")),
        ("settings of half a pair", frame(4, 0, 0, &[0; 3])),
        ("a ping of five bytes", frame(6, 0, 0, &[0; 5])),
        ("a window that overflows", frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
        (
            "a block that is no HPACK",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
    ];
    let setting = Setting::new().await;
    let mut other = setting.shop().await;

    for (flaw, bytes) in cases {
        let mut raw = raw(&setting).await;
        raw.write(&bytes).await;
        assert!(raw.goaway().await.is_some_and(|code| code != 0), "{flaw}");
        assert_eq!(other.ask(super::get("/hello")).await.unwrap().status, 200, "{flaw}");
    }
    let denial = setting.stage.site.denial("malformed_request").await;
    assert!(denial.to_string().contains("frame"), "{denial:#}");
}

#[tokio::test]
async fn an_authority_decides_for_each_request_whatever_the_connection_was_made_for() {
    let setting = Setting::new().await;
    setting.stage.site.write_policy(
        &super::super::POLICY
            .replace("http: {port: any, paths: [/admin/**]}", "http: {port: any, hosts: [secret.prod.test]}"),
    );
    let mut caller = setting.shop().await;
    let secret = || http::Request::get("http://secret.prod.test/hello");

    let refused = crate::testing::eventually(async || {
        // One that is under way when the policy comes is reset.
        let answer = caller.ask(secret()).await.ok()?;
        (answer.status == 403).then_some(())
    })
    .await;
    let allowed = caller.ask(super::get("/hello")).await.unwrap();

    assert!(refused.is_some());
    assert_eq!(allowed.status, 200);
}

#[tokio::test]
async fn a_reset_frame_says_how_and_never_looks_like_an_end() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;
    let late: Vec<_> = instead(":path", b"/reset-late");

    raw.request(1, &late).await;
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(frame) = raw.next().await {
        let reset = frame.kind == 3;
        frames.push(frame);
        if reset {
            break;
        }
    }

    assert_eq!(frames.last().map(Frame::code), Some(u32::from(Reason::CANCEL)));
    assert!(
        frames.iter().filter(|frame| frame.stream == 1).all(|frame| frame.flags & END_STREAM == 0),
        "{frames:?}"
    );
}
