//! What an operator sees of requests: metrics, an access log, spans, and a live view. Each is told when a request is over, by
//! whoever decided about it; none of them is evidence, and none holds a request up.

pub mod access;
pub mod looking;
mod red;
pub mod spans;
mod trace_context;
mod view;

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::{HeaderName, HeaderValue};
use policy::pattern::PathPattern;

use crate::http1::{Answered, RequestLine, Target};
use access::{AccessLog, Line};
use red::{Counted, Routes, Written};
use spans::{Exporter, Finished};

pub(crate) use red::Red;
pub(crate) use trace_context::Span;
pub(crate) use view::View;

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The routes that requests are counted under.
    pub routes: Vec<PathPattern>,
    /// Where a line for each request goes, and how it looks.
    pub access_log: Option<(access::Target, access::Format)>,
    /// Where spans go.
    pub traces: Option<spans::Traces>,
}

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// To our workload.
    Inbound,
    /// From our workload.
    Outbound,
}

impl Way {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Everything that is told of requests.
#[derive(Debug)]
pub(crate) struct Telemetry {
    routes: Routes,
    reds: Mutex<Vec<Arc<Red>>>,
    access: Option<AccessLog>,
    spans: Option<Exporter>,
    view: Arc<View>,
}

impl Telemetry {
    /// Opens what is configured. The second value sends spans; it runs where nobody waits.
    pub(crate) fn start(config: &Config) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let access = config.access_log.as_ref();
        let access = access.map(|(target, format)| AccessLog::start(target, *format)).transpose()?;
        let (spans, sending) = config.traces.as_ref().map(Exporter::new).unzip();
        let telemetry = Self {
            routes: Routes(config.routes.clone()),
            reds: Mutex::default(),
            access,
            spans,
            view: Arc::new(View::new()),
        };
        let sending = async move {
            if let Some(sending) = sending {
                sending.await;
            }
        };
        Ok((telemetry, sending))
    }

    /// Returns the counts of a listener or service; those of one name share them.
    fn red(&self, way: Way, name: &str) -> Arc<Red> {
        let mut reds = self.reds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = reds.iter().find(|red| red.way == way && red.name == name) {
            return Arc::clone(known);
        }
        let name = if reds.len() < MAX_SERVICES { name } else { OTHERS };
        let red = Arc::new(Red::new(name, way, &self.routes));
        reds.push(Arc::clone(&red));
        red
    }

    /// Returns what the metrics are written from.
    pub(crate) fn written(&self) -> Written {
        Written(self.reds.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Returns the lines of the access log and the spans that found no room.
    pub(crate) fn lost(&self) -> (u64, u64) {
        let lines = self.access.as_ref().map_or(0, AccessLog::dropped);
        (lines, self.spans.as_ref().map_or(0, Exporter::lost))
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }
}

/// Tells of the requests of one connection.
#[derive(Debug)]
pub(crate) struct Watcher {
    telemetry: Arc<Telemetry>,
    red: Arc<Red>,
    service: Arc<str>,
    peer: Option<Arc<str>>,
    source: Option<IpAddr>,
    connection: audit::ConnectionId,
}

/// Whose requests are watched.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) way: Way,
    pub(crate) service: Arc<str>,
    pub(crate) peer: Option<Arc<str>>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) connection: audit::ConnectionId,
}

impl Watcher {
    pub(crate) fn new(telemetry: &Arc<Telemetry>, watched: Watched) -> Self {
        let Watched { way, service, peer, source, connection } = watched;
        let red = telemetry.red(way, &service);
        Self { telemetry: Arc::clone(telemetry), red, service, peer, source, connection }
    }

    /// Notes that a request is being answered.
    pub(crate) fn begin(&self, line: &RequestLine) {
        let span = self.telemetry.spans.as_ref().map(|exporter| {
            let name = trace_context::TRACEPARENT;
            let sent = line.fields().values(name.as_str());
            Span::begin(sent, |number| exporter.samples(number))
        });
        if line.keep_span(span) {
            self.red.begin();
        }
    }

    /// Returns what tells the next hop of the trace.
    pub(crate) fn mark(line: &RequestLine) -> Option<(HeaderName, HeaderValue)> {
        let span = line.span().flatten()?;
        let value = HeaderValue::try_from(span.to_string()).ok()?;
        Some((trace_context::TRACEPARENT, value))
    }

    /// Tells that a request is over.
    pub(crate) fn end(&self, answered: &Answered<'_>) {
        // What could not be read was not begun.
        let Some(span) = answered.line.span() else { return };
        let path = match &answered.line.target {
            Target::Path { path, .. } => Some(path),
            Target::Tunnel { .. } => None,
        };
        let status = answered.status.map(|status| status.as_u16());
        self.red.end(&Counted { path, status, outcome: answered.outcome, took: answered.took });
        let row = (self.red.way, &self.service, self.peer.as_ref());
        self.telemetry.view.count(row, answered.outcome, answered.took);
        let tapped = self.telemetry.view.is_tapped();
        if self.telemetry.access.is_some() || tapped {
            let line = self.line(answered, span.as_ref());
            if tapped {
                self.telemetry.view.show(&Arc::new(line.clone()));
            }
            if let Some(access) = &self.telemetry.access {
                access.write(line);
            }
        }
        if let (Some(exporter), Some(span)) = (&self.telemetry.spans, span.filter(|span| span.sampled)) {
            exporter.export(self.finished(answered, span));
        }
    }

    fn line(&self, answered: &Answered<'_>, span: Option<&Span>) -> Line {
        let http = answered.line.as_audit();
        Line {
            time: SystemTime::now(),
            direction: self.red.way.as_str(),
            service: Arc::clone(&self.service),
            connection: self.connection.to_string(),
            source: self.source,
            peer: self.peer.clone(),
            method: http.method,
            host: http.host,
            path: cut(http.path),
            status: answered.status.map(|status| status.as_u16()),
            grpc_status: answered.grpc_status,
            outcome: answered.outcome.as_str(),
            duration_us: u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX),
            received: answered.received,
            sent: answered.sent,
            user_agent: http.user_agent,
            trace_id: span.map(|span| span.trace.to_string()),
        }
    }

    fn finished(&self, answered: &Answered<'_>, span: Span) -> Finished {
        let http = answered.line.as_audit();
        let now = SystemTime::now();
        Finished {
            span,
            way: self.red.way,
            began: now.checked_sub(answered.took).unwrap_or(now),
            took: answered.took,
            method: http.method,
            host: http.host,
            path: cut(http.path),
            service: Arc::clone(&self.service),
            own: None,
            peer: self.peer.clone(),
            status: answered.status.map(|status| status.as_u16()),
            outcome: answered.outcome.as_str(),
        }
    }
}

/// A path as long as somebody reads.
fn cut(mut path: String) -> String {
    if path.len() > MAX_PATH {
        let end = (0..=MAX_PATH).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
        path.truncate(end);
    }
    path
}

/// Listeners and services that are counted apart.
const MAX_SERVICES: usize = 1024;
const OTHERS: &str = "(others)";
/// Bytes of a path in a line or a span.
const MAX_PATH: usize = 1024;

#[cfg(test)]
mod tests;
