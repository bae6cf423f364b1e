use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::http1::Outcome;

fn line(traceparent: Option<&str>) -> RequestLine {
    let mut request = http::Request::get("/users/7?secret=1").header("host", "api.test");
    if let Some(value) = traceparent {
        request = request.header("traceparent", value);
    }
    RequestLine::read(&mut request.body(()).unwrap().into_parts().0).unwrap()
}

fn watcher(config: &Config) -> (Watcher, Arc<Telemetry>) {
    let telemetry = Arc::new(Telemetry::start(config).unwrap().0);
    let watched = Watched {
        way: Way::Inbound,
        service: "api".into(),
        peer: Some("spiffe://a.test/web".into()),
        source: None,
        connection: audit::ConnectionId::new(SystemTime::UNIX_EPOCH),
    };
    (Watcher::new(&telemetry, watched), telemetry)
}

fn end(watcher: &Watcher, line: &RequestLine) {
    watcher.end(&Answered {
        line,
        status: Some(StatusCode::OK),
        grpc_status: None,
        took: Duration::from_millis(2),
        received: 1,
        sent: 2,
        outcome: Outcome::Finished,
    });
}

#[tokio::test]
async fn who_taps_sees_each_request_once_and_no_query() {
    let (watcher, telemetry) = watcher(&Config::default());
    let mut tap = telemetry.view().tap().unwrap();
    let line = line(None);

    watcher.begin(&line);
    end(&watcher, &line);

    let seen = tap.lines.recv().await.unwrap();
    assert_eq!(
        (seen.path.as_str(), seen.status, seen.peer.as_deref()),
        ("/users/7", Some(200), Some("spiffe://a.test/web"))
    );
    assert!(tap.lines.try_recv().is_err());
}

#[tokio::test]
async fn a_trace_goes_on_below_our_own_span_and_stays_as_it_came_where_nobody_records() {
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traces =
        spans::Traces { endpoint: "http://127.0.0.1:1".parse().unwrap(), sample: 0.0, service_name: None };
    let recording = watcher(&Config { traces: Some(traces), ..Config::default() }).0;
    let (one, other) = (line(Some(sent)), line(Some(sent)));

    recording.begin(&one);
    watcher(&Config::default()).0.begin(&other);

    let (name, value) = Watcher::mark(&one).unwrap();
    assert_eq!(name, "traceparent");
    assert!(value.to_str().unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && value != sent);
    assert_eq!(Watcher::mark(&other), None);
}

#[tokio::test]
async fn what_was_never_begun_is_not_counted_as_ended() {
    let (watcher, telemetry) = watcher(&Config::default());

    end(&watcher, &line(None));

    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(telemetry.written()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("http_requests_in_flight{direction=\"inbound\",service=\"api\"} 0"), "{text}");
    assert!(!text.contains("http_requests_total{"), "{text}");
}
