//! Entries of the catalogue as they are printed.

use ca::catalogue::Outcome;
use policy::service::{Address, Entry};
use serde::Serialize;

use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Row};

/// One line of the list.
#[derive(Serialize)]
pub(super) struct EntryRow {
    kind: &'static str,
    name: String,
    ports: Vec<u16>,
    protocol: String,
    endpoints: Vec<String>,
    /// Who may answer.
    expect: Vec<String>,
    /// Whose sidecars get it.
    visible_to: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<String>,
}

impl EntryRow {
    pub(super) fn new(entry: &Entry, changed_at: i64) -> Self {
        let (ports, protocol, endpoints, expect): (_, _, Vec<&Address>, Vec<_>) = match entry {
            Entry::Service(service) => (
                service.ports.clone(),
                service.protocol.as_str().to_owned(),
                service.endpoints.iter().map(|endpoint| &endpoint.address).collect(),
                service.expect.iter().map(ToString::to_string).collect(),
            ),
            Entry::Sidecar(sidecar) => {
                let mut protocols: Vec<&str> =
                    sidecar.inbound.iter().map(|inbound| inbound.protocol.as_str()).collect();
                protocols.dedup();
                let ports = sidecar.inbound.iter().map(|inbound| inbound.port).collect();
                (ports, protocols.join(", "), Vec::new(), Vec::new())
            }
        };
        Self {
            kind: entry.kind().as_str(),
            name: entry.name().to_owned(),
            ports,
            protocol,
            endpoints: endpoints.into_iter().map(ToString::to_string).collect(),
            expect,
            visible_to: entry.audience().iter().map(ToString::to_string).collect(),
            changed_at: output::unix_time(changed_at),
        }
    }
}

impl Row for EntryRow {
    const SCHEMA: &'static str = "vouchsafe/service/v1";
    const HEADINGS: &'static [&'static str] =
        &["KIND", "NAME", "PORTS", "PROTOCOL", "ENDPOINTS", "VISIBLE TO", "CHANGED"];

    fn cells(&self) -> Vec<String> {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        vec![
            self.kind.to_owned(),
            self.name.clone(),
            ports.join(","),
            self.protocol.clone(),
            self.endpoints.len().to_string(),
            self.visible_to.join(", "),
            self.changed_at.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// One entry with everything that it says.
#[derive(Serialize)]
pub(super) struct WholeEntry {
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<String>,
    /// The entry as a file.
    document: serde_json::Value,
}

impl WholeEntry {
    pub(super) fn new(entry: &Entry, changed_at: i64) -> Result<Self, Failure> {
        Ok(Self {
            kind: entry.kind().as_str(),
            name: entry.name().to_owned(),
            changed_at: output::unix_time(changed_at),
            document: serde_json::from_str(&entry.document()).or_exit(Exit::Failed)?,
        })
    }
}

impl Row for WholeEntry {
    const SCHEMA: &'static str = "vouchsafe/service-entry/v1";
    const HEADINGS: &'static [&'static str] = &["KIND", "NAME", "CHANGED"];

    fn cells(&self) -> Vec<String> {
        vec![self.kind.to_owned(), self.name.clone(), self.changed_at.clone().unwrap_or_default()]
    }
}

/// What became of one entry.
#[derive(Serialize)]
pub(super) struct OutcomeRow {
    change: &'static str,
    kind: &'static str,
    name: String,
}

impl OutcomeRow {
    pub(super) fn new(outcome: &Outcome) -> Self {
        Self { change: outcome.change.as_str(), kind: outcome.kind.as_str(), name: outcome.name.clone() }
    }
}

impl Row for OutcomeRow {
    const SCHEMA: &'static str = "vouchsafe/service-change/v1";
    const HEADINGS: &'static [&'static str] = &["CHANGE", "KIND", "NAME"];

    fn cells(&self) -> Vec<String> {
        vec![self.change.to_owned(), self.kind.to_owned(), self.name.clone()]
    }
}
