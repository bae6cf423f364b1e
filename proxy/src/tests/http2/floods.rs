//! Callers that cost more than they bring: each meets a limit, and the others notice nothing.

use std::time::Duration;

use h2::Reason;

use super::{
    Setting, get, post,
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, Raw,
        SETTINGS, WINDOW_UPDATE, block, frame,
    },
};
use crate::testing::{Client, eventually, read_all};

async fn raw(setting: &Setting) -> Raw<Client> {
    Raw::open(setting.stage.shop().await).await
}

fn calm() -> u32 {
    Reason::ENHANCE_YOUR_CALM.into()
}

/// Sends the same bytes until the other side closes; returns how it did.
async fn flood(raw: &mut Raw<Client>, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    for number in 0..MOST {
        if !raw.write(&bytes(number)).await {
            break;
        }
        tokio::task::yield_now().await;
    }
    raw.goaway().await
}

/// More of anything than any limit allows.
const MOST: u32 = 20_000;

async fn is_well(setting: &Setting) {
    let mut other = setting.shop().await;
    assert_eq!(other.ask(get("/hello")).await.unwrap().status, 200);
}

#[tokio::test]
async fn frames_that_bring_nothing_forward_end_the_connection() {
    let setting = Setting::new().await;
    let frames: [(&str, Vec<u8>); 5] = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 3, 0])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("an unknown frame", frame(99, 0, 0, b"x")),
    ];

    for (name, bytes) in frames {
        let mut raw = raw(&setting).await;
        // Answers are not read meanwhile: what is kept for them is bounded as well.
        let ended = flood(&mut raw, |_| bytes.repeat(10)).await;
        assert!(ended.is_none() || ended == Some(calm()), "{name}: {ended:?}");
        assert!(!raw.write(&bytes).await || raw.next().await.is_none(), "{name}");
        is_well(&setting).await;
    }
    let denial = setting.stage.site.denial("malformed_request").await;
    assert!(denial.to_string().contains("flood"), "{denial:#}");
}

#[tokio::test]
async fn empty_pieces_of_a_body_end_the_connection() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;
    let fields: Vec<_> =
        GET.iter().map(|&(name, value)| (name, if name == ":method" { b"POST" } else { value })).collect();
    raw.write(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).await;

    let ended = flood(&mut raw, |_| frame(DATA, 0, 1, b"")).await;

    assert_eq!(ended, Some(calm()));
    is_well(&setting).await;
}

#[tokio::test]
async fn requests_that_are_opened_and_reset_at_once_end_the_connection() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;

    let ended = flood(&mut raw, |number| {
        let stream = number * 20 + 1;
        (0..10)
            .flat_map(|at| {
                let stream = stream + at * 2;
                let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET));
                [open, frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
            })
            .collect()
    })
    .await;

    assert_eq!(ended, Some(calm()));
    is_well(&setting).await;
}

#[tokio::test]
async fn requests_that_make_the_proxy_reset_them_end_the_connection() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;

    // A window of nought more is an error of the stream.
    let ended = flood(&mut raw, |number| {
        let stream = number * 2 + 1;
        let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET));
        [open, frame(WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes())].concat()
    })
    .await;

    assert!(ended.is_some_and(|code| code != 0), "{ended:?}");
    is_well(&setting).await;
}

#[tokio::test]
async fn a_head_without_an_end_ends_the_connection() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;
    raw.write(&frame(HEADERS, END_STREAM, 1, &block(&GET))).await;

    let ended = flood(&mut raw, |_| frame(CONTINUATION, 0, 1, &block(&[("x", &[b'a'; 1000])]))).await;

    assert!(ended.is_none_or(|code| code != 0), "{ended:?}");
    assert_eq!(setting.application.requests(), 0);
    is_well(&setting).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_431_and_recorded() {
    let setting = Setting::new().await;
    let mut caller = setting.shop().await;

    let large = caller.ask(get("/hello").header("x-large", "a".repeat(33 * 1024))).await.unwrap();
    let mut many = get("/hello");
    for number in 0..101 {
        many = many.header(format!("x-{number}"), "1");
    }
    let many = caller.ask(many).await.unwrap();

    assert_eq!((large.status.as_u16(), many.status.as_u16()), (431, 431));
    assert_eq!(setting.application.requests(), 0);
    setting.stage.site.record(|record| record.to_string().contains("head_too_large")).await;
    setting.stage.site.record(|record| record.to_string().contains("too_many_headers")).await;
}

