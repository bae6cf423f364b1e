//! From an event, or from many counted together, to a record.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use time::OffsetDateTime;

use super::{
    Aggregate as AggregateNote, Certificate, Change, Fingerprint, FirewallRule, HttpRequest, Jwt, Metadata,
    NearMiss, NetworkEndpoint, OCSF_VERSION, Policy, Product, Record, Tls, Traffic, Unmapped, Url, Vouchsafe,
    class::{Class, GAP},
};
use crate::{
    aggregate::{Aggregate, Scope, network},
    chain::{Link, PLACE_HOLDER},
    config,
    event::{self, Decision, Effect, Event, Kind, Stage},
    id::fresh,
    text::Cap,
};

/// Whose record it is, and where in which chain it stands.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// Who writes.
    pub(crate) product: &'a Product,
    /// The chain's name.
    pub(crate) chain: &'a str,
    /// The record's number in the chain.
    pub(crate) sequence: u64,
    /// The hash of the record before.
    pub(crate) prev: Link,
}

impl Product {
    /// Names the daemon that writes a log.
    pub(crate) fn new(product: &config::Product) -> Self {
        let mut cap = Cap::default();
        Self {
            name: cap.text(&format!("vouchsafe {}", product.daemon), MAX_NAME),
            vendor_name: "Vouchsafe".to_owned(),
            uid: cap.some(product.id.as_deref(), MAX_ID),
            version: cap.text(&product.version, MAX_NAME),
        }
    }
}

impl Record {
    /// Makes the record of one event.
    pub(crate) fn of_event(event: &Event, subject: &Subject<'_>) -> Self {
        let mut cap = Cap::default();
        let class = Class::of(event);
        let mut record = blank(class, event.time, event.stage, event.decision(), subject);
        record.outcome(event);
        record.src_endpoint = endpoint(&event.source, &mut cap);
        record.dst_endpoint = endpoint(&event.destination, &mut cap);
        record.tls = event.tls.as_ref().map(|tls| tls_of(tls, &mut cap));
        record.http_request = event.http.as_ref().map(|http| request(http, event.tls.is_some(), &mut cap));
        record.rule(event, &mut cap);
        record.our_own(event, &mut cap);
        record.metadata.is_truncated = cap.truncated.then_some(true);
        record
    }

    /// Makes the record that stands for every event of an aggregate.
    pub(crate) fn of_aggregate(aggregate: &Aggregate, subject: &Subject<'_>) -> Self {
        let mut record = Self::of_event(&aggregate.sample, subject);
        record.count = Some(aggregate.count);
        record.start_time = Some(millis(aggregate.start));
        record.end_time = Some(millis(aggregate.end));
        let ours = &mut record.unmapped.vouchsafe;
        ours.aggregate = Some(note(aggregate));
        if aggregate.count > 1 {
            ours.conn_id = None;
            if let Some(source) = &mut record.src_endpoint {
                source.port = None;
            }
        }
        record
    }

    /// Makes a record about the log itself.
    pub(crate) fn of_log(now: SystemTime, change: Change, subject: &Subject<'_>) -> Self {
        let class = Class::of_change(&change.what);
        let mut record = blank(class, now, Stage::Admin, Decision::Lifecycle, subject);
        record.log_name = Some(LOG_NAME.to_owned());
        if change.what == GAP {
            (record.status_id, record.severity_id) = (2, 3);
        }
        record.unmapped.vouchsafe.change = Some(change);
        record
    }

    fn outcome(&mut self, event: &Event) {
        let (action, disposition, status, severity) = match event.decision() {
            Decision::Denied => (2, 2, 2, 3),
            Decision::WouldDeny => (3, 17, 2, 2),
            Decision::Opened | Decision::Closed | Decision::Allowed => (1, 1, 1, 1),
            Decision::Lifecycle => return self.daemon(event),
        };
        self.action_id = Some(action);
        self.disposition_id = Some(disposition);
        self.status_id = status;
        self.severity_id = severity;
        self.status_detail = event.reason().map(|reason| reason.as_str().to_owned());
        self.metadata.profiles.push("security_control".to_owned());
    }

    fn daemon(&mut self, event: &Event) {
        self.app = Some(self.metadata.product.clone());
        if let Kind::Lifecycle(change) = &event.kind {
            let what = change.as_str().to_owned();
            self.unmapped.vouchsafe.change = Some(Change { what, cut: event.cut, ..Change::default() });
        }
    }

