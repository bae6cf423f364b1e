//! Reading a sidecar's audit log as an outsider would: JSON lines, by the field names of the standard.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::wait::eventually;

/// One sidecar's log.
#[derive(Clone)]
pub(crate) struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Every whole record written so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    pub(crate) fn denials(&self) -> Vec<Value> {
        self.records().into_iter().filter(is_denial).collect()
    }

    /// How many accesses the records say were denied; aggregates count for what they fold.
    pub(crate) fn denied(&self) -> u64 {
        self.denials().iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum()
    }

    /// Waits until exactly `count` denials are on record and returns the last.
    #[track_caller]
    pub(crate) fn wait_for_denied(&self, count: u64) -> Value {
        eventually(&format!("{count} denials in {}, found {}", self.path.display(), self.denied()), || {
            (self.denied() >= count).then_some(())
        });
        let denials = self.denials();
        assert_eq!(self.denied(), count, "more denials than accesses: {denials:#?}");
        denials.last().cloned().unwrap_or(Value::Null)
    }

    /// Waits for a denial that is as `wanted`, whatever else was denied.
    #[track_caller]
    pub(crate) fn wait_for_denial(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        eventually(
            &format!("a certain denial in {}, found {:#?}", self.path.display(), self.denials()),
            || {
                found = self.denials().into_iter().find(&wanted)?;
                Some(())
            },
        );
        found
    }
}

/// Whether a record says that an access was refused.
pub(crate) fn is_denial(record: &Value) -> bool {
    record["action_id"] == 2
}

/// The reason of a denial.
pub(crate) fn reason(record: &Value) -> &str {
    record["status_detail"].as_str().unwrap_or("")
}

/// The finer code beside the reason.
pub(crate) fn code(record: &Value) -> &str {
    record["unmapped"]["vouchsafe"]["code"].as_str().unwrap_or("")
}