#[tokio::test]
async fn a_small_block_that_unpacks_to_a_large_head_is_refused() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;
    // One entry of 4,000 bytes goes into the table; each of the following bytes means it again.
    let mut bomb = block(&GET);
    bomb.push(0x40);
    bomb.extend_from_slice(&block(&[("x-bomb", &[b'a'; 4000])])[1..]);
    bomb.extend(std::iter::repeat_n(0xbe, 12_000));

    raw.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await;
    let end = raw.wait_for(|frame| frame.stream == 1 || frame.kind == GOAWAY).await;

    assert!(end.is_some());
    assert_eq!(setting.application.requests(), 0);
    is_well(&setting).await;
}

#[tokio::test]
async fn more_requests_at_a_time_than_announced_are_refused_unprocessed() {
    let setting = Setting::new().await;
    let mut raw = raw(&setting).await;
    let fields: Vec<_> =
        GET.iter().map(|&(name, value)| (name, if name == ":path" { b"/hang" } else { value })).collect();

    for number in 0..=crate::http2::MAX_STREAMS {
        raw.request(number * 2 + 1, &fields).await;
    }
    let refused = raw.wait_for(|frame| frame.kind == RST_STREAM || frame.kind == GOAWAY).await.unwrap();

    assert_eq!((refused.kind, refused.code()), (RST_STREAM, Reason::REFUSED_STREAM.into()));
    assert_eq!(refused.stream, crate::http2::MAX_STREAMS * 2 + 1);
}

#[tokio::test]
async fn a_caller_that_gives_no_room_for_its_response_is_reset_and_the_application_told() {
    let setting = Setting::with("http", "limits: {stall_timeout: 300ms}\n").await;
    let mut caller = setting.shop().await;

    let mut response = caller.begin(get("/endless")).await.unwrap();
    let mut error = None;
    while let Some(piece) = response.body_mut().data().await {
        error = piece.err();
        if error.is_some() {
            break;
        }
    }

    assert_eq!(error.and_then(|error| error.reason()), Some(Reason::CANCEL));
    let denial = setting.stage.site.denial("limit_exceeded").await;
    assert!(denial.to_string().contains("stall_timeout"), "{denial:#}");
    assert_eq!(caller.ask(get("/hello")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_body_that_never_comes_and_one_that_nobody_reads_end_after_a_time() {
    let setting = Setting::with("http", "limits: {stall_timeout: 300ms}\n").await;
    let mut caller = setting.shop().await;

    let (_kept, dripping) = caller.open(post("/echo-nothing-of").header("content-length", "5"), false);
    let status = dripping.await.map(|response| response.status().as_u16());
    let deaf = caller.send(post("/deaf"), &vec![0; 1_000_000], None).await;

    // The application answered without the body: that is its own affair.
    assert_eq!(status.unwrap(), 200);
    assert_eq!(deaf.unwrap_err().reason(), Some(Reason::CANCEL));
}

#[tokio::test]
async fn a_caller_that_says_hello_and_nothing_more_or_too_slowly_is_cut() {
    let setting = Setting::with("http", "limits: {header_timeout: 200ms, idle_timeout: 300ms}\n").await;

    for start in [&PREFACE[..3], &PREFACE[..20], PREFACE] {
        let mut client = setting.stage.shop().await;
        tokio::io::AsyncWriteExt::write_all(&mut client, start).await.unwrap();
        // With a word or without it: the end comes.
        let _ = read_all(&mut client).await;
    }

    setting.stage.site.denial("limit_exceeded").await;
    is_well(&setting).await;
}

#[tokio::test]
async fn a_grpc_stream_may_pause_for_longer_than_a_body() {
    let setting = Setting::with("http", "limits: {stall_timeout: 100ms}\n").await;
    let mut caller = setting.shop().await;

    let (mut body, response) = caller.open(super::grpc("/echo"), false);
    let mut response = response.await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    body.send_data("late".into(), true).unwrap();
    let back = response.body_mut().data().await.unwrap().unwrap();

    assert_eq!(back, "late");
    assert!(eventually(async || Some(())).await.is_some());
}
