//! What passes an inbound listener, what does not, and what is on record of it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stage;
use crate::testing::{Backend, HELLO, SHOP, STRANGER, WEB, eventually, read_all, read_response};

const GET: &[u8] = b"GET /v1?q=1 HTTP/1.1\r\nhost: Web.Prod.Test.:8080\r\n\r\n";

#[tokio::test]
async fn an_allowed_request_reaches_the_application_in_its_canonical_form() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    client
        .write_all(b"GET //a/./b/../%63?q=%2F HTTP/1.1\r\nHost: Web.Prod.Test.:8080\r\n\r\n")
        .await
        .unwrap();
    let (status, _, body) = read_response(&mut client).await;

    assert_eq!((status, body.as_slice()), (200, &b"hello"[..]));
    let received = stage.backend.received();
    assert!(received.starts_with("GET /a/c?q=%2F HTTP/1.1\r\n"), "{received}");
    assert!(received.to_lowercase().contains("host: web.prod.test:8080\r\n"), "{received}");
}

#[tokio::test]
async fn the_application_learns_who_calls_and_a_caller_cannot_say_it() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    let spoofed = "GET / HTTP/1.1\r\nhost: web\r\nX-Forwarded-Client-Cert: By=x;URI=spiffe://evil/a\r\n\
                   x-forwarded-client-cert: URI=spiffe://evil/b\r\nX_Forwarded_Client_Cert: c\r\n\
                   l5d-client-id: evil\r\nX-SPIFFE-ID: evil\r\nx-forwarded-for: 6.6.6.6\r\n\
                   x-http-method-override: DELETE\r\nproxy-authorization: evil\r\nkeep-alive: evil\r\n\
                   connection: x-forwarded-client-cert, x-secret\r\nx-secret: evil\r\nx-kept: 1\r\n\r\n";
    client.write_all(spoofed.as_bytes()).await.unwrap();
    read_response(&mut client).await;

    let received = stage.backend.received().to_lowercase();
    assert!(!received.contains("evil") && !received.contains("6.6.6.6"), "{received}");
    assert!(received.contains("x-kept: 1"), "{received}");
    let told: Vec<_> =
        received.lines().filter(|line| line.contains("client") && line.contains("cert")).collect();
    assert_eq!(told.len(), 1, "{received}");
    assert!(told[0].starts_with(&format!("x-forwarded-client-cert: by={WEB};hash=")), "{received}");
    assert!(told[0].ends_with(&format!(";uri={SHOP}")), "{received}");
}

#[tokio::test]
async fn a_refused_request_is_answered_403_with_a_denial_that_the_log_explains() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    client.write_all(b"DELETE /v1/x HTTP/1.1\r\nhost: web\r\nuser-agent: curl\r\n\r\n").await.unwrap();
    let (status, head, body) = read_response(&mut client).await;

    assert_eq!(status, 403);
    assert_eq!(stage.backend.received(), "");
    let denial = stage.site.denial("no_allow_matched").await;
    let id = denial["unmapped"]["vouchsafe"]["denial_id"].as_str().unwrap();
    assert_eq!(body, format!("{{\"denial_id\":\"{id}\"}}\n").into_bytes());
    assert!(head.contains(&format!("x-vouchsafe-denial-id: {}", id.to_lowercase())), "{head}");
    assert_eq!(denial["src_endpoint"]["uid"], SHOP);
    assert_eq!(denial["dst_endpoint"]["uid"], WEB);
    assert_eq!(denial["http_request"]["url"]["path"], "/v1/x");
    assert_eq!(denial["unmapped"]["vouchsafe"]["near_miss"][0]["failed"], "method", "{denial:#}");
}

#[tokio::test]
async fn an_explicit_denial_names_its_rule_and_keeps_the_connection() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    client.write_all(b"GET /x/../admin/keys HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (refused, ..) = read_response(&mut client).await;
    client.write_all(GET).await.unwrap();
    let (allowed, ..) = read_response(&mut client).await;

    assert_eq!((refused, allowed), (403, 200));
    let denial = stage.site.denial("explicit_deny").await;
    assert_eq!(denial["firewall_rule"]["name"], "no-admin");
    assert_eq!(denial["http_request"]["url"]["path"], "/admin/keys");
}

#[tokio::test]
async fn the_open_and_close_of_an_allowed_connection_are_on_record() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;
    client.write_all(GET).await.unwrap();
    read_response(&mut client).await;

    drop(client);

    let closed = stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"].is_string()).await;
    let id = &closed["unmapped"]["vouchsafe"]["conn_id"];
    let opened =
        stage.site.records().into_iter().filter(|record| record["unmapped"]["vouchsafe"]["conn_id"] == *id);
    assert_eq!(opened.count(), 2, "{:#?}", stage.site.records());
    assert_eq!(closed["metadata"]["product"]["uid"], WEB, "whose log it is");
}

