//! Entries as they are printed, and what an edit changes in one.

use std::time::Duration;

use ca::model::{Entry, EntrySpec};
use serde::Serialize;

use crate::cli::duration::spell;
use crate::output::{self, Row};

/// An entry as it is printed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EntryRow {
    id: String,
    spiffe_id: String,
    parent_id: String,
    selectors: Vec<String>,
    /// Seconds; 0 is the CA's default.
    x509_svid_ttl: i32,
    dns_names: Vec<String>,
    federates_with: Vec<String>,
    hint: String,
    admin: bool,
    downstream: bool,
    store_svid: bool,
    on_demand: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
}

impl EntryRow {
    /// The entry as it is printed.
    pub(crate) fn new(entry: &Entry) -> Self {
        let spec = &entry.spec;
        Self {
            id: entry.id.to_string(),
            spiffe_id: spec.spiffe_id.to_string(),
            parent_id: spec.parent_id.to_string(),
            selectors: spec.selectors.iter().map(ToString::to_string).collect(),
            x509_svid_ttl: spec.x509_svid_ttl,
            dns_names: spec.dns_names.clone(),
            federates_with: spec.federates_with.iter().map(ToString::to_string).collect(),
            hint: spec.hint.clone(),
            admin: spec.admin,
            downstream: spec.downstream,
            store_svid: spec.store_svid,
            on_demand: spec.on_demand,
            expires_at: output::unix_time(spec.expires_at),
            revision: entry.revision,
            created_at: output::unix_time(entry.created_at),
        }
    }
}

impl Row for EntryRow {
    const SCHEMA: &'static str = "vouchsafe/entry/v1";
    const HEADINGS: &'static [&'static str] = &["ENTRY", "SPIFFE ID", "PARENT", "SELECTORS", "TTL"];
    fn cells(&self) -> Vec<String> {
        let selectors: Vec<String> = self.selectors.iter().map(|selector| audit::shown(selector)).collect();
        vec![
            self.id.clone(),
            self.spiffe_id.clone(),
            self.parent_id.clone(),
            selectors.join("\n"),
            ttl(self.x509_svid_ttl),
        ]
    }
}

/// One entry whole, all fields below each other.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct WholeEntry(pub(crate) EntryRow);

impl Row for WholeEntry {
    const SCHEMA: &'static str = EntryRow::SCHEMA;
    const HEADINGS: &'static [&'static str] = &[
        "entry",
        "SPIFFE ID",
        "parent",
        "selectors",
        "certificates live",
        "DNS names",
        "federates with",
        "hint",
        "rights",
        "expires",
        "revision",
        "created",
    ];
    fn cells(&self) -> Vec<String> {
        let entry = &self.0;
        let lines =
            |values: &[String]| values.iter().map(|value| audit::shown(value)).collect::<Vec<_>>().join("\n");
        let rights = [
            (entry.admin, "admin"),
            (entry.downstream, "downstream"),
            (entry.store_svid, "store_svid"),
            (entry.on_demand, "on_demand"),
        ];
        let rights: Vec<&str> = rights.into_iter().filter_map(|(held, name)| held.then_some(name)).collect();
        vec![
            entry.id.clone(),
            entry.spiffe_id.clone(),
            entry.parent_id.clone(),
            lines(&entry.selectors),
            ttl(entry.x509_svid_ttl),
            lines(&entry.dns_names),
            lines(&entry.federates_with),
            audit::shown(&entry.hint),
            rights.join("\n"),
            entry.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
            entry.revision.to_string(),
            entry.created_at.clone().unwrap_or_default(),
        ]
    }
}

/// What happens to one entry.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChangeRow {
    /// `create`, `update` or `delete`.
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    spiffe_id: String,
    parent_id: String,
    /// Lines that begin with `-` for what was and `+` for what will be.
    difference: Vec<String>,
}

impl ChangeRow {
    /// A new entry.
    pub(crate) fn create(spec: &EntrySpec) -> Self {
        let lines = lines(spec).into_iter().map(|line| format!("+{line}")).collect();
        Self::new("create", None, spec, lines)
    }

    /// An entry whose details change.
    pub(crate) fn update(old: &Entry, new: &EntrySpec) -> Self {
        let (was, will_be) = (lines(&old.spec), lines(new));
        let gone = was.iter().filter(|line| !will_be.contains(line)).map(|line| format!("-{line}"));
        let come = will_be.iter().filter(|line| !was.contains(line)).map(|line| format!("+{line}"));
        Self::new("update", Some(old.id.to_string()), new, gone.chain(come).collect())
    }

    /// An entry that goes.
    pub(crate) fn delete(old: &Entry) -> Self {
        let lines = lines(&old.spec).into_iter().map(|line| format!("-{line}")).collect();
        Self::new("delete", Some(old.id.to_string()), &old.spec, lines)
    }

    fn new(change: &'static str, entry: Option<String>, spec: &EntrySpec, difference: Vec<String>) -> Self {
        let (spiffe_id, parent_id) = (spec.spiffe_id.to_string(), spec.parent_id.to_string());
        Self { change, entry, spiffe_id, parent_id, difference }
    }
}

impl Row for ChangeRow {
    const SCHEMA: &'static str = "vouchsafe/entry-change/v1";
    const HEADINGS: &'static [&'static str] = &["CHANGE", "SPIFFE ID", "PARENT", "DIFFERENCE"];
    fn cells(&self) -> Vec<String> {
        let lines: Vec<String> = self.difference.iter().map(|line| audit::shown(line)).collect();
        vec![self.change.to_owned(), self.spiffe_id.clone(), self.parent_id.clone(), lines.join("\n")]
    }
}

/// A specification as lines of `name: value`, without what is left at its default.
fn lines(spec: &EntrySpec) -> Vec<String> {
    let mut lines = vec![format!("spiffe_id: {}", spec.spiffe_id), format!("parent_id: {}", spec.parent_id)];
    lines.extend(spec.selectors.iter().map(|selector| format!("selector: {selector}")));
    let ttls = [("x509_svid_ttl", spec.x509_svid_ttl), ("jwt_svid_ttl", spec.jwt_svid_ttl)];
    lines.extend(
        ttls.iter()
            .filter(|(_, seconds)| *seconds != 0)
            .map(|(name, seconds)| format!("{name}: {}", ttl(*seconds))),
    );
    lines.extend(spec.dns_names.iter().map(|name| format!("dns_name: {name}")));
    lines.extend(spec.federates_with.iter().map(|name| format!("federates_with: {name}")));
    if !spec.hint.is_empty() {
        lines.push(format!("hint: {}", spec.hint));
    }
    let rights = [
        ("admin", spec.admin),
        ("downstream", spec.downstream),
        ("store_svid", spec.store_svid),
        ("on_demand", spec.on_demand),
    ];
    lines.extend(rights.iter().filter(|(_, held)| *held).map(|(name, _)| format!("{name}: true")));
    lines.extend(output::unix_time(spec.expires_at).map(|at| format!("expires_at: {at}")));
    lines
}

fn ttl(seconds: i32) -> String {
    match u64::try_from(seconds) {
        Ok(0) | Err(_) => "default".to_owned(),
        Ok(seconds) => spell(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests;
