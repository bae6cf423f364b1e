use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response};

use super::*;
use crate::telemetry::trace_context::{SpanId, TraceId};

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn finished(status: u16) -> Finished {
    Finished {
        span: Span {
            trace: TraceId([7; 16]),
            id: SpanId([1; 8]),
            parent: Some(SpanId([2; 8])),
            sampled: true,
        },
        way: Way::Inbound,
        began: UNIX_EPOCH + Duration::from_secs(10),
        took: Duration::from_millis(5),
        method: "GET".to_owned(),
        host: "api.test".to_owned(),
        path: "/users/7".to_owned(),
        service: "api".into(),
        own: None,
        peer: Some("spiffe://a.test/web".into()),
        status: Some(status),
        outcome: "finished",
    }
}

fn traces(endpoint: String) -> Traces {
    Traces { endpoint: endpoint.parse().unwrap(), sample: 0.5, service_name: Some("api".to_owned()) }
}

#[tokio::test]
async fn a_collector_gets_each_span_with_its_place_in_the_trace() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (exporter, sending) = Exporter::new(&traces(format!("http://{}", listener.local_addr().unwrap())));
    let (seen, mut requests) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Collector(seen)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    tokio::spawn(sending);

    exporter.export(finished(503));

    let request = requests.recv().await.unwrap();
    let resource = &request.resource_spans[0];
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!(resource.resource.as_ref().unwrap().attributes, [text("service.name", "api".to_owned())]);
    assert_eq!((span.trace_id.as_slice(), span.span_id.as_slice()), (&[7; 16][..], &[1; 8][..]));
    assert_eq!(span.parent_span_id, [2; 8]);
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 5_000_000);
    assert_eq!(span.status.as_ref().unwrap().code, i32::from(StatusCode::Error));
    assert!(span.attributes.contains(&text("url.path", "/users/7".to_owned())));
    assert_eq!(exporter.lost(), 0);
}

#[tokio::test]
async fn spans_beyond_the_queue_are_dropped_and_counted() {
    let (exporter, _never_sends) = Exporter::new(&traces("http://127.0.0.1:1".to_owned()));

    (0..QUEUE + 3).for_each(|_| exporter.export(finished(200)));

    assert_eq!(exporter.lost(), 3);
}

#[test]
fn the_share_of_traces_is_that_of_the_numbers_below_the_threshold() {
    assert_eq!((threshold(0.0), threshold(1.0)), (0, u64::MAX));
    assert!(threshold(0.25).abs_diff(u64::MAX / 4) < u64::from(u32::MAX));
}
