//! One record as one line for people. Nothing in it acts on a terminal.

use std::fmt::Write;

use super::Field;
use crate::{
    record::{NetworkEndpoint, Record},
    text::{shown, word},
};

/// Returns the record as one line: when, what, why, who, what was asked, and where to read on.
pub fn row(record: &Record) -> String {
    let ours = &record.unmapped.vouchsafe;
    let mut line = format!("{} {}", shown(&record.metadata.original_time), shown(&ours.decision));
    if let Some(change) = &ours.change {
        push(&mut line, "", Some(&change.what));
        push(&mut line, "file=", change.file.as_ref());
        push(&mut line, "aggregated=", change.aggregated.map(|count| count.to_string()).as_ref());
        push(&mut line, "cut=", change.cut.map(|count| count.to_string()).as_ref());
        push(&mut line, "error=", change.error.as_ref());
    }
    push(&mut line, "", record.status_detail.as_ref());
    push(&mut line, "code=", ours.code.as_ref());
    if record.src_endpoint.is_some() || record.dst_endpoint.is_some() {
        // Writing to a String cannot fail.
        let _ = write!(line, " {} -> {}", source(record), destination(record.dst_endpoint.as_ref()));
    }
    if let Some(request) = &record.http_request {
        let _ = write!(line, " {} {}", word(&request.http_method), word(&request.url.path));
    }
    push(&mut line, "rule=", record.firewall_rule.as_ref().map(|rule| &rule.uid));
    if let Some(near) = ours.near_miss.first() {
        let _ = write!(line, " nearest={} failed={}", word(&near.rule), word(&near.failed));
    }
    push(&mut line, "closed=", ours.close_cause.as_ref());
    push(&mut line, "count=", record.count.map(|count| count.to_string()).as_ref());
    push(&mut line, "denial=", ours.denial_id.as_ref());
    push(&mut line, "conn=", ours.conn_id.as_ref());
    let _ = write!(line, " seq={}", record.metadata.sequence);
    line
}

fn push(line: &mut String, name: &str, value: Option<&String>) {
    if let Some(value) = value {
        let _ = write!(line, " {name}{}", word(value));
    }
}

fn source(record: &Record) -> String {
    let id = word(&Field::From.of(record));
    let end = record.src_endpoint.as_ref();
    match end.and_then(|end| end.ip.as_ref()) {
        Some(ip) => format!("{id}({})", shown(ip)),
        None => id,
    }
}

fn destination(end: Option<&NetworkEndpoint>) -> String {
    let name = end.and_then(|end| end.uid.as_ref().or(end.svc_name.as_ref()).or(end.ip.as_ref()));
    let name = word(name.map_or("-", |name| name));
    match end.and_then(|end| end.port) {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

#[cfg(test)]
mod tests;
