//! Spans for a collector of OpenTelemetry, by OTLP over gRPC: handed to a task of its own in a bounded queue, sent in batches,
//! dropped and counted where the collector is slow or away. No request waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status, span::SpanKind, status::StatusCode},
};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{Way, trace_context::Span};

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The collector, such as `http://127.0.0.1:4317`.
    pub endpoint: Uri,
    /// The share of traces that begin here and are recorded, from 0 to 1.
    pub sample: f64,
    /// The name of the service in the traces; else the path of its SPIFFE ID.
    pub service_name: Option<String>,
}

/// Takes spans.
#[derive(Debug)]
pub(crate) struct Exporter {
    spans: mpsc::Sender<Finished>,
    sample: u64,
    lost: Arc<AtomicU64>,
}

/// A span that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) span: Span,
    pub(crate) way: Way,
    pub(crate) began: SystemTime,
    pub(crate) took: Duration,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) service: Arc<str>,
    pub(crate) own: Option<String>,
    pub(crate) peer: Option<Arc<str>>,
    pub(crate) status: Option<u16>,
    pub(crate) outcome: &'static str,
}

impl Exporter {
    /// Makes an exporter and the task that sends, which ends with the exporter.
    pub(crate) fn new(traces: &Traces) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (spans, queue) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let sending = Sending {
            channel: Endpoint::from(traces.endpoint.clone()).timeout(TIMEOUT).connect_lazy(),
            name: traces.service_name.clone(),
            lost: Arc::clone(&lost),
            failed: false,
        };
        (Self { spans, sample: threshold(traces.sample), lost }, sending.run(queue))
    }

    /// Decides about a trace that begins here, by the number in its name.
    pub(crate) fn samples(&self, number: u64) -> bool {
        number < self.sample
    }

    pub(crate) fn export(&self, finished: Finished) {
        if self.spans.try_send(finished).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many spans reached no collector.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of all numbers, exact enough, and never negative"
)]
fn threshold(sample: f64) -> u64 {
    (sample.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}

struct Sending {
    channel: Channel,
    name: Option<String>,
    lost: Arc<AtomicU64>,
    failed: bool,
}

impl Sending {
    async fn run(mut self, mut queue: mpsc::Receiver<Finished>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            let spans = std::mem::take(&mut batch);
            let count = spans.len();
            let request = self.request(spans);
            let sent = TraceServiceClient::new(self.channel.clone()).export(request).await;
            match sent {
                Ok(_) => self.failed = false,
                Err(status) => {
                    self.lost.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
                    if !self.failed {
                        tracing::warn!(code = ?status.code(), "no collector takes spans");
                    }
                    self.failed = true;
                }
            }
            // More spans come together in one message.
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn request(&self, spans: Vec<Finished>) -> ExportTraceServiceRequest {
        let own = spans.iter().find_map(|span| span.own.clone());
        let name = self.name.clone().or(own).unwrap_or_else(|| "vouchsafe".to_owned());
        let scope = InstrumentationScope {
            name: "vouchsafe".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = ScopeSpans {
            scope: Some(scope),
            spans: spans.into_iter().map(written).collect(),
            ..ScopeSpans::default()
        };
        let resource = Resource { attributes: vec![text("service.name", name)], ..Resource::default() };
        let resource_spans = ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
    }
}

/// OpenTelemetry's semantic conventions for HTTP spans, 1.23 and later.
fn written(finished: Finished) -> OtlpSpan {
    let began = finished.began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let mut attributes = vec![
        text("http.request.method", finished.method.clone()),
        text("server.address", finished.host),
        text("url.path", finished.path),
        text("vouchsafe.service", finished.service.to_string()),
        text("vouchsafe.outcome", finished.outcome.to_owned()),
    ];
    attributes.extend(finished.peer.map(|peer| text("vouchsafe.peer", peer.to_string())));
    if let Some(status) = finished.status {
        let value = AnyValue { value: Some(Value::IntValue(i64::from(status))) };
        attributes.push(attribute("http.response.status_code", value));
    }
    let failed = finished.status.is_none_or(|status| status >= 500);
    let code = if failed { StatusCode::Error } else { StatusCode::Unset };
    OtlpSpan {
        trace_id: finished.span.trace.0.to_vec(),
        span_id: finished.span.id.0.to_vec(),
        parent_span_id: finished.span.parent.map_or_else(Vec::new, |parent| parent.0.to_vec()),
        name: finished.method,
        kind: match finished.way {
            Way::Inbound => SpanKind::Server,
            Way::Outbound => SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: nanoseconds(began),
        end_time_unix_nano: nanoseconds(began + finished.took),
        attributes,
        status: Some(Status { code: code.into(), ..Status::default() }),
        ..OtlpSpan::default()
    }
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, AnyValue { value: Some(Value::StringValue(value)) })
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// Spans that wait for the collector.
const QUEUE: usize = 2048;
/// Spans in one message.
const BATCH: usize = 512;
const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
