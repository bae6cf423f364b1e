//! Rate, errors and duration of the requests of one listener or service, by route: every label set is made beforehand, and
//! counting is a few additions.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use policy::{CanonicalPath, pattern::PathPattern};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::MetricType,
};

use super::Way;
use crate::http1::Outcome;

/// The routes that requests are counted under: patterns of paths, the first that matches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes(pub(super) Vec<PathPattern>);

impl Routes {
    /// Returns the number of the route of a path; the last stands for all others.
    fn of(&self, path: Option<&CanonicalPath>) -> usize {
        let matching = path.and_then(|path| self.0.iter().position(|pattern| pattern.matches(path)));
        matching.unwrap_or(self.0.len())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(PathPattern::as_str).chain([OTHER])
    }
}

/// The counts of one listener or service.
#[derive(Debug)]
pub(crate) struct Red {
    pub(crate) name: String,
    pub(crate) way: Way,
    routes: Routes,
    counts: Box<[Counts]>,
    in_flight: AtomicI64,
}

#[derive(Debug, Default)]
struct Counts {
    answered: [[AtomicU64; CLASSES.len()]; OUTCOMES.len()],
    /// Each holds those that took no longer than its bound and longer than the one before.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A request as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub(crate) path: Option<&'a CanonicalPath>,
    pub(crate) status: Option<u16>,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

impl Red {
    pub(crate) fn new(name: &str, way: Way, routes: &Routes) -> Self {
        let counts = routes.names().map(|_| Counts::default()).collect();
        Self { name: name.to_owned(), way, routes: routes.clone(), counts, in_flight: AtomicI64::new(0) }
    }

    /// A request is being answered.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is over.
    pub(crate) fn end(&self, counted: &Counted<'_>) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(counts) = self.counts.get(self.routes.of(counted.path)) else { return };
        let class = counted.status.map_or(0, |status| usize::from(status / 100));
        let row = OUTCOMES.iter().position(|outcome| *outcome == counted.outcome).unwrap_or(0);
        if let Some(cell) = counts.answered.get(row).and_then(|classes| classes.get(class)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        let seconds = counted.took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = counts.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(counted.took.as_nanos()).unwrap_or(u64::MAX);
        counts.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Red {
    /// Returns route, outcome, class of status and count of whatever was counted.
    fn totals(&self) -> impl Iterator<Item = (&str, &'static str, &'static str, u64)> {
        let routes = self.routes.names().zip(&self.counts);
        let rows = routes.flat_map(|(route, counts)| {
            OUTCOMES.iter().zip(&counts.answered).map(move |(outcome, row)| (route, outcome.as_str(), row))
        });
        let cells = rows.flat_map(|(route, outcome, row)| {
            let totals = row.iter().map(|cell| cell.load(Ordering::Relaxed));
            CLASSES.into_iter().zip(totals).map(move |(class, total)| (route, outcome, class, total))
        });
        cells.filter(|(.., total)| *total > 0)
    }
}

/// Writes the counts of all listeners and services.
#[derive(Debug)]
pub(crate) struct Written(pub(crate) Vec<std::sync::Arc<Red>>);

impl Collector for Written {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "HTTP requests answered, by listener or service, route, outcome and class of status";
        let mut family = encoder.encode_descriptor("http_requests", help, None, MetricType::Counter)?;
        for red in &self.0 {
            for (route, outcome, class, total) in red.totals() {
                let labels = [
                    ("direction", red.way.as_str()),
                    ("service", red.name.as_str()),
                    ("route", route),
                    ("outcome", outcome),
                    ("status", class),
                ];
                let counter = prometheus_client::metrics::counter::ConstCounter::new(total);
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
        self.durations(&mut encoder)?;
        self.in_flight(&mut encoder)
    }
}

impl Written {
    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Seconds from a request's head to the end of its answer";
        let mut family =
            encoder.encode_descriptor("http_request_duration_seconds", help, None, MetricType::Histogram)?;
        for red in &self.0 {
            for (route, counts) in red.routes.names().zip(&red.counts) {
                let found: Vec<u64> =
                    counts.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
                let total: u64 = found.iter().sum();
                if total == 0 {
                    continue;
                }
                let buckets: Vec<(f64, u64)> =
                    BOUNDS.iter().copied().chain([f64::MAX]).zip(found.iter().copied()).collect();
                let labels =
                    [("direction", red.way.as_str()), ("service", red.name.as_str()), ("route", route)];
                let seconds = Duration::from_nanos(counts.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
                family
                    .encode_family(&labels)?
                    .encode_histogram::<NoLabels>(seconds, total, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn in_flight(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "HTTP requests being answered";
        let mut family =
            encoder.encode_descriptor("http_requests_in_flight", help, None, MetricType::Gauge)?;
        for red in &self.0 {
            let labels = [("direction", red.way.as_str()), ("service", red.name.as_str())];
            let gauge =
                prometheus_client::metrics::gauge::ConstGauge::new(red.in_flight.load(Ordering::Relaxed));
            gauge.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What labels an exemplar, of which there are none here.
type NoLabels = [(&'static str, &'static str); 0];

const OUTCOMES: [Outcome; 4] = [Outcome::Finished, Outcome::Broken, Outcome::Cut, Outcome::Refused];
/// By the first digit of a status; the first stands for no answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// In seconds: from what a sidecar itself takes to what nobody waits for.
const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The route of what no pattern names.
const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn requests_are_counted_under_the_first_route_that_matches_and_no_path_makes_a_label() {
        let routes =
            Routes(vec![PathPattern::parse("/users/*").unwrap(), PathPattern::parse("/users/**").unwrap()]);
        let red = Arc::new(Red::new("api", Way::Inbound, &routes));
        for (path, status, millis) in
            [("/users/7", 200, 1), ("/users/7/orders", 204, 20), ("/secret", 403, 1), ("/users/8", 500, 3000)]
        {
            let path = CanonicalPath::parse(path).unwrap();
            let took = Duration::from_millis(millis);
            red.begin();
            let outcome = if status == 403 { Outcome::Refused } else { Outcome::Finished };
            red.end(&Counted { path: Some(&path), status: Some(status), outcome, took });
        }

        let mut registry = Registry::default();
        registry.register_collector(Box::new(Written(vec![red])));
        let mut written = String::new();
        text::encode(&mut written, &registry).unwrap();

        let labels = "direction=\"inbound\",service=\"api\",route";
        for line in [
            format!("http_requests_total{{{labels}=\"/users/*\",outcome=\"finished\",status=\"2xx\"}} 1"),
            format!("http_requests_total{{{labels}=\"/users/*\",outcome=\"finished\",status=\"5xx\"}} 1"),
            format!("http_requests_total{{{labels}=\"/users/**\",outcome=\"finished\",status=\"2xx\"}} 1"),
            format!("http_requests_total{{{labels}=\"other\",outcome=\"refused\",status=\"4xx\"}} 1"),
            format!("http_request_duration_seconds_count{{{labels}=\"/users/*\"}} 2"),
            format!("http_request_duration_seconds_bucket{{le=\"0.001\",{labels}=\"/users/*\"}} 1"),
            format!("http_request_duration_seconds_bucket{{le=\"5.0\",{labels}=\"/users/*\"}} 2"),
            "http_requests_in_flight{direction=\"inbound\",service=\"api\"} 0".to_owned(),
        ] {
            assert!(written.lines().any(|found| found == line), "{line}\n{written}");
        }
        assert!(!written.contains("secret"));
    }
}
