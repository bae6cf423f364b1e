//! Counting records by what they have in common.

use std::{collections::HashMap, fmt, str::FromStr};

use crate::record::{NetworkEndpoint, Record};

/// What records can be grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// The caller's identity.
    From,
    /// The callee's identity.
    To,
    /// The rule that decided.
    Rule,
    /// The policy that decided.
    Policy,
    /// The reason.
    Reason,
    /// The finer code of the reason.
    Code,
    /// What was decided.
    Decision,
    /// Where in the connection's life.
    Stage,
    /// The callee's port.
    Port,
    /// The method.
    Method,
    /// The path.
    Path,
    /// The caller's address.
    SourceIp,
    /// The generation of the policy set.
    Generation,
}

/// Says that a text is not the name of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no field to group by; there are {}", names())]
pub struct FieldError {
    name: String,
}

impl Field {
    /// Every field there is.
    pub const ALL: [Self; 13] = [
        Self::From,
        Self::To,
        Self::Rule,
        Self::Policy,
        Self::Reason,
        Self::Code,
        Self::Decision,
        Self::Stage,
        Self::Port,
        Self::Method,
        Self::Path,
        Self::SourceIp,
        Self::Generation,
    ];

    /// Returns the field's name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
            Self::Rule => "rule",
            Self::Policy => "policy",
            Self::Reason => "reason",
            Self::Code => "code",
            Self::Decision => "decision",
            Self::Stage => "stage",
            Self::Port => "port",
            Self::Method => "method",
            Self::Path => "path",
            Self::SourceIp => "source_ip",
            Self::Generation => "generation",
        }
    }

    /// Returns what the record has there; `-` for nothing.
    pub fn of(self, record: &Record) -> String {
        let ours = &record.unmapped.vouchsafe;
        let request = record.http_request.as_ref();
        let found = match self {
            Self::From => match &record.src_endpoint {
                Some(NetworkEndpoint { uid: None, .. }) => Some("unauthenticated".to_owned()),
                source => source.as_ref().and_then(|end| end.uid.clone()),
            },
            Self::To => {
                record.dst_endpoint.as_ref().and_then(|end| end.uid.clone().or_else(|| end.svc_name.clone()))
            }
            Self::Rule => record.firewall_rule.as_ref().map(|rule| rule.uid.clone()),
            Self::Policy => record.policy.as_ref().map(|policy| policy.name.clone()),
            Self::Reason => record.status_detail.clone(),
            Self::Code => ours.code.clone(),
            Self::Decision => Some(ours.decision.clone()),
            Self::Stage => Some(ours.stage.clone()),
            Self::Port => record.dst_endpoint.as_ref().and_then(|end| end.port).map(|port| port.to_string()),
            Self::Method => request.map(|request| request.http_method.clone()),
            Self::Path => request.map(|request| request.url.path.clone()),
            Self::SourceIp => record.src_endpoint.as_ref().and_then(|end| end.ip.clone()),
            Self::Generation => ours.generation.clone(),
        };
        found.unwrap_or_else(|| "-".to_owned())
    }
}

impl FromStr for Field {
    type Err = FieldError;

    fn from_str(name: &str) -> Result<Self, FieldError> {
        let found = Self::ALL.into_iter().find(|field| field.as_str() == name);
        found.ok_or_else(|| FieldError { name: name.to_owned() })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Events counted by the values of some fields.
#[derive(Debug)]
pub struct Groups {
    fields: Vec<Field>,
    counts: HashMap<Vec<String>, Sum>,
    other: Sum,
}

/// The events that have the same values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The values, in the order of the fields; `(other)` for what found no room.
    pub values: Vec<String>,
    /// How many events.
    pub count: u64,
    /// In how many records.
    pub records: u64,
    /// The time of the last, in milliseconds since 1970.
    pub last: i64,
}

#[derive(Debug, Clone, Copy)]
struct Sum {
    count: u64,
    records: u64,
    last: i64,
}

impl Groups {
    /// Begins to count by `fields`.
    pub fn by(fields: Vec<Field>) -> Self {
        Self { fields, counts: HashMap::new(), other: Sum::NONE }
    }

    /// Counts every event the record stands for.
    pub fn add(&mut self, record: &Record) {
        let values: Vec<_> = self.fields.iter().map(|field| field.of(record)).collect();
        if let Some(sum) = self.counts.get_mut(&values) {
            return sum.add(record);
        }
        if self.counts.len() >= MAX_GROUPS {
            return self.other.add(record);
        }
        self.counts.entry(values).or_insert(Sum::NONE).add(record);
    }

    /// Returns the `limit` largest groups, the largest first, and how many groups there are.
    /// Where there were more than [`MAX_GROUPS`], the rest is one group `(other)`.
    pub fn top(self, limit: usize) -> (Vec<Group>, usize) {
        let other = vec!["(other)".to_owned(); self.fields.len()];
        let rest = (self.other.records > 0).then_some((other, self.other));
        let groups = self.counts.into_iter().chain(rest);
        let mut groups: Vec<_> = groups.map(|(values, sum)| sum.group(values)).collect();
        let found = groups.len();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.values.cmp(&b.values)));
        groups.truncate(limit);
        (groups, found)
    }
}

impl Sum {
    const NONE: Self = Self { count: 0, records: 0, last: i64::MIN };

    fn add(&mut self, record: &Record) {
        self.count = self.count.saturating_add(record.count());
        self.records += 1;
        self.last = self.last.max(record.end_time.unwrap_or(record.time));
    }

    fn group(self, values: Vec<String>) -> Group {
        Group { values, count: self.count, records: self.records, last: self.last }
    }
}

fn names() -> String {
    Field::ALL.map(Field::as_str).join(", ")
}

/// How many groups are told apart.
pub const MAX_GROUPS: usize = 100_000;

#[cfg(test)]
mod tests;
