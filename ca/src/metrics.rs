//! What the CA counts, in OpenMetrics, and the small HTTP listener that serves it beside liveness and readiness.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Response, StatusCode};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use crate::{policies::Published, services::Core};

/// What a certificate was issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Kind {
    /// A workload's, through its agent.
    Workload,
    /// An agent's.
    Agent,
    /// An operator's request.
    Minted,
}

/// How an attestation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Attested {
    /// The agent got a certificate.
    Admitted,
    /// It did not.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Issued {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attestation {
    outcome: Attested,
}

/// The counters. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    issued: Family<Issued, Counter>,
    attestations: Family<Attestation, Counter>,
    refused: Counter,
    handshakes_failed: Counter,
}

impl Metrics {
    pub(crate) fn issued(&self, kind: Kind) {
        self.issued.get_or_create(&Issued { kind }).inc();
    }

    pub(crate) fn attested(&self, outcome: Attested) {
        self.attestations.get_or_create(&Attestation { outcome }).inc();
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    fn text(&self, core: &Core) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("vouchsafe_ca");
        registry.register("svids_issued", "X.509-SVIDs issued", self.issued.clone());
        registry.register("attestations", "Attestations by outcome", self.attestations.clone());
        registry.register("calls_refused", "Calls refused by authorization", self.refused.clone());
        registry.register("handshakes_failed", "TLS handshakes that failed", self.handshakes_failed.clone());
        let (entries, agents) =
            core.registry.read(|registry| (registry.entry_count(), registry.node_count()));
        let signing = core.signing.borrow().clone();
        let sequence = signing.bundle.sequence().unwrap_or(0);
        gauge(&mut registry, "entries", "Registration entries", entries);
        gauge(&mut registry, "agents", "Attested agents", agents);
        gauge(
            &mut registry,
            "agents_watching",
            "Agents with an open push stream",
            core.registry.subscribers(),
        );
        gauge(
            &mut registry,
            "bundle_sequence",
            "Number of the trust bundle",
            usize::try_from(sequence).unwrap_or(0),
        );
        let number = |published: &Published| match published {
            Published::None | Published::Pending => 0,
            Published::Set(held) => usize::try_from(held.set.seen.number).unwrap_or(usize::MAX),
        };
        let policies = number(&core.policies.published.borrow());
        let services = number(&core.services.published.borrow());
        gauge(&mut registry, "policy_set_number", "Number of the policy set handed out", policies);
        gauge(&mut registry, "service_set_number", "Number of the service set handed out", services);
        gauge(
            &mut registry,
            "agents_watching_policies",
            "Agents with an open stream of policies",
            core.policies.board.connected(),
        );
        let expires = crate::model::unix_seconds(signing.active.not_after());
        let expires = usize::try_from(expires).unwrap_or(0);
        gauge(
            &mut registry,
            "authority_expiry_timestamp_seconds",
            "When the signing authority ends",
            expires,
        );
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

/// Serves `/metrics`, `/livez` and `/readyz` until the CA stops.
pub(crate) async fn serve(listener: TcpListener, core: Arc<Core>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = core.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let (Ok((stream, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned()) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let core = core.clone();
        connections.spawn(async move {
            let answer =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &core))));
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
            // A client that breaks off is its own affair.
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, core: &Core) -> Response<String> {
    let flaws = core.health.flaws();
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match core.metrics.text(core) {
            Ok(text) => (StatusCode::OK, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n".into()),
        },
        (&Method::GET, "/livez") => (StatusCode::OK, "ok\n".into()),
        (&Method::GET, "/readyz") if flaws.is_empty() => (StatusCode::OK, "ok\n".into()),
        (&Method::GET, "/readyz") => (StatusCode::SERVICE_UNAVAILABLE, flaws.join("\n") + "\n"),
        _ => (StatusCode::NOT_FOUND, "not found\n".into()),
    };
    let kind = match request.uri().path() {
        "/metrics" => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Scrapers at once.
const MAX_CONNECTIONS: usize = 16;
/// How long a client may take to ask.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Rest after a refused or failed connection.
const PAUSE: Duration = Duration::from_millis(50);