#[tokio::test]
async fn a_refused_tcp_connection_is_reset_and_the_application_not_called() {
    let stage = Stage::inbound("tcp", Backend::start(|_| (0, "")).await).await;
    let mut client = stage.stranger().await;

    let error = read_all(&mut client).await.unwrap_err();

    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(stage.backend.connections(), 0);
    let denial = stage.site.denial("no_allow_matched").await;
    assert_eq!(denial["src_endpoint"]["uid"], STRANGER);
    assert_eq!(denial["unmapped"]["vouchsafe"]["near_miss"][0]["failed"], "from");
}

#[tokio::test]
async fn a_caller_whom_no_rule_could_allow_gets_one_answer_with_the_id_of_the_denial() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.stranger().await;

    // The second request is not read: one answer is all there is.
    client.write_all(&[GET, GET].concat()).await.unwrap();
    let answer = String::from_utf8(read_all(&mut client).await.unwrap()).unwrap().to_lowercase();

    assert!(answer.starts_with("http/1.1 403 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("http/1.1").count(), 1, "{answer}");
    let denial = stage.site.denial("no_allow_matched").await;
    let id = denial["unmapped"]["vouchsafe"]["denial_id"].as_str().unwrap().to_lowercase();
    assert!(answer.contains(&id), "{answer} {denial:#}");
    assert_eq!(denial["unmapped"]["vouchsafe"]["stage"], "request", "{denial:#}");
    assert_eq!(denial["unmapped"]["vouchsafe"]["near_miss"][0]["failed"], "from");
    assert_eq!(one_denial_and_no_opening(&stage, &denial).await, 1);
    assert_eq!(stage.backend.connections(), 0);
}

/// Returns the number of records of a connection, after one of a later connection has come.
async fn one_denial_and_no_opening(stage: &Stage, denial: &serde_json::Value) -> usize {
    let mut later = stage.shop().await;
    later.write_all(b"GET /admin/later HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    assert_eq!(read_response(&mut later).await.0, 403);
    stage.site.record(|record| record["src_endpoint"]["uid"] == SHOP && record["action_id"] == 2).await;
    let id = &denial["unmapped"]["vouchsafe"]["conn_id"];
    stage.site.records().iter().filter(|record| record["unmapped"]["vouchsafe"]["conn_id"] == *id).count()
}

#[tokio::test]
async fn a_deny_rule_is_named_to_a_caller_whom_no_rule_could_allow() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.stranger().await;

    client.write_all(b"GET /admin/x HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();

    assert_eq!(read_response(&mut client).await.0, 403);
    let denial = stage.site.denial("explicit_deny").await;
    assert_eq!(denial["firewall_rule"]["name"], "no-admin", "{denial:#}");
}

#[tokio::test]
async fn a_malformed_request_of_a_caller_whom_no_rule_could_allow_is_400() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.stranger().await;

    client.write_all(b"GET /x HTTP/1.1\r\nhost: web\r\nhost: other\r\n\r\n").await.unwrap();
    let answer = read_all(&mut client).await.unwrap();

    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    let denial = stage.site.denial("malformed_request").await;
    assert_eq!(one_denial_and_no_opening(&stage, &denial).await, 1);
}

#[tokio::test]
async fn a_refused_caller_that_asks_nothing_is_cut_at_the_header_timeout_and_recorded_once() {
    let limits = "limits: {header_timeout: 200ms}\n";
    let stage = Stage::inbound_with("http", Backend::http(HELLO).await, limits).await;
    let mut client = stage.stranger().await;

    let error = read_all(&mut client).await.unwrap_err();

    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let denial = stage.site.denial("no_allow_matched").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["stage"], "connect", "{denial:#}");
    assert_eq!(one_denial_and_no_opening(&stage, &denial).await, 1);
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_half_ends_by_itself() {
    let stage =
        Stage::inbound("tcp", Backend::start(|bytes| (usize::from(bytes.ends_with(b"ping")), "pong")).await)
            .await;
    let mut client = stage.shop().await;

    client.write_all(b"ping").await.unwrap();
    client.shutdown().await.unwrap();
    let answer = read_all(&mut client).await.unwrap();

    assert_eq!((answer.as_slice(), stage.backend.received().as_str()), (&b"pong"[..], "ping"));
}

#[tokio::test]
async fn ten_megabytes_arrive_as_they_were_sent() {
    let stage = Stage::inbound("tcp", Backend::start(|_| (0, "")).await).await;
    let mut client = stage.shop().await;
    let sent: Vec<u8> = (0..10_000_000_u32).map(|number| b'a' + (number % 23) as u8).collect();

    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    read_all(&mut client).await.unwrap();

    assert!(stage.backend.received().as_bytes() == sent);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_in_the_handshake_and_recorded() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let anchors = std::sync::Arc::clone(stage.authority.credentials(SHOP).anchors());
    let config = identity::tls::client_config_without_svid(
        anchors,
        identity::tls::ExpectedServer::DangerAnyMember,
        &[],
    );
    let socket = tokio::net::TcpStream::connect(stage.sidecar.inbound()).await.unwrap();

    // In TLS 1.3 the refusal arrives with the first read.
    let outcome = match identity::tls::connect(config.unwrap(), socket).await {
        Ok((_, mut stream)) => stream.read(&mut [0; 16]).await.map(|_| ()).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };

    assert!(outcome.is_err());
    let denial = stage.site.denial("handshake_failed").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "no_certificate");
    assert_eq!(stage.backend.connections(), 0);
}