    fn rule(&mut self, event: &Event, cap: &mut Cap) {
        let Some(rule) = &event.policy else { return };
        self.policy = Some(Policy {
            name: cap.text(&rule.policy, MAX_NAME),
            uid: cap.text(&rule.file, MAX_NAME),
            version: cap.some(Some(&event.generation), MAX_NAME),
        });
        self.firewall_rule =
            Some(FirewallRule { name: cap.text(&rule.rule, MAX_NAME), uid: cap.text(&rule.uid(), MAX_UID) });
        self.unmapped.vouchsafe.rule_line = Some(rule.line);
    }

    fn our_own(&mut self, event: &Event, cap: &mut Cap) {
        let ours = &mut self.unmapped.vouchsafe;
        ours.generation = cap.some(Some(&event.generation), MAX_NAME);
        ours.orig_dst_port = event.original_port;
        ours.jwt = event.jwt.as_ref().map(|jwt| Jwt {
            iss: cap.some(jwt.issuer.as_deref(), MAX_UID),
            kid: cap.some(jwt.key_id.as_deref(), MAX_NAME),
            flaw: cap.some(jwt.flaw, MAX_NAME),
        });
        ours.near_miss = event.near_misses.iter().take(MAX_NEAR_MISSES).map(|miss| near(miss, cap)).collect();
        ours.conn_id = match event.kind {
            Kind::Lifecycle(_) => None,
            Kind::Denied(_) | Kind::Opened | Kind::Closed(_) | Kind::Allowed => {
                Some(event.connection.to_string())
            }
        };
        ours.code = cap.some(event.reason().and_then(|reason| reason.code()), MAX_NAME);
        if let Some(raw) = event.http.as_ref().and_then(|http| http.path_raw.as_deref()) {
            let raw = raw.split(|byte| *byte == b'?').next().unwrap_or_default();
            ours.path_raw_b64 = Some(STANDARD.encode(cap.bytes(raw, MAX_PATH)));
            ours.normalized_changed = Some(true);
        }
        match &event.kind {
            Kind::Denied(denial) => {
                ours.denial_id = Some(denial.id.to_string());
                ours.shadow = (denial.effect == Effect::Shadow).then_some(true);
            }
            Kind::Closed(close) => {
                ours.close_cause = Some(close.cause.as_str().to_owned());
                self.duration = Some(whole_millis(close.duration));
                let bytes = close.bytes_in.saturating_add(close.bytes_out);
                self.traffic = Some(Traffic { bytes_in: close.bytes_in, bytes_out: close.bytes_out, bytes });
            }
            Kind::Opened | Kind::Allowed | Kind::Lifecycle(_) => {}
        }
    }
}

fn blank(class: Class, at: SystemTime, stage: Stage, decision: Decision, subject: &Subject<'_>) -> Record {
    Record {
        time: millis(at),
        class_uid: class.uid,
        category_uid: class.uid / 1000,
        activity_id: class.activity,
        type_uid: class.uid * 100 + class.activity,
        severity_id: 1,
        action_id: None,
        disposition_id: None,
        status_id: 1,
        status_detail: None,
        count: None,
        start_time: None,
        end_time: None,
        duration: None,
        metadata: metadata(at, subject),
        log_name: None,
        app: None,
        src_endpoint: None,
        dst_endpoint: None,
        tls: None,
        http_request: None,
        traffic: None,
        policy: None,
        firewall_rule: None,
        unmapped: Unmapped { vouchsafe: vouchsafe(stage, decision, subject) },
    }
}

fn metadata(at: SystemTime, subject: &Subject<'_>) -> Metadata {
    Metadata {
        version: OCSF_VERSION.to_owned(),
        uid: fresh(at).to_string(),
        sequence: subject.sequence,
        log_name: LOG_NAME.to_owned(),
        product: subject.product.clone(),
        profiles: Vec::new(),
        original_time: rfc3339(at),
        is_truncated: None,
    }
}

