//! What an operator sees of requests, and callers that prove nothing at a port on its way to mutual TLS.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{POLICY, Stage};
use crate::testing::{Authority, Backend, HELLO, Sidecar, Site, WEB, eventually, read_all, read_response};

const GET: &[u8] = b"GET /a?token=secret HTTP/1.1\r\nhost: a.test\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";

#[tokio::test]
async fn each_request_is_counted_under_its_route_logged_without_its_query_and_goes_on_in_its_trace() {
    let authority = Authority::new("prod");
    let site = Site::new(&authority, WEB, POLICY);
    let backend = Backend::http(HELLO).await;
    let log = site.path("access.jsonl");
    let text = format!(
        "{}telemetry:\n  routes: [/a/**]\n  access_log: {{file: {}}}\n  traces: {{endpoint: \"http://127.0.0.1:1\", sample: 1}}\n\
         inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: http, application: {}}}\n",
        site.base(),
        log.display(),
        backend.address
    );
    let sidecar = Sidecar::ready(&text).await;
    let stage = Stage { authority, site, sidecar, backend };
    let mut client = stage.shop().await;

    client.write_all(GET).await.unwrap();
    assert_eq!(read_response(&mut client).await.0, 200);

    let written = eventually(async || std::fs::read_to_string(&log).ok().filter(|text| text.ends_with('\n')));
    let line: serde_json::Value = serde_json::from_str(&written.await.expect("a line")).unwrap();
    assert_eq!((line["path"].as_str(), line["status"].as_u64()), (Some("/a"), Some(200)));
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(!line.to_string().contains("secret"));
    let forwarded = stage.backend.received();
    assert!(forwarded.contains("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{forwarded}");
    assert!(!forwarded.contains("00f067aa0ba902b7"), "{forwarded}");
    let metrics = stage.sidecar.admin("/metrics").await.1;
    let counted = "vouchsafe_proxy_http_requests_total{direction=\"inbound\",service=\"api\",route=\"/a/**\",outcome=\"finished\",status=\"2xx\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
}

/// Lets nobody's requests pass below `/public`.
const MIGRATING: &str = "vouchsafe: policy/v1
name: web
protects: spiffe://prod.test/web
allow:
  - name: public
    from: [unauthenticated]
    http: {port: any, paths: [/public/**]}
  - name: shop
    from: [spiffe://prod.test/shop]
    http: {port: any, paths: [/**]}
";

async fn migrating(until: &str) -> Stage {
    let authority = Authority::new("prod");
    let site = Site::new(&authority, WEB, MIGRATING);
    let backend = Backend::http(HELLO).await;
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: http, application: {}, danger_permissive: {{until: {until}}}}}\n",
        site.base(),
        backend.address
    );
    let sidecar = Sidecar::ready(&text).await;
    Stage { authority, site, sidecar, backend }
}

#[tokio::test]
async fn until_its_day_a_permissive_port_lets_nobody_in_as_nobody_and_counts_it() {
    let stage = migrating("9999-01-01").await;
    let mut plain = TcpStream::connect(stage.sidecar.inbound()).await.unwrap();

    plain.write_all(b"GET /public/a HTTP/1.1\r\nhost: a.test\r\nx-forwarded-client-cert: URI=spiffe://prod.test/shop\r\n\r\n").await.unwrap();
    assert_eq!(read_response(&mut plain).await.0, 200);
    plain.write_all(b"GET /private HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    assert_eq!(read_response(&mut plain).await.0, 403);

    assert!(
        !stage.backend.received().contains("client-cert") && !stage.backend.received().contains("private")
    );
    let metrics = stage.sidecar.admin("/metrics").await.1;
    assert!(metrics.contains("vouchsafe_proxy_plaintext_callers_total{listener=\"api\"} 1"), "{metrics}");
    let mut proven = stage.shop().await;
    proven.write_all(b"GET /private HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    assert_eq!(read_response(&mut proven).await.0, 200);
}

#[tokio::test]
async fn what_looks_like_tls_at_a_permissive_port_has_to_be_tls() {
    let stage = migrating("9999-01-01").await;
    let mut plain = TcpStream::connect(stage.sidecar.inbound()).await.unwrap();

    plain.write_all(b"\x16GET /public/a HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();

    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP") && stage.backend.received().is_empty());
}

#[tokio::test]
async fn from_its_day_on_a_permissive_port_is_strict() {
    let stage = migrating("2001-01-01").await;
    let mut plain = TcpStream::connect(stage.sidecar.inbound()).await.unwrap();

    plain.write_all(b"GET /public/a HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();

    let ended = read_all(&mut plain).await;
    assert!(ended.map_or(true, |bytes| !bytes.starts_with(b"HTTP")));
    assert!(stage.backend.received().is_empty());
    stage.site.denial("handshake_failed").await;
}
