//! What is counted of services. There is a label for each service that is named somewhere, and none for what callers say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::{Service, Services};
use crate::balance::{Cause, Change, Load};

/// The counters of one service.
#[derive(Debug, Default)]
pub(super) struct Counts {
    calls: AtomicU64,
    ejections: [AtomicU64; 3],
    refused: [AtomicU64; 3],
    retries: AtomicU64,
    over_budget: AtomicU64,
    unhealthy: AtomicU64,
}

impl Counts {
    pub(super) fn called(&self) {
        add(&self.calls);
    }

    pub(super) fn retried(&self, granted: bool) {
        add(if granted { &self.retries } else { &self.over_budget });
    }

    pub(super) fn overloaded(&self, load: Load) {
        let [connections, pending, requests] = &self.refused;
        add(match load {
            Load::Connection => connections,
            Load::Pending => pending,
            Load::Request => requests,
        });
    }

    pub(super) fn changed(&self, change: Change) {
        let [failures, success_rate, identity] = &self.ejections;
        match change {
            Change::Ejected { cause, .. } => add(match cause {
                Cause::Failures => failures,
                Cause::SuccessRate => success_rate,
                Cause::Identity => identity,
            }),
            Change::Unhealthy { .. } => add(&self.unhealthy),
            Change::Returned { .. } | Change::Healthy { .. } => {}
        }
    }

    fn rows(&self) -> [(&'static str, &'static str, u64); 10] {
        let [failures, success_rate, identity] = &self.ejections;
        let [connections, pending, requests] = &self.refused;
        let rows = [
            ("call", "", &self.calls),
            ("ejection", Cause::Failures.as_str(), failures),
            ("ejection", Cause::SuccessRate.as_str(), success_rate),
            ("ejection", Cause::Identity.as_str(), identity),
            ("unhealthy", "", &self.unhealthy),
            ("retry", "", &self.retries),
            ("retry_refused", "budget", &self.over_budget),
            ("overload", Load::Connection.as_str(), connections),
            ("overload", Load::Pending.as_str(), pending),
            ("overload", Load::Request.as_str(), requests),
        ];
        rows.map(|(event, cause, count)| (event, cause, count.load(Ordering::Relaxed)))
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Writes the counters of all services when they are asked for.
#[derive(Debug)]
pub(crate) struct Counted(pub(crate) Arc<Services>);

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let table = self.0.now();
        let services: Vec<&Arc<Service>> = table.services().take(MAX_LABELS).collect();
        let help = "What happened to calls of a service and to its endpoints";
        let mut family = encoder.encode_descriptor("service_events", help, None, MetricType::Counter)?;
        for service in &services {
            for (event, cause, count) in service.counts.rows() {
                let labels = [("service", service.name().as_ref()), ("event", event), ("cause", cause)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Endpoints of a service, by whether they are called";
        let mut family = encoder.encode_descriptor("service_endpoints", help, None, MetricType::Gauge)?;
        for service in &services {
            let views = service.views(Instant::now());
            for state in ["in", "ejected", "unhealthy"] {
                let count = views.iter().filter(|view| view.state == state).count();
                let labels = [("service", service.name().as_ref()), ("state", state)];
                ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
                    .encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "What is under way to a service";
        let mut family = encoder.encode_descriptor("service_under_way", help, None, MetricType::Gauge)?;
        for service in &services {
            for load in [Load::Connection, Load::Pending, Load::Request] {
                let labels = [("service", service.name().as_ref()), ("load", load.as_str())];
                let count = i64::from(service.under_way(load));
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Services with labels of their own.
const MAX_LABELS: usize = 1_024;