fn vouchsafe(stage: Stage, decision: Decision, subject: &Subject<'_>) -> Vouchsafe {
    Vouchsafe {
        decision: decision.as_str().to_owned(),
        stage: stage.as_str().to_owned(),
        conn_id: None,
        denial_id: None,
        code: None,
        generation: None,
        shadow: None,
        rule_line: None,
        orig_dst_port: None,
        path_raw_b64: None,
        normalized_changed: None,
        jwt: None,
        near_miss: Vec::new(),
        close_cause: None,
        aggregate: None,
        change: None,
        chain: subject.chain.to_owned(),
        prev: subject.prev.to_hex(),
        hash: PLACE_HOLDER.to_owned(),
    }
}

fn endpoint(end: &event::Endpoint, cap: &mut Cap) -> Option<NetworkEndpoint> {
    if *end == event::Endpoint::default() {
        return None;
    }
    Some(NetworkEndpoint {
        ip: end.ip.map(|ip| ip.to_canonical().to_string()),
        port: end.port,
        uid: cap.some(end.id.as_deref(), MAX_ID),
        svc_name: cap.some(end.name.as_deref(), MAX_NAME),
    })
}

fn tls_of(tls: &event::Tls, cap: &mut Cap) -> Tls {
    Tls {
        version: tls.version.to_owned(),
        sni: cap.some(tls.sni.as_deref(), MAX_HOST),
        certificate: tls.certificate.as_ref().map(|leaf| Certificate {
            issuer: cap.text(&leaf.issuer, MAX_ID),
            serial_number: cap.text(&leaf.serial, MAX_NAME),
            fingerprints: vec![Fingerprint { algorithm_id: 3, value: cap.text(&leaf.fingerprint, MAX_NAME) }],
        }),
    }
}

fn request(http: &event::Http, encrypted: bool, cap: &mut Cap) -> HttpRequest {
    let path = http.path.split('?').next().unwrap_or_default();
    HttpRequest {
        http_method: cap.text(&http.method, MAX_METHOD),
        user_agent: cap.some(http.user_agent.as_deref(), MAX_USER_AGENT),
        url: Url {
            path: cap.text(path, MAX_PATH),
            hostname: cap.some(Some(&http.host), MAX_HOST),
            scheme: if encrypted { "https" } else { "http" }.to_owned(),
        },
    }
}

fn near(miss: &event::NearMiss, cap: &mut Cap) -> NearMiss {
    NearMiss {
        rule: cap.text(&miss.rule.uid(), MAX_UID),
        policy: cap.text(&miss.rule.policy, MAX_NAME),
        line: miss.rule.line,
        failed: cap.text(&miss.failed, MAX_NAME),
        wanted: cap.text(&miss.wanted, MAX_NEAR_TEXT),
        found: cap.text(&miss.found, MAX_NEAR_TEXT),
    }
}

fn note(aggregate: &Aggregate) -> AggregateNote {
    let sample = &aggregate.sample;
    let source_net = match (aggregate.scope, &sample.source.id, sample.source.ip) {
        (Scope::Flow, None, Some(ip)) => {
            let (net, length) = network(ip);
            Some(format!("{net}/{length}"))
        }
        (Scope::Flow | Scope::Rule | Scope::Reason, _, _) => None,
    };
    AggregateNote {
        key: aggregate.scope.as_str().to_owned(),
        source_net,
        last_denial_id: aggregate.last_denial.map(|id| id.to_string()),
    }
}

/// Returns milliseconds since 1970, negative before.
pub(crate) fn millis(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => whole_millis(since),
        Err(before) => -whole_millis(before.duration()),
    }
}

fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Writes a time as records do: RFC 3339 in UTC, to the microsecond.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{date}T{:02}:{:02}:{:02}.{:06}Z",
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.microsecond()
    )
}

/// The longest SPIFFE ID there is (SPIFFE-ID 2.3).
const MAX_ID: usize = 2_048;
/// The longest path kept.
const MAX_PATH: usize = 1_024;
/// The longest host name there is.
const MAX_HOST: usize = 255;
/// The longest method kept.
const MAX_METHOD: usize = 32;
/// The longest user agent kept.
const MAX_USER_AGENT: usize = 256;
/// The longest name of a policy, a rule, a file, a listener or a code kept.
const MAX_NAME: usize = 256;
/// The longest `file#rule`.
const MAX_UID: usize = 2 * MAX_NAME + 1;
/// How many near misses are kept.
const MAX_NEAR_MISSES: usize = 3;
/// The longest text of a near miss kept.
const MAX_NEAR_TEXT: usize = 512;

/// The name of the log, in its records.
const LOG_NAME: &str = "vouchsafe.audit";
