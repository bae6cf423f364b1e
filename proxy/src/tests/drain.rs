//! A stop lets what is in flight finish, and only that.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stage;
use crate::testing::{Backend, HELLO, PATIENCE, eventually, read_all, read_response};

#[tokio::test]
async fn a_request_in_flight_is_finished_and_its_connection_closed() {
    // The answer waits for the last byte of the body.
    let backend = Backend::start(|bytes| (usize::from(bytes.ends_with(b"end")), HELLO)).await;
    let stage = Stage::inbound("http", backend).await;
    let mut client = stage.shop().await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 6\r\n\r\nthe").await.unwrap();
    eventually(async || stage.backend.received().ends_with("the").then_some(())).await.unwrap();

    stage.sidecar.stop.cancel();
    let gone = eventually(async || tokio::net::TcpStream::connect(stage.sidecar.inbound()).await.err()).await;
    client.write_all(b"end").await.unwrap();
    let (status, head, _) = read_response(&mut client).await;
    let rest = read_all(&mut client).await.unwrap();

    assert!(gone.is_some(), "nothing is accepted any more");
    assert_eq!((status, rest.len()), (200, 0));
    assert!(head.contains("connection: close"), "{head}");
    stage.sidecar.ended.await.unwrap().unwrap();
    let closed = |record: &&serde_json::Value| record["unmapped"]["vouchsafe"]["close_cause"].is_string();
    assert_eq!(stage.site.records().iter().filter(closed).count(), 1);
}

#[tokio::test]
async fn an_idle_keep_alive_connection_does_not_hold_up_a_stop() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    read_response(&mut client).await;

    stage.sidecar.stop.cancel();

    assert_eq!(read_all(&mut client).await.unwrap().len(), 0);
    drop(client);
    tokio::time::timeout(PATIENCE, stage.sidecar.ended).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_and_on_record() {
    let stage = Stage::inbound_with("tcp", Backend::start(|_| (0, "")).await, "drain: 100ms\n").await;
    let mut client = stage.shop().await;
    client.write_all(b"x").await.unwrap();
    eventually(async || (stage.backend.received() == "x").then_some(())).await.unwrap();

    stage.sidecar.stop.cancel();
    tokio::time::timeout(PATIENCE, stage.sidecar.ended).await.expect("it ends").unwrap().unwrap();

    assert!(client.read(&mut [0; 1]).await.is_err());
    let draining = |record: &&serde_json::Value| record["unmapped"]["vouchsafe"]["close_cause"] == "draining";
    assert_eq!(stage.site.records().iter().filter(draining).count(), 1, "{:#?}", stage.site.records());
}

#[tokio::test]
async fn readiness_goes_before_the_last_connection() {
    let stage = Stage::inbound_with("tcp", Backend::start(|_| (0, "")).await, "drain: 5s\n").await;
    let mut client = stage.shop().await;
    client.write_all(b"x").await.unwrap();
    eventually(async || (stage.backend.received() == "x").then_some(())).await.unwrap();

    stage.sidecar.stop.cancel();
    stage.sidecar.wait_ready(503).await;

    let (_, body) = stage.sidecar.admin("/readyz").await;
    assert!(body.contains("draining"), "{body}");
    tokio::time::sleep(Duration::from_millis(10)).await;
    client.write_all(b"y").await.unwrap();
    assert!(eventually(async || (stage.backend.received() == "xy").then_some(())).await.is_some());
}
