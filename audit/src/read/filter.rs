//! Which records an answer is about.

use std::{str::FromStr, time::SystemTime};

use super::{Glob, GlobError};
use crate::{
    event::Decision,
    id::{ConnectionId, DenialId},
    record::{NetworkEndpoint, Record, millis},
};

/// What a record must be like. What is not set matches every record.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Not over before.
    pub since: Option<SystemTime>,
    /// Not begun after.
    pub until: Option<SystemTime>,
    /// Who called.
    pub from: Option<Caller>,
    /// Who was called.
    pub to: Option<Glob>,
    /// The rule, as `name` or `file#name`.
    pub rule: Option<String>,
    /// The policy, by its name or its file.
    pub policy: Option<String>,
    /// The reason, or its finer code.
    pub reason: Option<String>,
    /// What was decided; any of these. Empty for all.
    pub decisions: Vec<Decision>,
    /// The port of the callee.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<Glob>,
    /// What a refused client was told.
    pub denial: Option<DenialId>,
    /// The connection.
    pub connection: Option<ConnectionId>,
}

/// Who called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody with an identity like this.
    Id(Glob),
    /// Somebody who proved none.
    Unauthenticated,
}

impl FromStr for Caller {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text == "unauthenticated" { Ok(Self::Unauthenticated) } else { text.parse().map(Self::Id) }
    }
}

impl Filter {
    /// Says whether the record is meant.
    pub fn matches(&self, record: &Record) -> bool {
        self.time_matches(record)
            && self.decision_matches(record)
            && self.ends_match(record)
            && self.rule_matches(record)
            && self.ids_match(record)
    }

    /// A record that stands for many counts when any of its time is inside.
    fn time_matches(&self, record: &Record) -> bool {
        let first = record.start_time.unwrap_or(record.time);
        let last = record.end_time.unwrap_or(record.time);
        self.since.is_none_or(|since| last >= millis(since))
            && self.until.is_none_or(|until| first <= millis(until))
    }

    fn decision_matches(&self, record: &Record) -> bool {
        let ours = &record.unmapped.vouchsafe;
        let decided = self.decisions.is_empty()
            || self.decisions.iter().any(|decision| decision.as_str() == ours.decision);
        decided
            && self.reason.as_ref().is_none_or(|reason| {
                record.status_detail.as_ref() == Some(reason) || ours.code.as_ref() == Some(reason)
            })
    }

    fn ends_match(&self, record: &Record) -> bool {
        let from = match &self.from {
            None => true,
            Some(Caller::Id(glob)) => is_like(record.src_endpoint.as_ref(), glob),
            Some(Caller::Unauthenticated) => {
                record.src_endpoint.as_ref().is_some_and(|end| end.uid.is_none())
            }
        };
        let to = self.to.as_ref().is_none_or(|glob| is_like(record.dst_endpoint.as_ref(), glob));
        let port =
            self.port.is_none_or(|port| record.dst_endpoint.as_ref().and_then(|end| end.port) == Some(port));
        let path = self.path.as_ref().is_none_or(|glob| {
            record.http_request.as_ref().is_some_and(|request| glob.matches(&request.url.path))
        });
        from && to && port && path
    }

    fn rule_matches(&self, record: &Record) -> bool {
        let rule = self.rule.as_ref().is_none_or(|wanted| {
            record.firewall_rule.as_ref().is_some_and(|rule| rule.name == *wanted || rule.uid == *wanted)
        });
        let policy = self.policy.as_ref().is_none_or(|wanted| {
            record.policy.as_ref().is_some_and(|policy| policy.name == *wanted || policy.uid == *wanted)
        });
        rule && policy
    }

    fn ids_match(&self, record: &Record) -> bool {
        let ours = &record.unmapped.vouchsafe;
        let last = ours.aggregate.as_ref().and_then(|aggregate| aggregate.last_denial_id.as_ref());
        let denial = self.denial.is_none_or(|id| {
            let id = id.to_string();
            ours.denial_id.as_ref() == Some(&id) || last == Some(&id)
        });
        denial && self.connection.is_none_or(|id| ours.conn_id == Some(id.to_string()))
    }
}

fn is_like(end: Option<&NetworkEndpoint>, glob: &Glob) -> bool {
    end.and_then(|end| end.uid.as_deref()).is_some_and(|id| glob.matches(id))
}

#[cfg(test)]
mod tests;