#[tokio::test]
async fn plaintext_is_refused_and_recorded() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut socket = tokio::net::TcpStream::connect(stage.sidecar.inbound()).await.unwrap();

    socket.write_all(GET).await.unwrap();
    let answer = read_all(&mut socket).await.unwrap_or_default();

    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let denial = stage.site.denial("handshake_failed").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "not_tls");
    assert_eq!(stage.backend.connections(), 0);
}

#[tokio::test]
async fn a_kept_connection_to_the_application_serves_the_next_request() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    for _ in 0..5 {
        client.write_all(GET).await.unwrap();
        assert_eq!(read_response(&mut client).await.0, 200);
    }

    assert_eq!(stage.backend.connections(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    client.write_all(&[GET, b"GET /admin HTTP/1.1\r\nhost: web\r\n\r\n", GET].concat()).await.unwrap();
    let mut statuses = Vec::new();
    let mut bytes = Vec::new();
    eventually(async || {
        let mut buffer = [0; 4096];
        let read = client.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..read]);
        statuses = String::from_utf8_lossy(&bytes).matches("HTTP/1.1 ").map(str::to_owned).collect();
        (statuses.len() == 3).then_some(())
    })
    .await
    .expect("three answers");

    let text = String::from_utf8_lossy(&bytes).into_owned();
    let order: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|rest| rest[..3].to_owned()).collect();
    assert_eq!(order, ["200", "403", "200"]);
}

#[tokio::test]
async fn an_unreachable_application_is_502_without_detail() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: http, application: {dead}}}\n",
        stage.site.base().replace("audit.jsonl", "other.jsonl")
    );
    let sidecar = crate::testing::Sidecar::ready(&text).await;
    let mut client = crate::testing::call(&stage.authority.credentials(SHOP), sidecar.inbound()).await;

    client.write_all(GET).await.unwrap();
    let (status, _, body) = read_response(&mut client).await;

    assert_eq!((status, body.as_slice()), (502, &b"{\"error\":\"unavailable\"}\n"[..]));
}

#[tokio::test]
async fn an_end_without_goodbye_is_a_broken_connection() {
    let stage = Stage::inbound("tcp", Backend::start(|_| (0, "")).await).await;
    let mut client = stage.shop().await;
    client.write_all(b"half").await.unwrap();
    client.flush().await.unwrap();
    eventually(async || (stage.backend.received() == "half").then_some(())).await.unwrap();

    // A FIN of TCP without the close_notify of TLS: anybody on the way could have sent it.
    client.get_mut().0.shutdown().await.unwrap();

    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "source_failed").await;
}

#[tokio::test]
async fn a_reset_by_the_application_is_a_reset_for_the_caller() {
    let stage = Stage::inbound("tcp", Backend::start(|_| (0, "")).await).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: tcp, application: {}}}\n",
        stage.site.base().replace("audit.jsonl", "reset.jsonl"),
        listener.local_addr().unwrap()
    );
    let sidecar = crate::testing::Sidecar::ready(&text).await;
    let mut client = crate::testing::call(&stage.authority.credentials(SHOP), sidecar.inbound()).await;
    let (application, _) = listener.accept().await.unwrap();

    application.set_zero_linger().unwrap();
    drop(application);

    assert_eq!(read_all(&mut client).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_shadow_policy_lets_pass_and_records_what_it_would_refuse() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let shadow = "vouchsafe: policy/v1\nname: stricter\nprotects: spiffe://prod.test/web\nmode: shadow\nuntil: 2199-01-01\n\
                  deny:\n  - name: no-v1\n    from: [anyone]\n    http: {port: any, paths: [/v1/**]}\n";
    std::fs::write(stage.site.path("policies/shadow.yaml"), shadow).unwrap();
    let mut client = stage.shop().await;

    let recorded = eventually(async || {
        client.write_all(GET).await.unwrap();
        assert_eq!(read_response(&mut client).await.0, 200);
        stage.site.records().into_iter().find(|record| record["firewall_rule"]["name"] == "no-v1")
    })
    .await
    .expect("a shadow denial");

    assert_eq!(recorded["action_id"], 3, "{recorded:#}");
}
